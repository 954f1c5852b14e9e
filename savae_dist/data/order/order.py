"""Which sample stands at a position: a pure function of (seed, epoch, position), so there is no state to save."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from savae_dist.data.order.permutation import REDRAW, SHARDS, WINDOW, permutation, raw_bits
from savae_dist.errors import ConfigError


class Request(NamedTuple):
    """One global batch: positions start .. start + size - 1, of which the reader is to fetch `slots`."""

    start: int
    size: int
    slots: range | np.ndarray


class _Epoch:
    """The plan of one epoch: its shards one after the other, cut into lanes and those into windows.

    offset: the lane of its first draw, so that a position's lane is position mod lanes in all epochs.
    """

    def __init__(self, order: Order, epoch: int) -> None:
        self.shards = permutation(len(order.counts), order.seed, SHARDS, epoch)
        counts = order.counts[self.shards]
        self.starts = np.cumsum(counts) - counts
        self.offset = epoch * order.size % order.lanes
        first = (np.arange(order.lanes) - self.offset) % order.lanes  # the first draw of each lane
        lane_sizes = (order.size - first + order.lanes - 1) // order.lanes
        self.lane_starts = np.cumsum(lane_sizes) - lane_sizes
        cuts = []
        for lane_start, lane_size in zip(self.lane_starts, lane_sizes, strict=True):
            inside = (self.starts > lane_start) & (self.starts < lane_start + lane_size) & (counts > 0)
            cuts += [np.r_[lane_start, self.starts[inside]][:: order.window]] if lane_size else []
        self.bounds = np.r_[np.concatenate(cuts), order.size]
        # The permutations of the windows in use, views of `shuffled`, and where each starts there (-1: not there).
        self.resident: dict[int, np.ndarray] = {}
        self.base = np.full(len(self.bounds) - 1, -1)
        self.shuffled = np.empty(0, np.uint32)


class Order:
    """The endless shuffled order of the samples of several shards.

    In each epoch the shards are permuted, their samples cut into `lanes` ranges of equal size (to within one sample)
    and shuffled inside windows of `window` shards. A position's lane is position mod lanes, in all epochs: where the
    number of ranks divides the lanes, a rank reads `lanes / ranks` of them and so its part of the shards.

    counts: int64 [shards], samples in each.
    """

    def __init__(self, counts: ArrayLike, seed: int, lanes: int, window: int) -> None:
        self.counts = np.asarray(counts, np.int64)
        self.size = int(self.counts.sum())
        for name, value, least in (("samples", self.size, 1), ("data.lanes", lanes, 1), ("seed", seed, 0)):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, not {value}")
        if window < 1:
            raise ConfigError(f"data.shuffle_window must be at least 1 shard, not {window}")
        self.seed, self.lanes, self.window = seed, lanes, window
        self._epochs: dict[int, _Epoch] = {}
        # After so many positions every lane has come to the end of its window.
        self.reach = min(self.size, lanes * window * int(self.counts.max()))

    @staticmethod
    def sequential(counts: ArrayLike) -> Sequential:
        return Sequential(counts)

    def locate(self, positions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """int64 [n] positions, from 0 without end (epoch = position // size), to shards and rows, int64 [n] each."""
        positions = np.asarray(positions, np.int64)
        epochs, inside = np.divmod(positions, self.size)
        if len(epochs) and (epochs == epochs[0]).all():
            return self._locate(int(epochs[0]), inside)
        shards, rows = np.empty_like(positions), np.empty_like(positions)
        for epoch in sorted(set(epochs.tolist())):
            here = epochs == epoch
            shards[here], rows[here] = self._locate(epoch, inside[here])
        return shards, rows

    def window_of(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards and rows of every sample of the window that `position` is drawn from, in no useful order."""
        epoch, inside = divmod(int(position), self.size)
        plan = self._epoch(epoch)
        window = np.searchsorted(plan.bounds, self._flat(plan, np.array([inside]))[0], side="right") - 1
        return self._unroll(plan, np.arange(plan.bounds[window], plan.bounds[window + 1]))

    def shards_between(self, first: int, last: int, step: int = 1) -> list[int]:
        """The shards of the windows that positions first, first + step, ... < last draw from, by their first need.

        step: the ranks, each of which needs the shards of its lanes only; of all lanes where they do not divide these.
        """
        windows: list[tuple[int, list[int]]] = []
        for epoch in range(first // self.size, -(-last // self.size)):
            plan, origin = self._epoch(epoch), epoch * self.size
            begin, end = max(first - origin, 0), min(last - origin, self.size)
            for draw in range(self.lanes):  # the first of a lane
                # The lane's elements from `low` to `high`, and whether any of its positions is one of ours.
                low, high = max(-(-(begin - draw) // self.lanes), 0), -(-(end - draw) // self.lanes)
                if low >= high or (origin + draw - first) % math.gcd(step, self.lanes):
                    continue
                start = plan.lane_starts[(draw + plan.offset) % self.lanes]
                for window in _holding(plan.bounds, start + low, start + high).tolist():
                    a, b = plan.bounds[window : window + 2]
                    need = origin + max(low, int(a - start)) * self.lanes + draw
                    shards = plan.shards[_holding(plan.starts, a, b)]
                    windows.append((need, shards[self.counts[shards] > 0].tolist()))
        return list(dict.fromkeys(shard for _, shards in sorted(windows) for shard in shards))

    def redraw(self, position: int, attempt: int, count: int) -> int:
        """Which of `count` candidates takes the place of a bad sample at `position`."""
        return int(raw_bits(1, self.seed, REDRAW, position, attempt)[0] % np.uint64(count))

    def _locate(self, epoch: int, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        plan = self._epoch(epoch)
        flat = self._flat(plan, inside)
        windows = np.searchsorted(plan.bounds, flat, side="right") - 1
        if (plan.base[windows] < 0).any():
            self._shuffle(plan, epoch, set(windows.tolist()))
        start = plan.bounds[windows]
        return self._unroll(plan, start + plan.shuffled[plan.base[windows] + flat - start])

    def _flat(self, plan: _Epoch, inside: np.ndarray) -> np.ndarray:
        """Draws of an epoch to places in its row of shards, before the shuffling inside windows."""
        lane = (inside + plan.offset) % self.lanes
        return plan.lane_starts[lane] + inside // self.lanes

    def _shuffle(self, plan: _Epoch, epoch: int, windows: set[int]) -> None:
        """Make these windows resident, and let go of the longest unused beyond one per lane."""
        for window in sorted(windows):
            known = plan.resident.pop(window, None)
            size = int(plan.bounds[window + 1] - plan.bounds[window])
            if known is None:
                known = permutation(size, self.seed, WINDOW, epoch, window).astype(np.uint32)
            plan.resident[window] = known
        while len(plan.resident) > max(self.lanes, len(windows)):
            del plan.resident[next(iter(plan.resident))]
        ends = np.cumsum([len(order) for order in plan.resident.values()])
        plan.shuffled = np.concatenate(list(plan.resident.values()))
        plan.base[:] = -1
        for window, end in zip(list(plan.resident), ends.tolist(), strict=True):
            plan.base[window] = end - len(plan.resident[window])
            plan.resident[window] = plan.shuffled[plan.base[window] : end]

    @staticmethod
    def _unroll(plan: _Epoch, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shard = np.searchsorted(plan.starts, flat, side="right") - 1
        return plan.shards[shard], flat - plan.starts[shard]

    def _epoch(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            if len(self._epochs) > 1:  # keep two epochs: a batch may cross the boundary
                del self._epochs[max(self._epochs, key=lambda known: abs(known - epoch))]
            self._epochs[epoch] = _Epoch(self, epoch)
        return self._epochs[epoch]


def _holding(starts: np.ndarray, first: int, last: int) -> np.ndarray:
    """Which of the ranges that begin at `starts` hold the numbers first .. last - 1."""
    return np.arange(np.searchsorted(starts, first, side="right") - 1, np.searchsorted(starts, last - 1, side="right"))


class Sequential:
    """The stored order, over and over: for evaluation, where a bad sample is dropped and counted."""

    def __init__(self, counts: ArrayLike) -> None:
        self.counts = np.asarray(counts, np.int64)
        self.size = int(self.counts.sum())
        self._starts = np.cumsum(self.counts) - self.counts
        self.reach = min(self.size, 2 * int(self.counts.max()))  # this shard and the next

    def shards_between(self, first: int, last: int, step: int = 1) -> list[int]:
        """As `Order.shards_between`, but to the end of the set and no further: there an evaluation ends.

        A shard is a window, and all ranks read all of them.
        """
        origin = first - first % self.size
        shards = _holding(self._starts, first - origin, min(last - origin, self.size))
        return [shard for shard in shards.tolist() if self.counts[shard]]

    def locate(self, positions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        flat = np.asarray(positions, np.int64) % self.size
        # side="right" takes the last of several shards that start at one place: all others are empty.
        shard = np.searchsorted(self._starts, flat, side="right") - 1
        return shard, flat - self._starts[shard]


def rows_of_members(
    shards: np.ndarray, members: np.ndarray, rows_of: Callable[[int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The same shards, and the rows of the samples that are the `members`-th of their shard's own ones.

    rows_of: the rows of a shard that count, in their order.
    """
    rows = np.empty_like(members)
    for shard in np.unique(shards).tolist():
        here = shards == shard
        rows[here] = rows_of(shard)[members[here]]
    return shards, rows


def evaluation_requests(size: int, batch_size: int, rank: int = 0, ranks: int = 1) -> Iterator[Request]:
    """Every sample exactly once over all ranks, without wrapping; a rank with no slot in the last batch skips it."""
    for start in range(0, size, batch_size):
        here = min(batch_size, size - start)
        if rank < here:
            yield Request(start, here, range(rank, here, ranks))
