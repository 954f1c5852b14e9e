"""What a user says of tars: which members are the samples, and what tells their labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from savae_dist.config.members import AttributeRule, LabelRule, attribute_rule, label_rule, sample_endings
from savae_dist.data.index.groups import Wanted


@dataclass(frozen=True)
class Choice:
    """x, y, attributes: as in `data`; None: the usual members, and no attributes. known: names that have the first
    numbers, such as those of the training set for the set that it is validated on.
    """

    x: str | None = None
    y: str | None = None
    attributes: str | None = None
    known: tuple[str, ...] = ()

    @cached_property
    def wanted(self) -> Wanted:
        x = sample_endings(self.x) if self.x is not None else ()
        ending = self.attribute_rule.ending if self.attribute_rule else ""
        return Wanted.of(x, self.labels if self.y else None, ending)

    @cached_property
    def labels(self) -> LabelRule:
        return label_rule(self.y) if self.y is not None else LabelRule("member", "cls")

    @cached_property
    def attribute_rule(self) -> AttributeRule | None:
        return attribute_rule(self.attributes) if self.attributes is not None else None

    def fits(self, index: Mapping[str, Any]) -> bool:
        """Whether an index was made by this choice; what is not chosen is as the index has it."""
        attributes = index.get("attributes", {}).get("rule")
        made = (index.get("x"), index.get("y"), attributes)
        return all(mine in (None, its) for mine, its in zip((self.x, self.y, self.attributes), made, strict=True))

    @classmethod
    def of(cls, index: Mapping[str, Any]) -> Choice:
        """That by which an index was made."""
        return cls(index.get("x"), index.get("y"), index.get("attributes", {}).get("rule"))

    @property
    def chosen(self) -> dict[str, str]:
        """What was chosen, by key of `data`."""
        keys = (("x", self.x), ("y", self.y), ("attributes", self.attributes))
        return {key: value for key, value in keys if value is not None}

    @property
    def name(self) -> str:
        """Other for every other choice, empty for none: part of the name of the folder of an index."""
        return "\n".join([f"\n{key}={value}" for key, value in self.chosen.items()] + list(self.known))
