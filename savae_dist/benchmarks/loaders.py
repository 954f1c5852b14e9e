"""Endless batches of a folder of shards by three libraries.

This package shuffles. The others read in stored order and without formatting, which is their fastest; of packed shards
they give whole blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from savae_dist.config.schema import DataConfig
from savae_dist.data import Order, Reader, Request, Shards, loader, pack
from savae_dist.errors import ConfigError

Batches = Iterator[tuple[Tensor, Tensor]]  # x as stored, `[batch, ...]`, and y, `[batch]`

LANES = 8  # the number that `data.lanes=auto` gives one process
SHARDS = 4
WINDOW = 1024


def sets(scratch: Path, samples: int, batch: int) -> Iterator[tuple[str, Path]]:
    """Title and folder of 28x28 digits and of windows of noise, in both layouts; a block holds a batch."""
    check_samples(samples, batch)
    for kind, make in (("images", digits), ("windows", noise)):
        x, y = make(samples)
        for layout in ("samples", "packed"):
            folder = scratch / f"{kind}-{layout}"
            pack(x, y, folder, layout=layout, shard_size=samples // SHARDS, block=batch)
            yield f"{kind}, {layout}", folder


def check_samples(samples: int, batch: int) -> None:
    """ConfigError unless each shard holds whole batches."""
    if samples < 1 or batch < 1 or samples % (SHARDS * batch):
        raise ConfigError(f"--samples={samples} must be a multiple of {SHARDS} batches of --batch={batch}")


def digits(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """The digits of scikit-learn, enlarged to uint8 [samples, 28, 28] and repeated: PNGs of the usual size."""
    import cv2
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    small = (x.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    large = np.stack([cv2.resize(image, (28, 28), interpolation=cv2.INTER_CUBIC) for image in small])
    rows = np.arange(samples) % len(y)
    return large[rows], y[rows]


def noise(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 [samples, 1024]."""
    return np.random.default_rng(0).normal(size=(samples, WINDOW)).astype(np.float32), np.arange(samples) % 10


def ours(folder: Path, size: int, workers: int) -> Batches:
    return read(Shards.open(folder), size, workers)


def read(shards: Shards, size: int, workers: int) -> Batches:
    """Batches by this package."""
    reader = Reader(shards, Order(shards.counts, 0, LANES, DataConfig.shuffle_window), bad_budget=0)
    requests = (Request(start, size, range(size)) for start in count(0, size))
    return ((raw.x, raw.y) for raw in loader(reader, requests, workers, pin=False))


def members(folder: Path) -> tuple[list[str], str, str, bool]:
    """The tars, the extensions of values and labels, and whether they hold blocks."""
    shards = Shards.open(folder)
    single = "png" if shards.spec.kind == "image" else "npy"
    names = ("x.npy", "y.npy") if shards.packed else (single, "cls")
    return [str(path) for path in sorted(folder.glob("*.tar"))], *names, shards.packed


def webdataset(folder: Path, size: int, workers: int) -> Batches:
    """The library's loader as its documentation shows it: decode, to_tuple, batched, WebLoader."""
    import webdataset as wds

    urls, x, y, packed = members(folder)
    gray = ["l8"] if x == "png" else []
    samples = wds.WebDataset(urls, shardshuffle=False).repeat().decode(*gray).to_tuple(x, y)
    batches = samples if packed else samples.batched(size)
    for values, labels in wds.WebLoader(batches, batch_size=None, num_workers=workers):
        yield torch.as_tensor(values), torch.as_tensor(labels)


def datasets(folder: Path, size: int, workers: int) -> Batches:
    """`load_dataset` with streaming, through torch's DataLoader."""
    from datasets import load_dataset

    urls, x, y, packed = members(folder)
    cache = str(folder.parent / "cache")
    stream = load_dataset("webdataset", data_files={"train": urls}, split="train", streaming=True, cache_dir=cache)

    dtype = np.dtype(Shards.open(folder).stored_dtype)

    def collate(samples: Any) -> tuple[Tensor, Tensor]:
        # PIL images, lists of floats, or lists of the rows of a block.
        values, labels = (samples[x], samples[y]) if packed else zip(*((one[x], one[y]) for one in samples))
        return torch.from_numpy(np.stack([np.asarray(one, dtype) for one in values])), torch.tensor(labels)

    grouped = None if packed else size
    yield from DataLoader(stream.repeat(None), batch_size=grouped, collate_fn=collate, num_workers=workers)


LOADERS: dict[str, Callable[[Path, int, int], Batches]] = {
    "savae_dist": ours,
    "webdataset": webdataset,
    "datasets": datasets,
}
