"""Shards of this package read by others, and others' shards read here, bit for bit; then all the real data."""

from __future__ import annotations

import io
import lzma
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from savae_dist.data import Order, Reader, Request, Shards, index_set, pack
from savae_dist.data.order.permutation import PACK, permutation
from savae_dist.data.packing.packer import Options, pack_source
from savae_dist.data.packing.sources import arrays
from savae_dist.data.packing.sources.recordings import Windows, recordings
from savae_dist.data.packing.splits import Splits

RNG = np.random.default_rng(0)
N = 50
GRAY = RNG.integers(0, 256, (N, 9, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (N, 9, 7, 3), dtype=np.uint8)
WINDOWS = RNG.standard_normal((N, 2, 33)).astype(np.float32)
KINDS = {"gray": GRAY, "rgb": RGB, "windows": WINDOWS}
Y = np.arange(N) % 4 - 1
LAYOUTS = ("packed", "samples")
DATA = Path(os.environ.get("SAVAE_DATA", "shards of real data"))
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="SAVAE_DATA names no folder with the real data sets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def everything(shards: Shards) -> tuple[np.ndarray, np.ndarray]:
    batch = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, shards.size, range(shards.size))]
    return batch.x.numpy(), batch.y.numpy()


def check_same(x: list[np.ndarray], y: list[int], kind: str) -> None:
    """The samples are those of `pack`, in the order of its shuffle."""
    stored = permutation(N, 0, PACK)
    assert np.stack(x).tobytes() == KINDS[kind][stored].tobytes()
    assert y == Y[stored].tolist()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_webdataset_reads_ours(tmp_path, layout, kind):
    pack(KINDS[kind], Y, tmp_path / "s", layout=layout, shard_size=20, block=8)
    urls = sorted(map(str, (tmp_path / "s").glob("*.tar")))
    assert len(urls) == 3
    colours = {"gray": ["l8"], "rgb": ["rgb8"], "windows": []}[kind]
    x, y = [], []
    for one in webdataset.WebDataset(urls, shardshuffle=False).decode(*colours):
        if layout == "packed":
            x.extend(one["x.npy"])
            y.extend(one["y.npy"].tolist())
        else:
            x.append(one["npy" if kind == "windows" else "png"])
            y.append(one["cls"])
    check_same(x, y, kind)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_datasets_reads_ours(tmp_path, monkeypatch, layout, kind):
    from datasets import load_dataset

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pack(KINDS[kind], Y, tmp_path / "s", layout=layout, shard_size=20, block=8)
    urls = sorted(map(str, (tmp_path / "s").glob("*.tar")))
    found = load_dataset("webdataset", data_files={"train": urls}, split="train", cache_dir=str(tmp_path / "cache"))
    x, y = [], []
    for one in found:
        if layout == "packed":
            x.extend(np.array(one["x.npy"], KINDS[kind].dtype))
            y.extend(one["y.npy"])
        else:
            x.append(np.asarray(one["npy" if kind == "windows" else "png"], KINDS[kind].dtype))
            y.append(one["cls"])
    check_same(x, y, kind)


def files(folder: Path, kind: str) -> None:
    folder.mkdir(parents=True)
    for i in range(N):
        if kind == "windows":
            np.save(folder / f"k{i:02d}.npy", WINDOWS[i])
        else:
            Image.fromarray(KINDS[kind][i]).save(folder / f"k{i:02d}.png")
        (folder / f"k{i:02d}.cls").write_text(f"{Y[i]}\n")


@pytest.mark.parametrize("style", ["gnu", "oldgnu", "pax", "posix", "ustar", "v7"])
@pytest.mark.parametrize("kind", ["rgb", "windows"])
def test_tar_program_in_all_its_formats(tmp_path, style, kind):
    files(tmp_path / "src" / "some" / "folder", kind)
    command = ["tar", "--sort=name", f"--format={style}", "-cf", "a.tar", "-C", "src", "."]
    subprocess.run(command, cwd=tmp_path, check=True)
    shards = index_set([tmp_path / "a.tar"], decode_all=True)
    assert [(one["dropped"], one["bad"], one["whole"]) for one in shards.index["shards"]] == [({}, {}, True)]
    x, y = everything(shards)
    assert x.tobytes() == KINDS[kind].tobytes()
    assert y.tolist() == Y.tolist()


@pytest.mark.parametrize("style", ["gnu", "oldgnu", "pax"])
@pytest.mark.parametrize("name", ["d" * 150, "ü" * 90, "a b\nc", "e" * 99])
def test_tar_program_and_long_or_odd_names(tmp_path, style, name):
    files(tmp_path / "src" / name / name, "gray")
    subprocess.run(["tar", f"--format={style}", "-cf", "a.tar", "-C", "src", "."], cwd=tmp_path, check=True)
    shards = index_set([tmp_path / "a.tar"], decode_all=True)
    x, y = everything(shards)
    # Unsorted, so in the order of the folder: the members of a key need not stand side by side.
    rows = [int(np.flatnonzero((one == GRAY).all((1, 2)))[0]) for one in x]
    assert sorted(rows) == list(range(N))
    assert y.tolist() == Y[rows].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", ["cls", "none"])
def test_shards_of_webdatasets_writer(tmp_path, kind, labels):
    with webdataset.ShardWriter(str(tmp_path / "s-%04d.tar"), maxcount=20, verbose=0) as writer:
        for i in range(N):
            sample = {"__key__": f"part/{i:04d}", "npy" if kind == "windows" else "png": KINDS[kind][i]}
            writer.write(sample | ({"cls": int(Y[i])} if labels == "cls" else {}) | {"json": {"i": i}})
    shards = Shards.open(str(tmp_path / "s-{0000..0002}.tar"))
    assert shards.counts.tolist() == [20, 20, 10]
    x, y = everything(shards)
    assert x.tobytes() == KINDS[kind].tobytes()
    assert y.tolist() == (Y.tolist() if labels == "cls" else [-1] * N)


# The real data: `SAVAE_DATA=folder pytest tests/data/test_interoperability.py -m slow -s`.


def load(name: str) -> dict[str, np.ndarray]:
    with lzma.open(DATA / name) as file:
        return dict(np.load(io.BytesIO(file.read()), allow_pickle=False))


def mnist() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    d = load("mnist.npz.xz")
    for split in ("train", "test"):
        yield split, d[f"x_{split}"], d[f"y_{split}"]


def fashion() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    d = load("fashion_mnist.npz.xz")
    mask = np.unpackbits(d["mask"]).reshape(70000, 28, 28).astype(bool)
    x = np.zeros(mask.shape, np.uint8)
    x[mask] = d["res"]
    for row in range(1, 28):
        x[:, row] = np.where(mask[:, row], x[:, row] + x[:, row - 1], 0)
    yield "train", x[:60000], d["y_train"]
    yield "test", x[60000:], d["y_test"]


def omniglot() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    d = load("omniglot105.npz.xz")
    x = np.unpackbits(d["bits"], axis=2, count=105) * np.uint8(255)
    y, background = d["alphabet"][np.arange(32460) // 20], np.arange(32460) < 19280
    yield "background", x[background], y[background]
    yield "evaluation", x[~background], y[~background]


def caltech() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    d = load("caltech101_silhouettes.npz.xz")
    for split in ("train", "val", "test"):
        yield split, np.unpackbits(d[f"x_{split}"], axis=2, count=28) * np.uint8(255), d[f"y_{split}"]


def cifar() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    d = load("cifar10_subset.npz.xz")
    r, v = d["res"], np.zeros((3, 6000, 33, 33), np.int16)
    for i, j in np.ndindex(32, 32):
        a, b, c = v[:, :, i + 1, j], v[:, :, i, j + 1], v[:, :, i, j]
        p = np.clip(a + b - c, np.minimum(a, b), np.maximum(a, b)) + r[:, :, i, j]
        p[0] &= 255
        p[1:] = (p[1:] + p[0] & 255) - p[0]
        v[:, :, i + 1, j + 1] = p
    x = v[:, :, 1:, 1:]
    x = np.stack([x[0] + x[1], x[0], x[0] + x[2]], 3).astype(np.uint8)
    yield "train", x[:5000], d["y_train"]
    yield "test", x[5000:], d["y_test"]


SETS = {"mnist": mnist, "fashion": fashion, "omniglot": omniglot, "caltech": caltech, "cifar": cifar}


@with_data
@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SETS)
def test_real_images_come_back(tmp_path, name, layout):
    for split, x, y in SETS[name]():
        np.savez(tmp_path / "a.npz", x=x, y=y)
        out = tmp_path / split
        (made,) = pack_source(arrays(tmp_path / "a.npz"), out, Options(layout=layout), processes=2)
        shards, stored = Shards.open(out), permutation(len(x), 0, PACK)
        got_x, got_y = everything(shards)
        assert got_x.tobytes() == x[stored].tobytes()
        assert got_y.tolist() == y[stored].tolist()
        assert shards.index["classes"] == y.max() + 1
        print(f"{name} {split} {layout}: {made['samples']:,} of {made['stored']}, {made['classes']} classes")


@with_data
@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_recordings_come_back(tmp_path, layout):
    """CWRU: 38 recordings, the two at 48 kHz left as they are, in windows of 1,024 that do not overlap."""
    d = load("cwru_de.npz.xz")
    counts = d["hi"].astype(np.int16) * 256 + d["lo"]
    signals = [counts[a:b] * s for a, b, s in zip(d["offset"][:-1], d["offset"][1:], d["scale"])]
    wanted = set()
    for i, (signal, label, rate) in enumerate(zip(signals, d["label"], d["fs"])):
        if rate != 12000:
            continue
        folder = tmp_path / "source" / str(d["classes"][label]).replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{i}.npy", signal)
        whole = signal[: len(signal) // 1024 * 1024].reshape(-1, 1024).astype(np.float32)
        wanted |= {(folder.name, window.tobytes()) for window in whole}
    source = recordings(
        tmp_path / "source", Windows(1024, 1024, 0.0, 12000.0), splits=Splits({"validation": 0.15, "test": 0.2})
    )
    made = pack_source(source, tmp_path / "s", Options(layout=layout), processes=2)
    got, total = set(), 0
    for one in made:
        shards = Shards.open(one["folder"])
        x, y = everything(shards)
        names = shards.spec.class_names
        got |= {(names[label], window.tobytes()) for window, label in zip(x, y.tolist())}
        total += len(x)
        print(
            f"cwru {Path(one['folder']).name} {layout}: {one['samples']:,} of {one['stored']}, {one['classes']} classes"
        )
    assert got == wanted
    assert total == 36 * (60000 // 1024)
