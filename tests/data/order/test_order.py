from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from savae_dist.data.order.order import Order, Sequential, evaluation_requests
from savae_dist.data.order.permutation import SHARDS, WINDOW, permutation
from savae_dist.errors import ConfigError

# Samples per shard: one sample, odd sizes, an empty shard, more lanes than samples, shards smaller than a lane.
COUNTS = [[1], [7], [3, 1, 3], [97], [40, 0, 57], [1001], [100] * 10 + [1], [250, 250, 250, 251]]
PINNED = [3, 2, 1, 6, 0, 7, 4, 5]


def reference(counts: list[int], seed: int, lanes: int, window: int, epoch: int) -> list[tuple[int, int]]:
    """One epoch by plain loops, as the design words it."""
    flat = [(int(s), row) for s in permutation(len(counts), seed, SHARDS, epoch) for row in range(counts[s])]
    lists, number, start = [], 0, 0
    positions = range(epoch * len(flat), (epoch + 1) * len(flat))
    for lane in range(lanes):
        size = sum(position % lanes == lane for position in positions)
        mine, start = flat[start : start + size], start + size
        drawn = []
        while mine:
            of_window = list(dict.fromkeys(shard for shard, _ in mine))[:window]
            size = sum(shard in of_window for shard, _ in mine)
            drawn += [mine[i] for i in permutation(size, seed, WINDOW, epoch, number)]
            mine, number = mine[size:], number + 1
        lists.append(drawn)
    iterators = [iter(drawn) for drawn in lists]
    return [next(iterators[position % lanes]) for position in positions]


def located(order: Order | Sequential, positions: np.ndarray | range) -> list[tuple[int, int]]:
    shards, rows = order.locate(np.asarray(positions))
    return list(zip(shards.tolist(), rows.tolist(), strict=True))


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize(("lanes", "window"), [(1, 1), (8, 1), (8, 3), (4, 100)])
def test_matches_the_definition_in_plain_loops(counts, lanes, window):
    order = Order(counts, 5, lanes, window)
    n = sum(counts)
    for epoch in (0, 1, 7):
        got = located(order, range(epoch * n, (epoch + 1) * n))
        assert got == reference(counts, 5, lanes, window, epoch)


@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("lanes", [1, 8])
def test_each_sample_once_per_epoch(counts, lanes):
    order = Order(counts, 0, lanes, 2)
    everything = {(shard, row) for shard, count in enumerate(counts) for row in range(count)}
    for epoch in range(3):
        seen = located(order, range(epoch * order.size, (epoch + 1) * order.size))
        assert len(seen) == len(everything)
        assert set(seen) == everything


@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_random_access_equals_sequential(counts):
    rng = np.random.default_rng(0)
    ends = 4 * sum(counts) + 3
    whole = located(Order(counts, 1, 8, 2), range(ends))
    jumping = Order(counts, 1, 8, 2)
    for _ in range(20):  # jumps back and forth over epochs and windows, also within one call
        positions = rng.integers(0, ends, 50)
        assert located(jumping, positions) == [whole[i] for i in positions]
    assert located(Order(counts, 1, 8, 2), range(ends - 2, ends)) == whole[-2:]


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_rank_reads_its_lanes_part_of_the_shards_in_every_epoch(ranks):
    counts, lanes, batch = [10] * 64 + [3], 8, 20  # 643 samples: no multiple of the lanes
    order = Order(counts, 1, lanes, 2)
    for epoch in range(3):
        positions = np.arange(epoch * order.size, (epoch + 1) * order.size)
        rank = positions % batch % ranks  # batches start at multiples of their size
        parts = [set(order.locate(positions[rank == r])[0].tolist()) for r in range(ranks)]
        assert all(len(part) <= len(counts) / ranks + lanes for part in parts)  # a lane may begin and end in a shard


@pytest.mark.parametrize(("n", "lanes"), [(97, 8), (1001, 4), (5, 8), (64, 8)])
def test_lanes_are_even_ranges_of_the_epoch(n, lanes):
    order = Order([n], 3, lanes, 1)
    rows = order.locate(np.arange(n))[1]
    sizes = [len(rows[lane::lanes]) for lane in range(lanes)]
    assert sizes == [n // lanes + (lane < n % lanes) for lane in range(lanes)]
    ranges = [sorted(rows[lane::lanes].tolist()) for lane in range(lanes)]
    assert list(chain(*ranges)) == list(range(n))


def test_a_lane_finishes_a_window_of_shards_before_the_next():
    shards, _ = Order([10] * 12, 0, 2, 3).locate(np.arange(120))
    for lane in (0, 1):
        windows = shards[lane::2].reshape(2, 30)  # each lane has 6 whole shards: 2 windows of 3
        assert [len(set(window)) for window in windows.tolist()] == [3, 3]
        assert not set(windows[0]) & set(windows[1])


def test_epochs_and_seeds_differ():
    order = Order([50, 50], 0, 4, 2)
    first, second = located(order, range(100)), located(order, range(100, 200))
    assert first != second
    assert first != located(Order([50, 50], 1, 4, 2), range(100))
    assert first == located(Order([50, 50], 0, 4, 2), range(100))


def test_shuffle_is_uniform():
    order = Order([4, 4], 0, 1, 2)
    shards, rows = order.locate(np.arange(8 * 2000).reshape(2000, 8)[:, 0])  # the first draw of 2,000 epochs
    counts = np.bincount(shards * 4 + rows, minlength=8)
    assert (abs(counts - 250) < 5 * np.sqrt(250 * 7 / 8)).all()


def test_permutation_is_pinned():
    # A run that is resumed with another numpy must see the same data: these numbers may never change.
    assert permutation(8, 0, SHARDS).tolist() == PINNED
    assert permutation(8, 0, WINDOW).tolist() != PINNED
    assert sorted(permutation(1000, 2**40, WINDOW, 3, 4).tolist()) == list(range(1000))


def test_window_of_and_redraw():
    order = Order([10] * 6, 2, 2, 2)
    for position in (0, 31, 60, 119):
        shards, rows = order.window_of(position)
        members = set(zip(shards.tolist(), rows.tolist(), strict=True))
        epoch, inside = divmod(position, 60)
        lane = located(order, range(epoch * 60 + inside % 2, (epoch + 1) * 60, 2))  # 60 is a multiple of the lanes
        start = 20 if inside // 2 >= 20 else 0  # 30 of a lane: 2 shards of 10, then the third
        assert members == set(lane[start : start + 20])
    draws = [order.redraw(4, attempt, 20) for attempt in range(200)]
    assert draws == [Order([60], 2, 8, 1).redraw(4, attempt, 20) for attempt in range(200)]
    assert set(draws) == set(range(20))
    assert draws != [order.redraw(5, attempt, 20) for attempt in range(200)]


def test_memory_stays_within_two_windows_per_lane():
    order = Order([100] * 64, 0, 4, 2)
    for start in range(0, 2 * order.size, 16):
        order.locate(np.arange(start, start + 16))
    assert len(order._epochs) <= 2
    assert all(len(plan.resident) <= 8 for plan in order._epochs.values())


def test_sequential_is_the_stored_order_and_wraps():
    assert located(Sequential([2, 0, 1]), range(5)) == [(0, 0), (0, 1), (2, 0), (0, 0), (0, 1)]
    assert located(Order.sequential([0, 3]), [2, 0]) == [(1, 2), (1, 0)]


@pytest.mark.parametrize("size", [1, 7, 97, 1001])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 32, 2000])
def test_evaluation_takes_every_sample_once(size, ranks, batch_size):
    seen = [
        request.start + slot
        for rank in range(ranks)
        for request in evaluation_requests(size, batch_size, rank, ranks)
        for slot in request.slots
    ]
    assert sorted(seen) == list(range(size))
    for request in evaluation_requests(size, batch_size, ranks - 1, ranks):
        assert len(request.slots) > 0
        assert request.size == min(batch_size, size - request.start)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [(([5], -1, 8, 1), "seed"), (([5], 0, 0, 1), "data.lanes"), (([5], 0, 8, 0), "data.shuffle_window")],
)
def test_impossible_values_are_named(arguments, names):
    with pytest.raises(ConfigError, match=names) as caught:
        Order(*arguments)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("counts", [[5], [7, 0, 3, 12, 1, 9, 4, 4, 0, 6, 11], [2, 0, 1], [10] * 24])
@pytest.mark.parametrize(("lanes", "window"), [(1, 1), (4, 1), (8, 2), (4, 16)])
@pytest.mark.parametrize("step", [1, 2, 4])
def test_shards_ahead_are_those_of_the_windows_that_are_drawn_from(counts, lanes, window, step):
    order, size = Order(counts, 5, lanes, window), sum(counts)
    for first, last in ((0, 1), (0, size), (3, 3 + size // 2), (size - 1, size + 7), (2 * size + 1, 3 * size), (4, 4)):
        drawn = [order.window_of(position)[0].tolist() for position in range(first, last, step)]
        expected = list(dict.fromkeys(shard for shards in drawn for shard in shards))
        found = order.shards_between(first, last, step)
        assert (set(found) >= set(expected)) if lanes % step else (found == expected)
        assert len(set(found)) == len(found)


@pytest.mark.parametrize("counts", [[5], [7, 0, 3, 12, 1, 9], [0, 2, 0, 1, 0]])
def test_shards_ahead_in_the_stored_order(counts):
    order, size = Order.sequential(counts), sum(counts)
    for first, last in ((0, 1), (0, size), (3, 3 + size // 2), (size - 1, size + 2), (1, 3 * size), (size, size + 1)):
        expected = list(
            dict.fromkeys(order.locate(np.arange(first, min(last, first - first % size + size)))[0].tolist())
        )
        assert order.shards_between(first, last) == expected
    assert order.reach <= size


def test_every_lane_leaves_its_window_within_reach():
    order = Order([10, 12, 8, 11, 9, 10] * 6, 1, 4, 3)
    assert order.reach < order.size
    for first in range(0, 2 * order.size, 7):
        now, then = (set(order.shards_between(p, p + order.lanes)) for p in (first, first + order.reach))
        assert now != then
        assert now < set(order.shards_between(first, first + order.reach + order.lanes))
