"""Keys that name a term of a loss: how its weight changes while a phase runs.

They stand as `SECTION.TERM`, for the term in every update that has it, or as `SECTION.UPDATE.TERM`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from savae_dist.config.nearest import nearest
from savae_dist.errors import ConfigError


@dataclass
class ScheduleConfig:
    """The factor of a term's weight: 0 for `start` iterations of the phase, then rising linearly to 1 over `ramp`."""

    start: int = 0
    ramp: int = 0

    def check(self, key: str) -> None:
        for name, value in (("start", self.start), ("ramp", self.ramp)):
            if value < 0:
                raise ConfigError(f"{key}.{name} must not be negative, not {value}")


@dataclass
class AdaptiveConfig:
    """A term whose gradient at the decoder's last layer is held at `ratio` times that of the term `to`.

    most: what its weight is at most multiplied by.
    """

    to: str = ""
    ratio: float = 1.0
    most: float = 1e4

    def check(self, key: str) -> None:
        if not self.to:
            raise ConfigError(f"{key}.to names the term whose gradient it is measured against: {key}.to=rec")
        for name, value in (("ratio", self.ratio), ("most", self.most)):
            if not 0 < value < math.inf:
                raise ConfigError(f"{key}.{name} must be positive, not {value}")


def by_term(section: str, asked: object, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`TERM` or `UPDATE.TERM` -> what is asked for of it; ConfigError where that is no mapping of `keys`."""
    found: dict[str, dict[str, Any]] = {}
    if not isinstance(asked, Mapping):
        raise ConfigError(f"{section}: holds the names of terms, {section}.TERM.{keys[0]}=..., not {asked!r}")
    for name, node in asked.items():
        if not isinstance(node, Mapping):
            raise ConfigError(f"{section}.{name}: holds keys, {section}.{name}.{keys[0]}=..., not {node!r}")
        if any(isinstance(value, Mapping) for value in node.values()) and "." not in str(name):
            for term, values in by_term(f"{section}.{name}", node, keys).items():
                found.setdefault(f"{name}.{term}", {}).update(values)
            continue
        for key in node:
            if key not in keys:
                known = nearest(str(key), keys) or f"; known: {', '.join(keys)}"
                raise ConfigError(f"{section}.{name}.{key}: no such key{known}")
        found.setdefault(str(name), {}).update(node)
    return found


def in_update(update: str, by_name: Mapping[str, Any]) -> dict[str, Any]:
    """TERM -> what is asked for of it in an update; `UPDATE.TERM` goes before `TERM`."""
    everywhere = {name: value for name, value in by_name.items() if "." not in name}
    own = {name.removeprefix(f"{update}."): value for name, value in by_name.items() if name.startswith(f"{update}.")}
    return everywhere | own
