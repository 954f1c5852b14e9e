"""Shards that are written while they are read: nothing of it is ever used, and the run ends by naming the shard."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from savae_dist.data import Order, Reader, Request, Shards, pack
from savae_dist.data.index.report import index_set
from savae_dist.data.reading import gather
from savae_dist.data.reading.gather import most_open
from savae_dist.errors import DataError


@contextmanager
def few_descriptors(free: int) -> Iterator[int]:
    """The limit of descriptors, lowered so that so many are free."""
    before, used = resource.getrlimit(resource.RLIMIT_NOFILE), set(map(int, os.listdir("/proc/self/fd")))
    limit = next(n for n in count(free) if n - sum(one < n for one in used) == free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


N, BATCH = 96, 16
LAYOUTS = ["kept", "packed", "samples"]  # kept: a packed set that is small enough to stay in memory


def made(folder: Path, layout: str, seed: int = 0) -> Shards:
    x = np.random.default_rng(seed).integers(1, 256, (N, 40, 40)).astype(np.uint8)
    pack(x, np.arange(N) % 3, folder, layout="samples" if layout == "samples" else "packed", shard_size=24, block=8)
    return Shards.open(folder)


def reading(shards: Shards, layout: str, monkeypatch: pytest.MonkeyPatch) -> Reader:
    if layout == "packed":
        monkeypatch.setattr(gather, "MAX_KEPT", 0)
    return Reader(shards, Order(shards.counts, 0, 4, 2), N)


def batches(reader: Reader, first: int, last: int) -> list[np.ndarray]:
    return [reader[Request(i * BATCH, BATCH, range(BATCH))].x.numpy() for i in range(first, last)]


def zeros(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(1024)
        file.write(bytes(path.stat().st_size - 1024))


def cut(path: Path) -> None:
    os.truncate(path, 1000)


def copied_over(path: Path) -> None:
    """As `cp` does it: emptied, then filled with a set of the same form."""
    path.write_bytes((path.parent.parent / "other" / path.name).read_bytes())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("write", [zeros, cut, copied_over])
def test_a_shard_that_is_overwritten(tmp_path, monkeypatch, layout, write):
    shards = made(tmp_path / "s", layout)
    made(tmp_path / "other", layout, seed=1)
    intact = batches(reading(shards, layout, monkeypatch), 0, 18)
    reader = reading(shards, layout, monkeypatch)
    seen = batches(reader, 0, 8)  # more than an epoch: everything was read and found whole
    time.sleep(0.05)  # the clock of files lags behind by some milliseconds
    write(shards.path(2))
    rest = (seen.extend(batches(reader, i, i + 1)) for i in range(8, 18))
    with pytest.raises(DataError, match=r"shards-000002.tar was overwritten while it was read") as caught:
        all(one is None for one in rest)
    assert len(seen) < 14
    assert all(np.array_equal(a, b) for a, b in zip(seen, intact))
    assert caught.value.code == 65
    assert len(str(caught.value).splitlines()) == 1
    if write is cut:
        assert "to 1,000 bytes" in str(caught.value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_shard_that_is_only_touched_or_replaced_by_its_like(tmp_path, monkeypatch, layout):
    shards = made(tmp_path / "s", layout)
    intact = batches(reading(shards, layout, monkeypatch), 0, 18)
    reader = reading(shards, layout, monkeypatch)
    seen = batches(reader, 0, 8)
    shards.path(0).touch()
    shards.path(1).write_bytes(shards.path(1).read_bytes())
    shutil.copy(shards.path(2), tmp_path / "copy")
    (tmp_path / "copy").replace(shards.path(2))
    assert all(np.array_equal(a, b) for a, b in zip(seen + batches(reader, 8, 18), intact, strict=True))


def test_shards_that_are_packed_and_indexed_anew(tmp_path, monkeypatch):
    """Their new tables fit the new samples; the labels and the plan of the run are of the old ones."""
    shards = made(tmp_path / "s", "packed")
    reader = reading(shards, "packed", monkeypatch)
    other = made(tmp_path / "other", "packed", seed=1)
    for number in range(4):
        shards.path(number).write_bytes(other.path(number).read_bytes())
    index_set([str(tmp_path / "s")])
    with pytest.raises(DataError, match=r"idx.npy is not what its index was made with; .* start again"):
        batches(reader, 0, 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_shards_than_descriptors(tmp_path, monkeypatch, layout):
    x = np.random.default_rng(0).integers(0, 256, (60, 4, 4)).astype(np.uint8)
    pack(x, np.arange(60) % 3, tmp_path / "s", layout="samples" if layout == "samples" else "packed", shard_size=1)
    others = len(os.listdir("/proc/self/fd"))  # a quarter of the limit is for shards, however many others have
    with few_descriptors(30 + others // 2) as limit:
        assert most_open() == max(4, limit // 4)
        shards = Shards.open(tmp_path / "s")
        reader = reading(shards, layout, monkeypatch)
        ids = [reader[Request(start, 20, range(20))].id for start in range(0, 120, 20)]
    assert sorted(np.concatenate(ids).tolist()) == sorted([*range(60)] * 2)
    assert len(reader.fetcher._files) <= reader.fetcher._most


def test_a_limit_that_others_have_used_up_is_not_the_shards_fault(tmp_path, monkeypatch):
    shards = made(tmp_path / "s", "packed")
    with few_descriptors(0), pytest.raises(DataError, match=r"Too many open files.*\); raise the limit of open files"):
        shards.samples(0)
    reader = reading(shards, "packed", monkeypatch)
    with few_descriptors(0), pytest.raises(DataError, match=r"Too many open files.*\); raise the limit of open files"):
        batches(reader, 0, 1)
