"""Keys that count something, some of which may be `auto`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from savae_dist.errors import ConfigError

Auto = Literal["auto"]  # chosen by the samples (`config.auto`)


def at_least_one(values: Mapping[str, Any]) -> None:
    """ConfigError if an integer among these values is below 1."""
    for key, value in values.items():
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{key} must be at least 1, not {value}")
