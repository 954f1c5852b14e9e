"""Which members of a tar make one sample, or one block of samples, and which of them damage has torn.

The members of a key belong together wherever they stand in their shard. Keys need not differ between shards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from savae_dist.config.members import LabelRule
from savae_dist.data.formats.npy import IMAGES, MORE_IMAGES
from savae_dist.data.formats.tar import Entry, Tar, ends, walk
from savae_dist.data.index.labels import Member
from savae_dist.data.index.reasons import Tally, shown
from savae_dist.data.index.seen import Seen

NAME = re.compile(r"((?:.*/|)[^./][^./]*)\.([^/]+)", re.DOTALL)  # WebDataset's rule: the key ends at the first dot
SINGLE = (*IMAGES, "npy", *MORE_IMAGES)
END = ""  # no key: what stands there is gone


class Wanted(NamedTuple):
    """Which members of a key are read; all else is passed over: json, txt, pkl, pth, pyd, ...

    samples: endings of those that hold a sample. in_order: of several in one key the first is taken, else none is.
    label: the ending of the label, "" where no member tells it; label_of_block: the same for x.npy, which is a block of
    samples unless it was chosen for one. attributes: of the member with more values of it, likewise.
    """

    samples: tuple[str, ...]
    in_order: bool
    label: str
    label_of_block: str
    attributes: str = ""

    @classmethod
    def of(cls, x: tuple[str, ...], y: LabelRule | None, attributes: str = "") -> Wanted:
        """x: the endings that were asked for, if any; y: None where nobody has said what tells the label."""
        of_block = "y.npy" if y is None or y.detail == "cls" else y.detail
        member = y is None or y.kind in ("member", "json")
        label = "cls" if y is None else y.detail
        return cls(x or SINGLE, bool(x), label if member else "", of_block if member else "", attributes)

    def reads(self, ending: str) -> bool:
        others = (self.label, self.label_of_block, self.attributes)
        named = ending != "" and ending in others  # without an ending it belongs to no key, or is damaged
        return ending in self.samples or named or self.is_block(ending)

    def is_block(self, ending: str) -> bool:
        return ending == "x.npy" and not self.in_order

    def hidden(self, ending: str) -> bool:
        """Whether it would be read if the key did not end at its first dot: `000.png` of scan.000.png."""
        return ending not in self.samples and ending.endswith(tuple(f".{one}" for one in self.samples))


@dataclass
class Group:
    """The members of one key by extension; `fault`: why it cannot be used.

    hidden: how many members end as samples do, behind a dot too many, and the first of them.
    """

    wanted: Wanted
    members: dict[str, Member] = field(default_factory=dict)
    fault: str = ""
    copies: Counter[str] = field(default_factory=Counter)
    hidden: Counter[str] = field(default_factory=Counter)

    def add(self, key: str, extension: str, entry: Entry) -> None:
        """The first member of an extension is taken, later ones are counted as copies: readers differ in which wins.

        A fault of a member that is not read costs no sample that is there, so a damaged .json costs none.
        """
        used = self.wanted.reads(extension)
        if used or not self.members:
            self.fault = self.fault or entry.fault or ("name" if _leaves(key) else "")
        if extension in self.members:
            self.copies[extension] += 1
        elif used:
            self.members[extension] = Member(entry.offset, entry.size)
        elif self.wanted.hidden(extension):
            self.hidden[extension] += 1

    @property
    def packed(self) -> bool:
        return any(self.wanted.is_block(ending) for ending in self.members)

    def usable(self) -> bool:
        return self.packed or bool(self.samples())

    def samples(self) -> list[str]:
        """The endings that could be its sample, in the order in which they are wanted."""
        return [ending for ending in self.wanted.samples if ending in self.members]

    def label(self) -> Member | None:
        return self.members.get(self.wanted.label_of_block if self.packed else self.wanted.label)

    def attributes(self) -> Member | None:
        return self.members.get(self.wanted.attributes)


def gather(data: Tar, dropped: Tally, wanted: Wanted, seen: Seen) -> dict[str, Group]:
    """The groups of a tar in the order of their first members; a second member of one name is a `duplicate`."""
    groups: dict[str, Group] = {}
    neighbours = Neighbours()
    for entry in walk(data):
        name = NAME.fullmatch(entry.name)
        key, extension = (name[1], name[2].lower()) if name else (f"byte {entry.offset}", "")
        seen.add(data, entry, key if name else "", extension)
        if not _counts(entry, name is not None, wanted.reads(extension)):
            continue
        neighbours.see(key, _is_damage(entry))
        groups.setdefault(key, Group(wanted)).add(key, extension, entry)
    if not ends(data):
        neighbours.see_cut()
    for key, group in groups.items():
        if group.copies:
            dropped.add("duplicate", [shown(key)], max(group.copies.values()))
    return _without_torn(groups, neighbours.damage_beside)


def _is_damage(entry: Entry) -> bool:
    """Damage is a broken header or a member that the tar cuts off: of these not even the name is sure."""
    return entry.fault in ("header", "truncated")


def _counts(entry: Entry, named: bool, used: bool) -> bool:
    """Damage counts whatever its name, anything else only under a name of WebDataset's form, and a faulty member only
    if it is read: others may lie there for another program.
    """
    return _is_damage(entry) or (named and (not entry.fault or used))


def _leaves(key: str) -> bool:
    """A key must stay in its folder: who unpacks the tar would write elsewhere."""
    return key.startswith("/") or ".." in key.split("/")


class Neighbours:
    """Which keys stand right before or after damage, and the key of that: the members of a sample stand side by side,
    so what is damaged may have been a member of theirs.
    """

    def __init__(self) -> None:
        self.damage_beside: dict[str, str] = {}
        self._last, self._last_damage = "", ""  # the key before, and again if it was damage

    def see(self, key: str, damage: bool) -> None:
        """The next entry. Damage that follows a key counts for it rather than damage that came before it."""
        if damage:
            self.damage_beside[self._last] = key
        elif self._last_damage:
            self.damage_beside.setdefault(key, self._last_damage)
        self._last, self._last_damage = key, key if damage else ""

    def see_cut(self) -> None:
        """A tar that does not end as it should: more members of the last key may have followed."""
        self.damage_beside.setdefault(self._last, END)


def _without_torn(groups: dict[str, Group], damage_beside: dict[str, str]) -> dict[str, Group]:
    """A torn sample gets the fault of the damage beside it; both are one loss, so the damage is then not counted too.

    Damage that holds members itself stays: it is a sample of its own.
    """
    label_expected = _mostly_labelled(group for key, group in groups.items() if key not in damage_beside)
    explained = set()
    for key, damage in damage_beside.items():
        group = groups.get(key)
        if group is not None and not group.fault and _is_torn(group, label_expected):
            group.fault = groups[damage].fault if damage in groups else "truncated"
            explained.add(damage)
    return {key: group for key, group in groups.items() if group.members or key not in explained}


def _mostly_labelled(groups: Iterable[Group]) -> bool:
    """A set is labelled if more than half of its samples are: some sets leave the label of a few out on purpose."""
    labelled = [group.label() is not None for group in groups if group.usable()]
    return 2 * sum(labelled) > len(labelled)


def _is_torn(group: Group, label_expected: bool) -> bool:
    """Beside damage, what lacks its sample, or the label that most have, is torn: the damaged member was that."""
    return not group.usable() or (label_expected and group.label() is None)
