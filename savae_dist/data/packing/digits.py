"""The embedded data set: handwritten digits, packed through the same path as any other, once per machine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from savae_dist.data.index.tables import INDEX
from savae_dist.data.order.permutation import PACK, permutation
from savae_dist.data.packing.pack import pack
from savae_dist.data.packing.sources import read_digits
from savae_dist.data.remote.cache import cache_folder
from savae_dist.files import remove_drafts
from savae_dist.locks import PathLock

VALIDATION = 297  # validation samples, of 1,797
SHARD_SIZE = 256  # several shards even of so few, so that the demo goes the whole way


def stratified(y: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """bool [n]: `count` samples with each class in its proportion, always the same ones."""
    shuffled = permutation(len(y), seed, PACK)
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    chosen = np.zeros(len(y), bool)
    chosen[by_class[np.arange(count) * len(y) // count]] = True  # evenly spaced through the classes
    return chosen


def pack_digits(out: str | os.PathLike[str], overwrite: bool = False) -> tuple[Path, Path]:
    """Write `out`/train (1,500 digits) and `out`/validation (297), and return both folders."""
    x, y, names = read_digits()
    held_out = stratified(y, VALIDATION)
    folders = Path(out) / "train", Path(out) / "validation"
    for folder, chosen in zip(folders, (~held_out, held_out), strict=True):
        pack(x[chosen], y[chosen], folder, shard_size=SHARD_SIZE, class_names=names, overwrite=overwrite)
    return folders


def demo_shards(cache_dir: str | os.PathLike[str] | None = None) -> tuple[Path, Path]:
    """Folders of training and validation digits in the cache, made on first use; processes may call it at once."""
    cache = Path(cache_dir) if cache_dir else cache_folder() / "demo"
    folders = cache / "train", cache / "validation"
    cache.mkdir(parents=True, exist_ok=True)
    with PathLock(cache / ".lock") as lock:
        if not all((folder / INDEX).exists() for folder in folders):
            if lock.held:
                remove_drafts(cache)  # left by a process that was killed while it made the digits
            pack_digits(cache, overwrite=True)
    return folders
