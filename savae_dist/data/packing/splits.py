"""Which set a group of samples goes to: what belongs together (a machine, a patient, a recording) is never divided."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from savae_dist.data.order.permutation import PACK, permutation
from savae_dist.data.packing.sources.base import Label, Note
from savae_dist.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")
SPELLINGS = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "test": "test"} | {
    "validation": "validation",
    "testing": "test",
    "dev": "validation",
}
EDGE = 1e-6  # shares written as decimals are rounded


@dataclass(frozen=True)
class Splits:
    """How a source is divided. shares: of the groups in `validation` and `test`; the rest is `train`.

    leave_out: groups that are all of `test`: the machine that the model has never seen.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    leave_out: tuple[str, ...] = ()
    seed: int = 0

    @property
    def wanted(self) -> bool:
        return bool(self.leave_out) or any(self.shares.values())


def sets_of(
    groups: Sequence[str], given: Sequence[str], labels: Sequence[Label], splits: Splits, by: str
) -> tuple[tuple[str, ...], list[Note]]:
    """The set of every member, "" where there is one set only; and how they were divided, in words.

    given: the sets that the source names, "" for all where it names none. by: what the members were grouped by.
    DataError where the given sets divide a group; ConfigError where there are given ones and others are asked for.
    """
    if any(given) and splits.wanted:
        raise ConfigError("the source names its sets itself; leave --validation, --test and --leave-out away")
    if any(given):
        check_given(groups, given)
    sets = tuple(given) if any(given) else divide(groups, labels, splits)
    if not any(sets):
        return sets, []
    counts = Counter(dict(zip(groups, sets, strict=True)).values())
    told = ", ".join(f"{counts[name]:,} in {name}" for name in SPLITS if name in counts)
    return sets, [Note("divided", f"{'as given, ' * any(given)}by {by}: {told}", "")]


def as_set(name: str) -> str:
    """The set that is meant by `val`, `dev`, `Training` and the like; other names as they are."""
    return SPELLINGS.get(name.lower(), name)


def divide(groups: Sequence[str], labels: Sequence[Label], splits: Splits) -> tuple[str, ...]:
    """The set of every member of the groups; of each class the share of its groups nearest to what is asked.

    A group counts for the class that most of its members have. A class with fewer groups than sets is in `train`
    first, then in `validation`. ConfigError where a set that was asked for would be empty.
    """
    if not splits.wanted:
        return ("",) * len(groups)
    if missing := set(splits.leave_out) - set(groups):
        shown = ", ".join(sorted(set(groups))[:20])
        raise ConfigError(f"--leave-out {min(missing)}: no such group; there are {shown}")
    rest = 1 - sum(splits.shares.values())
    if min(splits.shares.values(), default=0) < 0 or rest <= 0:
        raise ConfigError(f"the shares of {' and '.join(splits.shares)} must be from 0 on and sum to less than 1")
    if splits.leave_out and splits.shares.get("test"):
        raise ConfigError("--leave-out names the test set, and --test asks for a share of it: give one of them")
    shares = {name: share for name in SPLITS if (share := {"train": rest, **splits.shares}.get(name, 0.0)) > 0}
    chosen = dict.fromkeys(splits.leave_out, "test")
    for number, (_, names) in enumerate(sorted(_by_class(groups, labels, chosen).items())):
        drawn = [names[i] for i in permutation(len(names), splits.seed, PACK, number)]
        counts = apportion(len(drawn), list(shares.values()))
        chosen |= dict(zip(drawn, np.repeat(list(shares), counts).tolist(), strict=True))
    if absent := shares.keys() - set(chosen.values()):
        raise ConfigError(f"{len(chosen)} groups are too few for a {' and a '.join(sorted(absent))} set; lower it")
    return tuple(chosen[name] for name in groups)


def check_given(groups: Sequence[str], splits: Sequence[str]) -> None:
    """DataError where sets that were given are none of ours, or divide a group."""
    first = dict(zip(reversed(groups), reversed(splits), strict=True))
    for group, split in zip(groups, splits, strict=True):
        if split not in SPLITS:
            raise DataError(f"{group} is in {split!r}; give each one of {', '.join(SPLITS)}, always")
        if first[group] != split:
            raise DataError(
                f"{group} is in {first[group]!r} and in {split!r}: what belongs together goes to one set; "
                "correct the split, or say with --group-by what belongs together"
            )


def apportion(n: int, shares: Sequence[float]) -> list[int]:
    """`n` by largest remainders; then who has none takes one from who has most, as long as that keeps one."""
    counts = [math.floor(n * share + EDGE) for share in shares]
    remainders = sorted(range(len(shares)), key=lambda i: (counts[i] - n * shares[i], i))
    for i in remainders[: n - sum(counts)]:
        counts[i] += 1
    for i, count in enumerate(counts):
        most = counts.index(max(counts))
        if count == 0 and counts[most] > 1:
            counts[i], counts[most] = 1, counts[most] - 1
    return counts


def _by_class(groups: Sequence[str], labels: Sequence[Label], without: Mapping[str, str]) -> dict[str, list[str]]:
    """The groups of each class, in the order of their names."""
    votes: dict[str, defaultdict[str, int]] = {}
    for group, label in zip(groups, labels, strict=True):
        votes.setdefault(group, defaultdict(int))[str(label)] += 1
    result = defaultdict(list)
    for group in sorted(votes.keys() - without.keys()):
        label = max(sorted(votes[group]), key=lambda one: votes[group][one])
        result[label].append(group)
    return result
