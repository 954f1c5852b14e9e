"""Several streams of samples in fixed proportions: of sets by weight, of labelled samples, of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest

import numpy as np
from numpy.typing import ArrayLike

from savae_dist.data.index.labels import UNLABELLED
from savae_dist.data.index.shards import Shards
from savae_dist.data.order.order import Order, rows_of_members
from savae_dist.data.order.permutation import MIX, permutation
from savae_dist.errors import ConfigError

FINEST = 1 << 24  # largest denominator of a share: positions up to 2^39 keep within int64


class Group:
    """A part of the samples: those of each shard whose label is in `labels`, `counts` (int64 [shards]) of them."""

    def __init__(self, name: str, counts: ArrayLike, labels: Sequence[int] = ()) -> None:
        self.name, self.counts, self.labels = name, np.asarray(counts, np.int64), np.asarray(labels, np.int64)
        self.size = int(self.counts.sum())


class Stream:
    """The endless order of a group: `order` says which of a shard's members, and a member is a row of the shard.

    labels_of: shard -> labels of its samples, such as `Shards.labels_of`.
    """

    def __init__(self, group: Group, order: Order, labels_of: Callable[[int], np.ndarray]) -> None:
        self.group, self.order, self.labels_of = group, order, labels_of
        self.counts, self.size, self.reach = group.counts, group.size, order.reach
        self.lanes = order.lanes
        self._rows: dict[int, np.ndarray] = {}

    def locate(self, positions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """int64 [n] positions, from 0 without end (epoch = position // size), to shards and rows, int64 [n] each."""
        return rows_of_members(*self.order.locate(positions), self._of)

    def window_of(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards and rows of the group's samples in the window that `position` is drawn from, in no useful order."""
        return rows_of_members(*self.order.window_of(position), self._of)

    def redraw(self, position: int, attempt: int, count: int) -> int:
        """Which of `count` candidates takes the place of a bad sample at `position`."""
        return self.order.redraw(position, attempt, count)

    def shards_between(self, first: int, last: int, step: int = 1) -> list[int]:
        """The shards that a stretch of positions draws from, as `Order.shards_between` says."""
        return self.order.shards_between(first, last, step)

    def _of(self, shard: int) -> np.ndarray:
        """uint32: the rows of a shard that belong to the group; kept for the shards of one window per lane."""
        known = self._rows.pop(shard, None)
        if known is None:
            known = np.flatnonzero(np.isin(self.labels_of(shard), self.group.labels)).astype(np.uint32)
            while len(self._rows) >= self.order.window * self.order.lanes:
                del self._rows[next(iter(self._rows))]
        self._rows[shard] = known
        return known


class Mixture:
    """An endless order like `Order`, in which each stream fills its share of every batch.

    Slot s belongs to the first stream when floor((s + 1) f) > floor(s f), f its share, and is then its draw number
    floor(s f); what is left over is dealt to the other streams in the same way. So a stream's count among the first n
    draws is within one of n f for the first stream (within k for the k-th), for every n. Inside a batch the slots are
    shuffled: dealt in turn, with two ranks and two streams each rank would see one stream only.

    shares: positive, with the sum 1; one for each stream. batch_size: positions from a multiple of it on are a batch.
    """

    def __init__(self, streams: Sequence[Stream], shares: Sequence[Fraction], batch_size: int, seed: int) -> None:
        assert len(streams) == len(shares)
        assert sum(shares) == 1
        self.streams, self.shares, self.batch_size, self.seed = streams, shares, batch_size, seed
        self.counts = sum((stream.group.counts for stream in streams), np.zeros(1, np.int64))
        self.lanes = sum(stream.lanes for stream in streams)  # each stream has its own
        self.reach = int(min(stream.reach / share for stream, share in zip(streams, shares, strict=True)))
        rest = [sum(shares[k:], Fraction()) for k in range(len(shares))]
        self._splits = [(share / left).limit_denominator(FINEST) for share, left in zip(shares, rest, strict=True)]

    def locate(self, positions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """int64 [n] positions, from 0 without end, to shards and rows, int64 [n] each."""
        stream, draws = self.deal(positions)
        shards, rows = np.empty_like(draws), np.empty_like(draws)
        for k in np.unique(stream).tolist():
            here = stream == k
            shards[here], rows[here] = self.streams[k].locate(draws[here])
        return shards, rows

    def deal(self, positions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """int64 [n] positions to the number of the stream that fills each, and which draw of that stream it is."""
        left = self._shuffled(np.asarray(positions, np.int64))
        stream, draws = np.full(len(left), -1), np.empty_like(left)
        for k, share in enumerate(self._splits):
            before, after = (n * share.numerator // share.denominator for n in (left, left + 1))
            mine = (stream < 0) & (after > before)
            stream[mine], draws[mine] = k, before[mine]
            left = left - before
        return stream, draws

    def window_of(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Shards and rows of every sample of the window that `position` is drawn from, all of its stream."""
        stream, draws = self.deal([position])
        return self.streams[int(stream[0])].window_of(int(draws[0]))

    def redraw(self, position: int, attempt: int, count: int) -> int:
        """Which of `count` candidates takes the place of a bad sample at `position`."""
        return self.streams[0].redraw(position, attempt, count)

    def shards_between(self, first: int, last: int, step: int = 1) -> list[int]:
        """The shards that the batches of positions first .. last - 1 draw from, those of all streams in turn.

        step: has no meaning here, since the slots of a batch are shuffled: every rank may need any of them.
        """
        begin = self._dealt(first // self.batch_size * self.batch_size)
        end = self._dealt(-(-last // self.batch_size) * self.batch_size)
        draws = zip(self.streams, begin, end, strict=True)
        needed = [stream.shards_between(a, b) for stream, a, b in draws if a < b]
        return list(dict.fromkeys(shard for turn in zip_longest(*needed) for shard in turn if shard is not None))

    def _dealt(self, slots: int) -> list[int]:
        """How many of the first `slots` (whole batches) went to each stream."""
        counts = []
        for share in self._splits:
            counts.append(slots * share.numerator // share.denominator)
            slots -= counts[-1]
        return counts

    def _shuffled(self, positions: np.ndarray) -> np.ndarray:
        batches, slots = np.divmod(positions, self.batch_size)
        shuffled = np.empty_like(slots)
        for batch in np.unique(batches).tolist():
            here = batches == batch
            shuffled[here] = permutation(self.batch_size, self.seed, MIX, batch)[slots[here]]
        return batches * self.batch_size + shuffled


@dataclass(frozen=True)
class Proportions:
    """What a batch is made of; the defaults take the samples as the set has them.

    weights: shares of the sets that `data.train` lists. labelled: share of labelled samples, in each set.
    balance: how often a class of n labelled samples is drawn, as n^(1 - balance): 0 as it is, 1 all equally often.
    """

    weights: tuple[float, ...] = ()
    labelled: float | None = None
    balance: float = 0.0

    def groups(self, shards: Shards) -> list[tuple[Group, Fraction]]:
        """The groups of `shards` that have a share, and their shares; ConfigError where one asked for has no sample."""
        sets = self._sets(shards)
        total = sum(weight for weight, _ in sets)
        return [
            (group, weight / total * share)
            for weight, members in sets
            for group, share in self._of_set(shards, members)
            if share
        ]

    def _sets(self, shards: Shards) -> list[tuple[Fraction, np.ndarray]]:
        """Weight and shards (a mask) of each set; all in one where no weights are given."""
        if not self.weights:
            return [(Fraction(1), np.ones(len(shards.counts), bool))]
        return [(Fraction(str(weight)), shards.parts == part) for part, weight in enumerate(self.weights) if weight]

    def _of_set(self, shards: Shards, members: np.ndarray) -> list[tuple[Group, Fraction]]:
        table = {label: counts * members for label, counts in shards.label_table().items()}
        classes = {label: counts for label, counts in table.items() if label != UNLABELLED and counts.any()}
        unlabelled = Group("unlabelled", table.get(UNLABELLED, 0 * members), [UNLABELLED])
        if self.labelled is None and not self.balance:
            return [(Group("all", sum(table.values()), list(table)), Fraction(1))]
        if self.balance:  # labels that cannot be read are no class
            labelled = [Group(f"class {k}", n, [k]) for k, n in sorted(classes.items()) if 0 <= k < shards.spec.classes]
        else:
            labelled = [Group("labelled", sum(classes.values()), list(classes))] if classes else []
        known = sum(group.size for group in labelled)
        if self.labelled is None:
            share = Fraction(known, known + unlabelled.size)
        else:
            share = Fraction(str(self.labelled))
        for asked, there, what in ((share, known, "labelled"), (1 - share, unlabelled.size, "unlabelled")):
            if asked and not there:
                raise ConfigError(
                    f"data.labelled_fraction={self.labelled} asks for {what} samples and {shards.home} has none; "
                    "leave it out or add some"
                )
        powers = [Fraction(group.size ** (1 - self.balance)) for group in labelled]
        result = [(group, share * power / sum(powers)) for group, power in zip(labelled, powers, strict=True)]
        return [(unlabelled, 1 - share), *result]  # the first stream's count is the most exact


SampleOrder = Order | Stream | Mixture


def training_order(
    shards: Shards, proportions: Proportions, *, seed: int, lanes: int, window: int, batch_size: int
) -> SampleOrder:
    """The order in which `shards` are trained on: all samples as they come, those of one group, or a mixture.

    Of shards that are restricted to a part it draws this part only.
    """
    if proportions == Proportions() and shards.part is None:
        return Order(shards.counts, seed, lanes, window)
    groups = proportions.groups(shards)
    streams = [Stream(group, Order(group.counts, seed, lanes, window), shards.labels_of) for group, _ in groups]
    return streams[0] if len(streams) == 1 else Mixture(streams, [share for _, share in groups], batch_size, seed)
