"""Damaged shards (`--fuzz-shards N` of them), generated headers and names: nothing crashes, hangs or escapes."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import fuzzing
from helpers.tars import PICTURES, chunk, npy
from hypothesis import given, settings
from hypothesis import strategies as st

from savae_dist.data.formats.headers import plain
from savae_dist.data.formats.images import _pillow, decode_picture
from savae_dist.data.formats.npy import decode, encode_image, npy_header
from savae_dist.data.formats.tar import open_tar, walk
from savae_dist.data.index.scan import Layout, scan_shard
from savae_dist.errors import BadSample, DataError

SECONDS = 20  # that one shard may take
FEW = settings(max_examples=200, deadline=None)


def test_damaged_shards(tmp_path, request):
    count = request.config.getoption("--fuzz-shards")
    sets = tmp_path / "sets"
    sets.mkdir()
    assert len(fuzzing.make(sets)) == 5
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    places = {name: str(cwd) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    command = [sys.executable, "-B", fuzzing.__file__, str(tmp_path), "0", str(count), str(SECONDS)]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **places}, capture_output=True, text=True, timeout=60 + count
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {len(results)}: {done.stderr[-3000:]}"
    assert len(results) == count
    assert [one["forbidden"] for one in results if one["forbidden"]] == []
    assert [one for one in results if one["good"] + sum(one["bad"].values()) != fuzzing.N] == []
    assert list(cwd.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cwd", "sets", "work"]
    print(*told(results), sep="\n")


ESCAPES = """
import os, pickle, socket, subprocess, sys
from pathlib import Path
from helpers import fuzzing
seen = fuzzing.watch(Path("inside").resolve())
open("inside/a", "w").close()
assert not seen, seen
open("outside", "w").close()
os.system("true")
subprocess.run(["true"])
pickle.loads(b"cos\\nsystem\\n.")
socket.socket().close()
print(*sorted({one.split()[0] for one in seen}))
"""


def test_the_watch_sees_what_it_must(tmp_path):
    (tmp_path / "inside").mkdir()
    paths = os.pathsep.join((str(Path(fuzzing.__file__).parents[1]), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-B", "-c", ESCAPES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split()[-5:] == [
        "open",
        "os.system",
        "pickle.find_class",
        "socket.__new__",
        "subprocess.Popen",
    ], done.stdout + done.stderr


def told(results: list[dict]) -> list[str]:
    """What came of them, for `pytest -s`."""
    bad, dropped = Counter(), Counter()
    for one in results:
        bad.update(one["bad"])
        dropped.update(one.get("dropped", {}))
    slowest = max(one["seconds"] for one in results)
    refused = sum("refused" in one for one in results)
    return [
        f"{len(results)} damaged shards of {fuzzing.N} samples, the slowest took {slowest:.2f} s",
        f"with the whole one's index: good {sum(one['good'] for one in results)}, bad {dict(bad)}",
        f"indexed afresh: {len(results) - refused}, refused: {refused}; dropped {dict(dropped)}",
    ]


@FEW
@given(st.binary(max_size=300), st.binary(max_size=64))
def test_any_npy_header(header, values):
    for data in (npy(header, values), b"\x93NUMPY" + header):
        try:
            dtype, shape, start = npy_header(data)
        except ValueError:
            continue
        assert np.frombuffer(data, dtype, offset=start).reshape(shape).shape == shape


DTYPES = st.sampled_from(["<f4", ">f8", "|u1", "<i2", "|O", "<U3", "V8", "f4,f4", "?", "<m8[s]", "<f16"])
SIZES = st.lists(st.integers(-3, 2**70) | st.integers(0, 4), max_size=4)


@FEW
@given(DTYPES, st.booleans(), SIZES, st.binary(max_size=64))
def test_npy_headers_that_look_right(dtype, fortran, shape, values):
    header = repr({"descr": dtype, "fortran_order": fortran, "shape": tuple(shape)}).encode()
    try:
        x = decode(npy(header, values))
    except BadSample:
        return
    assert list(x.shape) == shape or [*x.shape, 1] == shape


U32 = st.integers(0, 2**32 - 1) | st.integers(0, 20)


DEPTHS = st.integers(0, 255) | st.sampled_from([1, 2, 4, 8, 16])
EXTRAS = st.sampled_from([b"", chunk(b"tRNS", b"\0\1"), chunk(b"PLTE", bytes(9)), b"x"])


@FEW
@given(U32, U32, DEPTHS, st.integers(0, 7), st.integers(0, 2), st.binary(max_size=400), EXTRAS)
def test_any_png_header(width, height, depth, kind, interlaced, pixels, extra):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced))
    data = b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    try:
        x = decode_picture(data)
    except BadSample:
        return
    assert x.shape[:2] == (height, width)


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4)


@FEW
@given(st.sampled_from(sorted(PICTURES)), CHANGES)
def test_damaged_images_decode_alike_or_not_at_all(name, changes):
    data = bytearray(PICTURES[name])
    for where, value in changes:
        data[int(where * (len(data) - 1))] = value
    try:
        x = decode_picture(bytes(data))
    except BadSample:
        return
    assert x.dtype == np.uint8
    assert x.ndim == 2 or x.shape[2] == 3
    if name.endswith("png") and plain(bytes(data)):  # OpenCV decoded it; a damaged JPEG is a matter of taste
        assert (_pillow(bytes(data), None, ("PNG",), 8) == x).all()


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=120)
STYLES = st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])


@FEW
@given(st.lists(NAMES, min_size=1, max_size=5), STYLES)
def test_any_names(tmp_path_factory, names, style):
    """The walk finds what tarfile finds, and the scan does something sensible with it."""
    path = tmp_path_factory.getbasetemp() / "names.tar"
    with tarfile.open(path, "w", format=style) as tar:
        for name in names:
            info = tarfile.TarInfo(f"{name}.png")
            info.size = 4
            tar.addfile(info, io.BytesIO(b"\0abc"))
    with tarfile.open(path) as tar:
        expected = [(info.name, info.offset_data, info.size) for info in tar if info.isreg()]
    with open_tar(path) as data:
        assert [(entry.name.rstrip("/"), entry.offset, entry.size) for entry in walk(data)] == expected
    scan = scan_shard(path, Layout())
    for reasons in (scan.dropped, scan.bad):
        assert all(key.isprintable() for one in reasons.values() for key in one["keys"])


def test_every_prefix_of_a_small_tar(tmp_path):
    """Whatever is cut off, what is whole is found and nothing else."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for i in range(3):
            for end, content in (("png", encode_image(np.full((3, 4), i, np.uint8))), ("cls", b"%d" % i)):
                info = tarfile.TarInfo(f"k{i}.{end}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    whole, path = stream.getvalue(), tmp_path / "a.tar"
    for size in range(512, 3 * 2048 + 600, 7):
        path.write_bytes(whole[:size])
        try:
            scan = scan_shard(path, Layout())
        except DataError:
            pytest.fail(f"refused at {size}")
        labels = scan.samples["label"].tolist()
        assert labels in ([], [-1], [0], [0, 1], [0, 1, 2]), (size, labels)
        assert sum(one["count"] for one in scan.dropped.values()) <= 1
