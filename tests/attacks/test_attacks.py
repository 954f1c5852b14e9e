"""The short form of each attack; `python tests/attacks` has the long ones."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from attacks import file_kills, power_cuts, random_kills, signals, soak
from helpers.file_operations import Operation
from helpers.power_cut import Disk

pytestmark = [pytest.mark.faults, pytest.mark.slow]


def test_kills_at_file_operations(tmp_path: Path) -> None:
    assert file_kills.attack(tmp_path, seed=1, count=10).failures == []


def test_power_cuts(tmp_path: Path) -> None:
    assert power_cuts.attack(tmp_path, seed=1, count=6).failures == []


def test_signals_at_named_points(tmp_path: Path) -> None:
    assert signals.attack(tmp_path, seed=1, count=4).failures == []


def test_random_kills_of_two_ranks_and_what_they_hold(tmp_path: Path) -> None:
    """Two kills, under the eyes of the soak."""
    report = soak.soaked(tmp_path, random_kills.RUN, seed=1, every=(5.0, 12.0), kills=2, short=True)
    assert report.failures == []
    assert report.numbers["kills"] == 2


def test_growth_is_seen() -> None:
    """The second half of the time counts, and of it what is old enough."""
    seconds = np.arange(200.0)
    leaking = soak.Held([(t, 0, t, 30 + t // 10, 500, 900) for t in seconds])
    still = soak.Held([(t, rank, t, 30, 500 + 200 * (t < 100), 900) for t in seconds for rank in (0, 1)])
    assert soak.flat(leaking.growth()) == ["descriptors"]
    assert soak.flat(still.growth()) == []


def left(operations: list[Operation], folder: Path, journal: bool) -> set[frozenset[tuple[str, bytes]]]:
    """The states that cuts after these operations leave, as (name, content) of their files."""
    found = set()
    for seed in range(300):
        disk = Disk(journal)
        for operation in operations:
            disk.apply(operation)
        disk.cut(random.Random(seed), folder)
        found.add(frozenset((path.name, path.read_bytes()) for path in folder.iterdir()))
        shutil.rmtree(folder)
    return found


@pytest.mark.parametrize("journal", [False, True])
def test_what_a_power_cut_leaves(journal: bool, tmp_path: Path) -> None:
    """A rename may come before the bytes that were not flushed; after both flushes all is certain."""
    old = Operation("found", "a", file=0, data=b"old")
    written = [old, Operation("create", "b", file=1), Operation("write", "b", file=1, data=b"new")]
    renamed, flushed = Operation("rename", "b", "a"), Operation("fsync", "b", file=1, data=b"new")
    careless = left([*written, renamed], tmp_path / "disk", journal)
    assert {frozenset({("a", b"old")}), frozenset({("a", b"")}), frozenset({("a", b"new")})} <= careless
    careful = left([*written, flushed, renamed], tmp_path / "disk", journal)
    assert {content for state in careful for name, content in state if name == "a"} == {b"old", b"new"}
    at_last = left([*written, flushed, renamed, Operation("fsync", "")], tmp_path / "disk", journal)
    assert at_last == {frozenset({("a", b"new")})}
