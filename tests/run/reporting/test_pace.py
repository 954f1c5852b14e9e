"""How fast each rank is: which is slow, when that is told, and what is measured at all."""

from __future__ import annotations

import time

import pytest
import torch

from savae_dist.run.reporting.pace import COSTS, IN_A_ROW, ON_ITS_OWN, SLOWER, Pace, slowest
from savae_dist.training import own_time
from savae_dist.training.own_time import OwnTime, Waiting

CPU = torch.device("cpu")
HOSTS = ["n1", "n2", "n3"]


@pytest.mark.parametrize(
    ("seconds", "iteration", "slow"),
    [
        ([1.0, 1.0, 1.0], 3.0, None),
        ([1.0, 1.0, 1.3], 3.0, 2),
        ([1.3, 1.0, 1.0], 3.0, 0),
        ([1.0, 1.0, 1.0 * SLOWER], 3.0, None),  # not more than that
        ([1.0, 1.3, 1.3], 3.0, None),  # half of the others are as slow
        ([0.001, 0.001, 0.010], 3.0, None),  # ten times as long, and nobody would notice
        ([0.0, 0.0, COSTS], 1.0, 2),
        ([0.0, 0.0, 0.0], 0.0, None),
        ([1.0, 1.3], 3.0, 1),  # of two ranks each is the other's measure
        ([9.0], 9.0, None),  # nobody waits for it
    ],
)
def test_which_rank_is_slow(seconds: list[float], iteration: float, slow: int | None) -> None:
    assert slowest(seconds, iteration) == slow


def pace(hosts: list[str] = HOSTS) -> Pace:
    return Pace("vec", hosts, CPU, Waiting(iter(())), [])


def logs(here: Pace, *tables: list[list[float]]) -> list[dict[str, str]]:
    """The warnings of logs that stand ten iterations of a second apart, one for each table."""
    told = []
    for number, table in enumerate(tables, 1):
        here.logged(table, 10 * number, 10 * number, 10.0 * number)
        told.append(here.warnings)
    return told


EVEN = [[2.0, 0.1], [2.1, 0.1], [2.0, 0.1]]
SLOW = [[2.0, 0.1], [2.0, 0.1], [6.0, 0.1]]
OTHER = [[2.0, 0.1], [6.0, 0.1], [2.0, 0.1]]
STARVED = [[2.0, 5.0], [2.0, 0.1], [2.0, 0.1]]


def test_a_rank_is_named_once_it_was_slow_in_three_logs_in_a_row() -> None:
    told = logs(pace(), *[SLOW] * 5)
    assert [len(one) for one in told] == [0, 0, 1, 0, 0]
    assert IN_A_ROW == 3
    (line,) = told[2].values()
    assert line == (
        "vec step 30: rank 2 on n3 computes slowly, and all others wait for it: 0.6 s in each iteration, the others "
        "0.2 s, in 3 logs in a row; see what else runs on that machine, and whether it is hot or a slower model"
    )


@pytest.mark.parametrize("between", [EVEN, OTHER])
def test_what_does_not_last_is_not_told(between: list[list[float]]) -> None:
    assert logs(pace(), SLOW, SLOW, between, SLOW, SLOW) == [{}] * 5
    assert logs(pace(), *[EVEN] * 9) == [{}] * 9


def test_data_are_told_apart_from_computing() -> None:
    here = pace()
    *_, told = logs(here, *[STARVED] * 3)
    assert list(told) == ["rank 0 waits for its data"]
    assert "data.workers" in told["rank 0 waits for its data"]
    assert here.note == "rank 0 (n1) waits for its data"
    assert here.status == {
        "iteration_seconds": 1.0,
        "compute_seconds": {"least": 0.2, "most": 0.2},
        "data_seconds": {"least": 0.01, "most": 0.5, "slow_rank": 0, "host": "n1"},
    }


def test_curves() -> None:
    with_memory = [[2.0, 0.0, 4e9], [4.0, 1.0, 5e9]]
    assert pace(["a", "b"]).logged(with_memory, 10, 10, 10.0) == {
        "ranks/compute_seconds_least": 0.2,
        "ranks/compute_seconds_most": 0.4,
        "ranks/compute_seconds/0": 0.2,
        "ranks/compute_seconds/1": 0.4,
        "ranks/data_seconds_least": 0.0,
        "ranks/data_seconds_most": 0.1,
        "ranks/data_seconds/0": 0.0,
        "ranks/data_seconds/1": 0.1,
        "ranks/gpu_peak_bytes_least": 4e9,
        "ranks/gpu_peak_bytes_most": 5e9,
        "ranks/gpu_peak_bytes/0": 4e9,
        "ranks/gpu_peak_bytes/1": 5e9,
    }
    assert pace(["a"]).logged([[2.0, 1.0]], 10, 10, 10.0) == {
        "ranks/compute_seconds/0": 0.2,
        "ranks/data_seconds/0": 0.1,
    }
    many = ON_ITS_OWN + 1
    assert len(pace(["a"] * many).logged([[2.0, 0.0]] * many, 10, 10, 10.0)) == 4  # the least and the most alone


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes as the test says."""
    clock = [100.0]
    monkeypatch.setattr(own_time.time, "perf_counter", lambda: clock[0])
    return clock


def test_own_time_goes_from_begin_to_end(now: list[float]) -> None:
    here = OwnTime(CPU)
    for what, seconds in (("begin", 2.0), ("end", 50.0), ("begin", 30.0), ("begin", 1.0), ("end", 7.0), ("end", 7.0)):
        {"begin": here.begin, "end": here.end}[what]()
        now[0] += seconds
    assert here.drain() == 2.0 + 1.0  # what ranks do together counts neither, nor what came before a second `begin`
    assert here.drain() == 0.0


def test_waiting_counts_what_it_is_waited_for(now: list[float]) -> None:
    def slow() -> list[int]:
        now[0] += 3.0
        return [1]

    batches = Waiting(slow() for _ in range(3))
    next(batches)
    now[0] += 100.0  # the batch is trained on
    next(batches)
    assert batches.drain() == 6.0
    next(batches)
    assert batches.drain() == 3.0
    assert time.perf_counter() == now[0]


class Event:
    """One of a GPU that has come as far as `reached`."""

    reached, recorded = 0.0, 0.0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        Event.recorded += 1.0
        self.at = Event.recorded

    def query(self) -> bool:
        return self.at <= Event.reached

    def elapsed_time(self, other: Event) -> float:
        return 1000 * (other.at - self.at)


def test_a_gpu_is_never_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that it has not done yet count at a later log; nothing but the methods above is called."""
    monkeypatch.setattr(own_time.torch.cuda, "Event", Event)
    here = OwnTime(torch.device("cuda"))
    for _ in range(3):
        here.begin()
        here.begin()  # anew
        here.end()
    Event.reached = 6.0  # two of the three
    assert here.drain() == 2.0
    assert here.drain() == 0.0
    Event.reached = 9.0
    assert here.drain() == 1.0
    assert len(here.free) == 6  # they are used again
    here.begin()
    here.end()
    assert len(here.free) == 4
