"""A share of a set that is held out for validation: always the same samples of the same set.

The split depends on the set alone: neither on the run's seed nor on the number of processes. Samples of one recording,
or of one group of the packer's, stay together; those that come from none are drawn from each class alike, in each shard
by bits that its number seeds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from savae_dist.data.index.labels import UNREADABLE
from savae_dist.data.index.recordings import NONE, By, names_of
from savae_dist.data.index.shards import Part, Shards
from savae_dist.data.order.order import Sequential, rows_of_members
from savae_dist.data.order.permutation import HOLD_OUT, raw_bits
from savae_dist.errors import ConfigError


def hold_out(shards: Shards, share: float, by: By = "auto") -> tuple[Shards, Shards]:
    """The shards without the samples that are held out, and the same shards with these alone.

    by: what stays together: the packer's groups, recordings, or (auto) groups where the shards name some, else
    recordings. No class loses its last sample, recording or group to the second. ConfigError where there are too few to
    hold any out, or where what is asked for has no names.
    """
    split = _Split(shards, Fraction(str(share)), by)
    kept, held = (shards.restricted(part) for part in split.parts())
    if not held.size:
        what = f"{len(split.members):,} {split.unit}" if split.members else f"{shards.size:,} samples"
        instead = ", give data.hold_out_by=recording" * (split.unit == "groups")
        raise ConfigError(
            f"data.hold_out={share} of {what} in {shards.spec.classes} classes holds none out, since no class may "
            f"lose its last: raise it{instead}, or name data.validation"
        )
    return kept, held


def sequential(shards: Shards) -> Sequential:
    """The stored order of the samples that count: for evaluation."""
    return Sequential(shards.counts) if shards.part is None else SequentialPart(shards)


class SequentialPart(Sequential):
    """The stored order of a part of the samples."""

    def __init__(self, shards: Shards) -> None:
        super().__init__(shards.members())
        assert shards.part is not None
        self._holds = shards.part.holds
        self._rows: dict[int, np.ndarray] = {}  # kept for the last two shards: a batch may cross from one to the next

    def locate(self, positions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        return rows_of_members(*super().locate(positions), self._of)

    def _of(self, shard: int) -> np.ndarray:
        if shard not in self._rows:
            while len(self._rows) > 1:
                del self._rows[next(iter(self._rows))]
            self._rows[shard] = np.flatnonzero(self._holds(shard))
        return self._rows[shard]


class _Split:
    """Which samples are held out.

    members: recording or group (`unit` says which) -> label -> its samples. chosen: uint64, those that are held out.
    quotas: label -> int64 [shards], how many of the samples of none are.
    """

    def __init__(self, shards: Shards, share: Fraction, by: By) -> None:
        self.shards, self.names = shards, names_of(shards, by)
        self.unit = self.names.unit
        self.members: dict[int, Counter[int]] = defaultdict(Counter)
        self.quotas = _quotas(self._tally() if self.names.columns else shards.label_table(), share)
        self.chosen = np.array(_chosen(self.members, share), np.uint64)

    def parts(self) -> tuple[Part, Part]:
        """What stays for training, and what is held out."""
        table = self.shards.label_table()
        held: dict[int, np.ndarray] = {
            label: self.quotas.get(label, 0 * counts).copy() for label, counts in table.items()
        }
        for shard in range(len(self.shards.counts)) if len(self.chosen) else ():
            labels, counts = np.unique(self.shards.labels_of(shard)[self.holds(shard)], return_counts=True)
            for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
                held[label][shard] = count
        kept = {label: counts - held[label] for label, counts in table.items()}
        chosen, known = len(self.chosen), len(self.members)
        return Part(kept, self.keeps, known - chosen, self.unit), Part(held, self.holds, chosen, self.unit)

    def keeps(self, shard: int) -> np.ndarray:
        """bool [count], which samples of a shard stay."""
        return ~self.holds(shard)

    def holds(self, shard: int) -> np.ndarray:
        """bool [count], which samples of a shard are held out."""
        labels, names = self.shards.labels_of(shard), self.names.of(shard)
        held = np.isin(names, self.chosen)
        bits = raw_bits(len(labels), 0, HOLD_OUT, shard, 0)
        rows = np.flatnonzero(names == NONE)
        rows = rows[np.lexsort((bits[rows], labels[rows]))]  # class by class, each in the order of its bits
        found, starts, counts = np.unique(labels[rows], return_index=True, return_counts=True)
        quotas = np.array([self.quotas[label][shard] for label in found.tolist()], np.int64)
        held[rows[np.arange(len(rows)) < np.repeat(starts + quotas, counts)]] = True
        return held

    def _tally(self) -> dict[int, np.ndarray]:
        """Count the samples of each recording; return those of none: label -> int64 [shards]."""
        lone = {label: 0 * counts for label, counts in self.shards.label_table().items()}
        for shard in range(len(self.shards.counts)):
            labels, names = self.shards.labels_of(shard), self.names.of(shard)
            for label in np.unique(labels).tolist():
                found, counts = np.unique(names[labels == label], return_counts=True)
                for name, count in zip(found.tolist(), counts.tolist(), strict=True):
                    if name == NONE:
                        lone[label][shard] = count
                    else:
                        self.members[name][label] += count
        return lone


def _chosen(members: Mapping[int, Counter[int]], share: Fraction) -> list[int]:
    """The recordings to hold out: of those of a class the nearest number, at least one of two, by their hashes.

    A recording's class is the label that most of its samples have. Recordings are left out of this where a class would
    have none in training.
    """
    left = Counter(label for labels in members.values() for label in labels)
    by_class = defaultdict(list)
    for name in sorted(members):
        by_class[min(members[name], key=lambda label: (-members[name][label], label))].append(name)
    chosen = []
    for _, names in sorted(by_class.items()):
        wanted = max(1, round(len(names) * share)) if len(names) > 1 else 0
        for name in names:
            labels = members[name].keys() - {UNREADABLE}
            if wanted and all(left[label] > 1 for label in labels):
                chosen.append(name)
                left.subtract(labels)
                wanted -= 1
    return chosen


def _quotas(table: Mapping[int, np.ndarray], share: Fraction) -> dict[int, np.ndarray]:
    """How many samples of each label to hold out in each shard: the share of all, and to within one of each label.

    Never more than half of a label, so that it keeps one.
    """
    quotas, before = {}, 0
    for label, counts in sorted(table.items()):
        size = int(counts.sum())
        quota = min(int((before + size) * share) - int(before * share), size // 2)
        before += size
        quotas[label] = np.diff(np.cumsum(counts) * quota // max(size, 1), prepend=0)
    return quotas
