"""Damaged shards, indexed and read in a process that is watched: `fuzzing.py FOLDER FIRST COUNT SECONDS`."""

from __future__ import annotations

import faulthandler
import io
import json
import os
import shutil
import struct
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from savae_dist.data import Order, Reader, Request, Shards, index_set, pack, survey
from savae_dist.data.formats import images
from savae_dist.data.formats.npy import encode_image, encode_npy
from savae_dist.errors import DataError

N = 60
FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "size": (124, 12),
    "type": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
}
WATCHED = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.spawn", "subprocess.Popen", "socket.",
           "pickle.find_class", "ctypes.dlopen", "os.link", "os.symlink")  # fmt: skip
Mutation = Callable[[bytearray, np.random.Generator], None]


def make(folder: Path) -> list[str]:
    """One small set of each sort below `folder`: both layouts, images and windows, and another writer's images."""
    rng = np.random.default_rng(0)
    y = np.arange(N) % 5 - 1
    images = cv2.GaussianBlur(rng.integers(0, 256, (N, 12, 11), dtype=np.uint8), (3, 3), 0)
    windows = rng.standard_normal((N, 2, 16)).astype(np.float32)
    for layout in ("packed", "samples"):
        pack(images, y, folder / f"images-{layout}", layout=layout, block=16)
        pack(windows, y, folder / f"windows-{layout}", layout=layout, block=16)
    (folder / "foreign").mkdir()
    kinds = ("png", "jpeg", "webp", "palette", "deep", "alpha", "npy")
    with tarfile.open(folder / "foreign" / "shards-000000.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for i in range(N):
            data, end = encoded(rng.integers(0, 256, (12, 11, 3), dtype=np.uint8), kinds[i % len(kinds)])
            for name, content in ((f"{'é' * (i % 3)}k{i}.{end}", data), (f"{'é' * (i % 3)}k{i}.cls", b"%d" % y[i])):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    Shards.open(folder / "foreign")
    return sorted(path.name for path in folder.iterdir())


def encoded(x: np.ndarray, kind: str) -> tuple[bytes, str]:
    if kind in ("png", "npy"):
        return (encode_image(x), "png") if kind == "png" else (encode_npy(x), "npy")
    if kind == "deep":
        return cv2.imencode(".png", x.astype(np.uint16) * 257)[1].tobytes(), "png"
    image, stream = Image.fromarray(x), io.BytesIO()
    image = image.quantize(8) if kind == "palette" else image
    if kind == "alpha":
        image.putalpha(100)
    image.save(stream, kind if kind in ("jpeg", "webp") else "png")
    return stream.getvalue(), kind if kind in ("jpeg", "webp") else "png"


def span(data: bytearray, rng: np.random.Generator) -> slice:
    start = int(rng.integers(len(data)))
    return slice(start, start + int(2 ** rng.uniform(0, 13)))


def headers(data: bytearray) -> list[int]:
    return [at for at in range(0, len(data) - 511, 512) if data[at + 257 : at + 262] == b"ustar"] or [0]


def flip_bits(data: bytearray, rng: np.random.Generator) -> None:
    for at in rng.integers(len(data), size=int(2 ** rng.uniform(0, 7))):
        data[at] ^= 1 << int(rng.integers(8))


def overwrite(data: bytearray, rng: np.random.Generator) -> None:
    where = span(data, rng)
    size = len(data[where])
    data[where] = (bytes(size), b"\xff" * size, rng.bytes(size))[int(rng.integers(3))]


def truncate(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(len(data))) :]


def insert(data: bytearray, rng: np.random.Generator) -> None:
    where = span(data, rng)
    data[where.start : where.start] = rng.bytes(where.stop - where.start)


def delete(data: bytearray, rng: np.random.Generator) -> None:
    del data[span(data, rng)]


def duplicate(data: bytearray, rng: np.random.Generator) -> None:
    piece, at = data[span(data, rng)], int(rng.integers(len(data)))
    data[at:at] = piece


def forge_header(data: bytearray, rng: np.random.Generator) -> None:
    """A field of a header replaced, and its checksum put right."""
    at = int(rng.choice(headers(data)))
    start, size = FIELDS[str(rng.choice(list(FIELDS)))]
    names = [b"/etc/x.png", b"../../x.npy", b"a.pkl", b"x" * 100, b"|touch x.png", b"k0.cls\0", b"\xff.x.npy"]
    numbers = [b"77777777777\0", b"00000000000\0", b"\x80" + bytes(3) + b"\xff" * 8, b"\xff" * 12, b"-0000001000\0"]
    values = names if size == 100 else numbers if size == 12 else [bytes([int(rng.integers(256))]) * size]
    data[at + start : at + start + size] = values[int(rng.integers(len(values)))][:size].ljust(size, b"\0")
    head = data[at : at + 512]
    head[148:156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(head)


def forge_content(data: bytearray, rng: np.random.Generator) -> None:
    """What the decoders look at first."""
    at = int(rng.choice(headers(data))) + 512 + int(rng.integers(64))
    if at + 4 <= len(data):
        size = int(rng.choice([1, 2, 4]))
        data[at : at + size] = struct.pack(">I", int(rng.choice([0, 1, 255, 2**31 - 1, 2**32 - 1, 0x01010101])))[:size]


def swap(data: bytearray, rng: np.random.Generator) -> None:
    one, other = sorted(int(at) for at in rng.choice(headers(data), 2))
    size = int(rng.choice([512, 1024, 1536]))
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, overwrite, truncate, insert, delete, duplicate, forge_header, forge_content, swap
)  # fmt: skip


def damaged(whole: bytes, seed: int) -> tuple[bytes, list[str]]:
    """A copy with one to three mutations: the same for the same seed."""
    rng = np.random.default_rng(seed)
    data, names = bytearray(whole), []
    for mutation in rng.choice(len(MUTATIONS), int(rng.choice([1, 1, 2, 3]))):
        if data:
            MUTATIONS[mutation](data, rng)
            names.append(MUTATIONS[mutation].__name__)
    return bytes(data), names


def read_all(shards: Shards) -> tuple[np.ndarray, np.ndarray, Counter[str]]:
    """Ids and values of the good samples, and the reasons of the bad ones; a training order is read as well."""
    reader = Reader(shards, Order.sequential(shards.counts), sys.maxsize)
    batch = reader[Request(0, shards.size, range(shards.size))]
    assert len(batch.id) + len(batch.bad) == shards.size, (len(batch.id), batch.bad)
    try:
        drawn = Reader(shards, Order(shards.counts, 0, 2, 2), sys.maxsize)[Request(0, 2 * N, range(2 * N))]
        assert len(drawn.y) == 2 * N
    except DataError as error:
        check_message(str(error))
    for _, name, key in batch.bad:
        check_message(name + key)
    return batch.id.numpy(), batch.x.numpy(), Counter(reason for reason, _, _ in batch.bad)


def check_message(text: str) -> None:
    assert text.isprintable(), text


def run(original: Path, folder: Path, seed: int) -> dict[str, object]:
    """One damaged shard behind the index of the whole one, and then indexed afresh."""
    whole = Shards.open(original)
    _, expected, _ = read_all(whole)
    known = folder / "known"
    shutil.copytree(original, known)
    (known / "shards-000000.tar").unlink()
    data, mutations = damaged((original / "shards-000000.tar").read_bytes(), seed)
    (known / "shards-000000.tar").write_bytes(data)
    ids, x, bad = read_all(Shards.open(known))
    assert len(ids) + sum(bad.values()) == N
    assert (x == expected[ids]).all(), "a damaged sample was taken for a good one"
    result: dict[str, object] = {"set": original.name, "mutations": mutations, "good": len(ids), "bad": bad}
    (folder / "anew").mkdir()
    try:
        shards = index_set([known / "shards-000000.tar"], folder / "anew", decode_all=True)
        ids, _, bad = read_all(shards)
        (shard,) = shards.index["shards"]
        assert sum(bad.values()) == sum(one["count"] for one in shard["bad"].values())
        for line in survey(shards):
            check_message(line)
        result |= {"indexed": shards.size, "dropped": {name: one["count"] for name, one in shard["dropped"].items()}}
    except DataError as error:
        check_message(str(error))
        result["refused"] = str(error).replace(str(folder), "")
    shutil.rmtree(known)
    shutil.rmtree(folder / "anew")
    return result


def watch(allowed: Path) -> list[str]:
    """What this process does from now on that it must not: it writes elsewhere, starts something or loads a pickle."""
    seen: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event.startswith(WATCHED):
            seen.append(f"{event} {arguments}")
        if event == "open" and isinstance(arguments[0], str | bytes):
            flags = int(arguments[2]) if isinstance(arguments[2], int) else 0
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if writes and not path.startswith(f"{allowed}{os.sep}"):
                seen.append(f"open {arguments}")

    sys.addaudithook(hook)
    return seen


def main() -> None:
    folder, first, count, seconds = Path(sys.argv[1]).resolve(), *map(int, sys.argv[2:5])
    assert images.GRAY is not None  # imported before anything is watched
    work = folder / "work"
    work.mkdir()
    seen = watch(work)
    sets = sorted(path for path in (folder / "sets").iterdir())
    for seed in range(first, first + count):
        faulthandler.dump_traceback_later(seconds, exit=True)
        start = time.perf_counter()
        result = run(sets[seed % len(sets)], work, seed)
        result |= {"seed": seed, "seconds": time.perf_counter() - start, "forbidden": seen[:3]}
        print(json.dumps(result), flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
