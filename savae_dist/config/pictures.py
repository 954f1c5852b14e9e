"""The keys of pictures: `data.size`, `data.resize`, `data.mode` and `data.range`, as they are written and as used."""

from __future__ import annotations

import math
from collections.abc import Sequence

from savae_dist.config.effect import no_effect
from savae_dist.errors import ConfigError

MAX_SIDE = 1 << 14


def size_of(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """(height, width) of `data.size`; ConfigError unless it is one number, or two."""
    if size is None:
        return None
    sides = [size] * 2 if isinstance(size, int) else list(size)
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        raise ConfigError(f"data.size is a number of pixels or [HEIGHT,WIDTH], from 1 to {MAX_SIDE:,}, not {size}")
    return sides[0], sides[1]


def range_of(limits: str | Sequence[float] | None) -> tuple[float, float] | None:
    """(low, high) of `data.range`, `[0,4095]` or `0,4095`; ConfigError unless they are two rising numbers."""
    if limits is None:
        return None
    try:
        low, high = map(float, limits.split(",") if isinstance(limits, str) else limits)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ConfigError(f"data.range is the values that become black and white, as in [0,4095], not {limits}")
    return low, high


def as_lists(
    size: int | Sequence[int] | None, resize: str, limits: str | Sequence[float] | None
) -> tuple[list[int] | None, list[float] | None]:
    """`data.size` and `data.range` as a run's identity has them, however they were written.

    ConfigError for values that cannot work, or have no effect together.
    """
    sides, low_high = size_of(size), range_of(limits)
    if sides is None and resize != "crop":
        raise no_effect("data.resize", resize, "without data.size", "set data.size")
    return sides and [*sides], low_high and [*low_high]
