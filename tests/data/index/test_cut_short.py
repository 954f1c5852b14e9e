"""Files that are cut short or written while they are indexed or in use: one line that names them, and no signal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from savae_dist.data import Shards, pack
from savae_dist.data.formats import column, tar
from savae_dist.data.formats.column import PAGE, Column
from savae_dist.data.index import recordings, scan, tables
from savae_dist.data.index.tables import build_index
from savae_dist.errors import DataError

N = 40
X = np.random.default_rng(0).integers(0, 256, (N, 64, 64)).astype(np.uint8)


@pytest.fixture(params=["packed", "samples"])
def shard(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    pack(X, np.arange(N) % 3, tmp_path / "s", layout=request.param, block=8)
    return next((tmp_path / "s").glob("*.tar"))


def and_then(work: Callable[..., Any], change: Callable[[Path], object], path: Path) -> Callable[..., Any]:
    """The same function, after which the file is changed."""

    def changed(*arguments: Any) -> Any:
        result = work(*arguments)
        change(path)
        return result

    return changed


def cut(path: Path) -> None:
    os.truncate(path, 30_000)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("moment", ["open_tar", "gather"])
def test_a_shard_that_is_cut_short_while_it_is_indexed(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, processes: int
) -> None:
    size = shard.stat().st_size
    monkeypatch.setattr(scan, moment, and_then(vars(scan)[moment], cut, shard))
    with pytest.raises(DataError, match="was cut short while it was read") as caught:
        build_index([shard] * processes, tmp_path / "index", processes=processes)
    assert str(caught.value).startswith(f"shard {shard} ")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "index" / "index.json").exists()
    if processes == 1:
        assert f"(from {size:,} to 30,000 bytes)" in str(caught.value)


@pytest.mark.parametrize("change", [cut, lambda path: path.write_bytes(bytes(path.stat().st_size))])
def test_a_shard_that_is_written_once_it_was_scanned(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    monkeypatch.setattr(tables, "scan_shard", and_then(scan.scan_shard, change, shard))
    with pytest.raises(DataError, match=rf"shard {shard} was written while it was indexed; index it again"):
        build_index([shard], tmp_path / "index")


def test_a_shard_that_is_cut_short_while_its_recordings_are_looked_up(
    shard: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shards = Shards.open(shard.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(recordings, "Tar", and_then(tar.Tar, cut, shard))
    with pytest.raises(DataError, match=rf"shard {shard} was cut short while it was read"):
        recordings.recordings(shards)


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_a_column_is_the_same_in_memory_and_read_in_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(column, "IN_MEMORY", in_memory)
    values = np.random.default_rng(0).integers(0, 1000, 3 * PAGE + 7).astype(np.int32)
    np.save(tmp_path / "x.npy", values)
    read = Column(tmp_path / "x.npy", np.dtype(np.int32))
    assert len(read) == len(values)
    for places in (np.arange(len(values)), np.array([len(values) - 1, 0, 0, PAGE, PAGE - 1]), np.empty(0, np.int64)):
        assert np.array_equal(read.rows(places), values[places])


@pytest.mark.parametrize("change", [cut, lambda path: path.touch(), Path.unlink])
def test_labels_that_are_written_while_they_are_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    pack(np.zeros((10_000, 1, 1), np.uint8), np.arange(10_000) % 3, tmp_path / "s")
    kept = Shards.open(tmp_path / "s")
    monkeypatch.setattr(column, "IN_MEMORY", 0)
    shards = Shards.open(tmp_path / "s")
    assert (shards.all_labels() == kept.all_labels()).all()
    change(tmp_path / "s" / "labels.npy")
    with pytest.raises(DataError, match=r"s/labels.npy (was written while|cannot be read)"):
        shards.labels_of(0)
    assert len(kept.all_labels()) == 10_000  # in memory


@pytest.mark.parametrize("start", [0, 5, tar.WINDOW - 2, tar.WINDOW + 1])
def test_a_mark_is_found_wherever_the_windows_end(tmp_path: Path, start: int) -> None:
    data = bytearray(3 * tar.WINDOW + 3)
    for at in (tar.WINDOW - 3, 2 * tar.WINDOW + 1, len(data) - 5):
        data[at : at + 5] = b"ustar"
    (tmp_path / "x").write_bytes(data)
    with tar.Tar((tmp_path / "x").open("rb"), tmp_path / "x") as read:
        at, expected = start, start
        while expected >= 0:
            at, expected = read.find(b"ustar", at), data.find(b"ustar", expected)
            assert at == expected
            at, expected = (at + 1, expected + 1) if expected >= 0 else (at, expected)
        assert read[len(data) - 9 :] == data[-9:] == read[-9 : len(data) + 5]
