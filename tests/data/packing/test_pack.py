from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import webdataset
from helpers.launching import ROOT

from savae_dist.data import Order, Reader, Request, Shards, pack, read_arrays
from savae_dist.data.order.permutation import PACK, permutation
from savae_dist.errors import ConfigError, DataError, SaveError

RNG = np.random.default_rng(0)
CASES = {
    "gray": RNG.integers(0, 256, (53, 9, 7), dtype=np.uint8),
    "rgb": RNG.integers(0, 256, (53, 9, 7, 3), dtype=np.uint8),
    "windows": RNG.standard_normal((53, 33)).astype(np.float32),
    "one_channel": RNG.standard_normal((53, 1, 33)).astype(np.float32),
    "three_channels": RNG.standard_normal((53, 3, 33)).astype(np.float32),
}
Y = np.r_[np.arange(40) % 4, np.full(13, -1)]


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("layout", ["packed", "samples"])
@pytest.mark.parametrize("case", CASES)
def test_packed_and_read_back_bit_for_bit(tmp_path, layout, case):
    x = CASES[case]
    made = pack(x, Y, tmp_path / "s", layout=layout, shard_size=20, block=8, seed=4)
    shards = Shards.open(tmp_path / "s")
    assert shards.counts.tolist() == [18, 18, 17]
    batch = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, 53, range(53))]
    stored = permutation(53, 4, PACK)
    assert stored.tolist() != list(range(53))
    assert batch.x.numpy().dtype == x.dtype
    assert batch.x.numpy().tobytes() == x[stored].tobytes()
    assert (batch.y.numpy() == Y[stored]).all()
    assert made["counts"] == {0: 10, 1: 10, 2: 10, 3: 10}
    assert (made["samples"], made["classes"], made["unlabelled"]) == (53, 4, 13)


@pytest.mark.parametrize("layout", ["packed", "samples"])
@pytest.mark.parametrize("case", ["gray", "three_channels"])
def test_the_same_bytes_each_time(tmp_path, layout, case):
    for name in ("a", "b"):
        pack(CASES[case], Y, tmp_path / name, layout=layout, shard_size=20, block=8, seed=1)
    pack(CASES[case], Y, tmp_path / "c", layout=layout, shard_size=20, block=8, seed=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_blocks_are_readable_by_webdataset(tmp_path):
    x = CASES["gray"]
    pack(x, Y, tmp_path / "s", shard_size=30, block=8)
    stored = permutation(53, 0, PACK)
    urls = [str(path) for path in sorted((tmp_path / "s").glob("*.tar"))]
    blocks = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [len(block["x.npy"]) for block in blocks] == [8, 8, 8, 3, 8, 8, 8, 2]
    assert (np.concatenate([block["x.npy"] for block in blocks]) == x[stored]).all()
    assert (np.concatenate([block["y.npy"] for block in blocks]) == Y[stored]).all()
    assert [row for block in blocks for row in block["json"]["row"]] == stored.tolist()
    assert len({block["__key__"] for block in blocks}) == len(blocks)


def test_samples_are_readable_by_webdataset(tmp_path):
    for case, extension, decoder in (("rgb", "png", "rgb8"), ("three_channels", "npy", None)):
        pack(CASES[case], Y, tmp_path / case, layout="samples", shard_size=30)
        urls = [str(path) for path in sorted((tmp_path / case).glob("*.tar"))]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode(*([decoder] if decoder else [])))
        stored = permutation(53, 0, PACK)
        assert (np.stack([sample[extension] for sample in samples]) == CASES[case][stored]).all()
        assert [sample["cls"] for sample in samples] == Y[stored].tolist()


def test_sampling_rate_is_kept(tmp_path):
    pack(CASES["windows"], Y, tmp_path / "s", rate=12_000.0, class_names=["a", "b", "c", "d", "e"])
    spec = Shards.open(tmp_path / "s").spec
    assert (spec.rate, spec.classes, spec.class_names) == (12_000.0, 5, ("a", "b", "c", "d", "e"))
    block = next(iter(webdataset.WebDataset(str(tmp_path / "s" / "shards-000000.tar"), shardshuffle=False)))
    assert json.loads(block["json"])["rate"] == [12_000.0] * 53


def test_an_image_with_one_channel_is_gray(tmp_path):
    x = CASES["gray"][..., None]
    for layout in ("packed", "samples"):
        pack(x, Y, tmp_path / layout, layout=layout)
        assert Shards.open(tmp_path / layout).stored_shape == (9, 7)


def test_a_folder_in_use_is_not_touched_unless_asked(tmp_path):
    out = tmp_path / "s"
    out.mkdir()
    pack(CASES["gray"], Y, out)  # an empty folder may be filled
    before = contents(out)
    with pytest.raises(ConfigError, match="overwrite") as caught:
        pack(CASES["rgb"], Y, out)
    assert len(str(caught.value).splitlines()) == 1
    assert contents(out) == before
    pack(CASES["rgb"], Y, out, overwrite=True)
    assert Shards.open(out).spec.shape == (3, 9, 7)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    pack(CASES["gray"], Y, tmp_path / "s")
    before = contents(tmp_path / "s")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    module = importlib.import_module("savae_dist.data.packing.pack")  # the package shows the function under this name
    for step in ("build_index", "write_tar"):
        monkeypatch.setattr(module, step, full)
        for out, overwrite in (("s", True), ("new", False)):
            with pytest.raises(SaveError, match="No space") as caught:
                pack(CASES["gray"], Y, tmp_path / out, overwrite=overwrite)
            assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s"]
    assert contents(tmp_path / "s") == before


WRONG = {
    "x is": (np.zeros((3, 4), np.uint8), np.zeros(3, int)),
    "x is int32": (np.zeros((3, 4, 4), np.int32), np.zeros(3, int)),
    "x is float32": (np.zeros((0, 4), np.float32), np.zeros(0, int)),
    "not finite": (np.full((3, 4), np.nan, np.float32), np.zeros(3, int)),
    "one integer per sample": (np.zeros((3, 4, 4), np.uint8), np.zeros(2, int)),
    "y is float64": (np.zeros((3, 4, 4), np.uint8), np.zeros(3)),
    "from -2 to 0": (np.zeros((3, 4, 4), np.uint8), np.array([0, -2, 0])),
    "from 0 to 2": (np.zeros((3, 4, 4), np.uint8), np.array([0, 2, 1])),
}


@pytest.mark.parametrize("message", WRONG)
def test_arrays_that_cannot_be_packed(tmp_path, message):
    x, y = WRONG[message]
    with pytest.raises(DataError, match=message) as caught:
        pack(x, y, tmp_path / "s", class_names=["a", "b"])
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_read_arrays_converts(tmp_path):
    path = tmp_path / "a.npz"
    for x, expected in [
        (np.eye(4, dtype=bool)[None], np.eye(4, dtype=np.uint8)[None] * 255),
        (np.array([[0.1, 2.5]]), np.array([[0.1, 2.5]], np.float32)),
        (np.array([[-3, 300]], np.int16), np.array([[-3, 300]], np.float32)),
    ]:
        np.savez(path, x=x)
        got, y, names = read_arrays(path)
        assert got.dtype == expected.dtype
        assert (got == expected).all()
        assert y.tolist() == [-1]
        assert names == ()
    np.savez(path, x=np.zeros((2, 3, 3), np.uint8), y=np.array([1.0, -1.0]), class_names=["cat", "dog"])
    _, y, names = read_arrays(path)
    assert y.dtype == np.int64
    assert y.tolist() == [1, -1]
    assert names == ("cat", "dog")


def test_files_that_are_no_arrays(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    pickled = path.read_bytes()
    np.savez(path, z=np.zeros(3))
    without_x = path.read_bytes()
    np.savez(path, x=np.zeros((2, 3), complex))
    for content in (pickled, without_x, path.read_bytes(), b"", b"hello", path.read_bytes()[:-40]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.npz") as caught:
            read_arrays(path)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(DataError, match=r"none\.npz"):
        read_arrays(tmp_path / "none.npz")


def test_the_tool(tmp_path):
    tool = [sys.executable, str(ROOT / "tools" / "make_shards.py")]
    np.savez(tmp_path / "a.npz", x=CASES["windows"], y=Y)
    command = [*tool, "arrays", str(tmp_path / "a.npz"), str(tmp_path / "s"), "--shard-size", "20", "--rate", "12000"]
    done = subprocess.run([*command, "--class-names", "a,b,c,d"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("signal", "53", "float32 [33]", "unlabelled  13", "mean", "12000"):
        assert word in done.stdout
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 2
    assert len(again.stderr.splitlines()) == 1
    assert Shards.open(tmp_path / "s").spec.class_names == ("a", "b", "c", "d")
