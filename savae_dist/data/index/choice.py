"""What a user says of tars: which members are the samples, and what tells their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from savae_dist.config.members import LabelRule, label_rule, sample_endings
from savae_dist.data.index.groups import Wanted


@dataclass(frozen=True)
class Choice:
    """x, y: `data.x` and `data.y`; None: the usual members. known: names that have the first numbers, such as those of
    the training set for the set that it is validated on.
    """

    x: str | None = None
    y: str | None = None
    known: tuple[str, ...] = ()

    @cached_property
    def wanted(self) -> Wanted:
        return Wanted.of(sample_endings(self.x) if self.x is not None else (), self.labels if self.y else None)

    @cached_property
    def labels(self) -> LabelRule:
        return label_rule(self.y) if self.y is not None else LabelRule("member", "cls")

    def fits(self, index: Mapping[str, Any]) -> bool:
        """Whether an index was made by this choice; what is not chosen is as the index has it."""
        return self.x in (None, index.get("x")) and self.y in (None, index.get("y"))

    @property
    def chosen(self) -> dict[str, str]:
        """What was chosen, as an index holds it."""
        return {key: value for key, value in (("x", self.x), ("y", self.y)) if value is not None}

    @property
    def name(self) -> str:
        """Other for every other choice, empty for none: part of the name of the folder of an index."""
        return "\n".join([f"\n{key}={value}" for key, value in self.chosen.items()] + list(self.known))
