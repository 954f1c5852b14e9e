"""Keys that have no effect in the given combination.

A field says what it needs (`momentum: float = needs(0.0, name=("sgd",))`); where that need is not met, a
value other than the default is refused. Only choices by name rule a key out. A weight or a number of steps of 0 also
switches a part off but refuses nothing, so that a sweep may include 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import field, fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from savae_dist.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
NEEDS = "needs"  # in a field's metadata


def needs(default: T, /, **others: tuple[str, ...]) -> T:
    """A dataclass field with this default that has an effect only where each other field has one of the values.

    A value may be a pattern: `*.safetensors`.
    """
    declared: Any = field(default=default, metadata={NEEDS: others})
    return declared


def field_values(config: DataclassInstance) -> dict[str, Any]:
    """The fields of a dataclass by name."""
    return {one.name: getattr(config, one.name) for one in fields(config)}


class Unmet(NamedTuple):
    """A field without effect: `other` is `current` and would have to be one of `wanted`."""

    key: str
    other: str
    current: Any
    wanted: tuple[str, ...]

    def refusal(self, section: str, value: Any, chosen: str = "") -> ConfigError:
        """The error for a user who has set `section.key`; chosen: the section that sets `other`, if it is another."""
        instead = f"set {chosen or section}.{self.other}={' or '.join(self.wanted)}"
        return no_effect(f"{section}.{self.key}", value, f"with {self.other}={written(self.current)}", instead)


def without_effect(config: DataclassInstance) -> Iterator[Unmet]:
    """The fields whose need is not met, whatever their value."""
    values = field_values(config)
    for one in fields(config):
        for other, wanted in one.metadata.get(NEEDS, {}).items():
            if not any(fnmatchcase(str(values[other]), pattern) for pattern in wanted):
                yield Unmet(one.name, other, values[other], wanted)
                break


def refuse_without_effect(section: str, config: DataclassInstance, default: DataclassInstance) -> None:
    """ConfigError if a field differs from that of `default` and has no effect."""
    values, usual = field_values(config), field_values(default)
    for unmet in without_effect(config):
        if values[unmet.key] != usual[unmet.key]:
            raise unmet.refusal(section, values[unmet.key])


def no_effect(key: str, value: Any, why: str, instead: str = "") -> ConfigError:
    """The error for a key that was set and has no effect."""
    return ConfigError(f"{key}={written(value)} has no effect {why}: leave it out{instead and f', or {instead}'}")


def written(value: Any) -> str:
    """A value as one writes it on the command line: `[0.5,0.9]`, `null`."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
