"""Line charts: the places of points, ticks and labels, which a template writes as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from savae_dist.pages.page import number

WIDTH, HEIGHT = 360, 200  # units of the SVG, about the width of a phone in CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 8, 22
POINTS = 300  # most points of a line; of more, evenly spread ones are drawn
WIDE = 50.0  # ratio of largest to smallest value from which the axis is logarithmic

CIRCLE = "m-2 0a2 2 0 1 0 4 0a2 2 0 1 0 -4 0"

Series = tuple[Sequence[float], Sequence[float]]  # steps, values


@dataclass(frozen=True)
class Line:
    """path: in SVG's syntax. last: the last value. colour: index into the palette. dashed: it is a baseline."""

    name: str
    path: str
    last: float
    colour: int
    dashed: bool


@dataclass(frozen=True)
class Chart:
    """ticks_x, ticks_y: (place, label)."""

    title: str
    lines: Sequence[Line]
    ticks_x: Sequence[tuple[float, str]]
    ticks_y: Sequence[tuple[float, str]]
    logarithmic: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(title: str, series: Mapping[str, Series], dashed: Sequence[str] = (), linear: bool = False) -> Chart | None:
    """A drawing of these lines by name, on one pair of axes; None where there is no finite value.

    dashed: the names of baselines. linear: never a logarithmic axis. Points that are not finite are gaps.
    """
    values = [value for _, line in series.values() for value in line if math.isfinite(value)]
    if not values:
        return None
    steps = [step for line, _ in series.values() for step in line]
    low, high = min(values), max(values)
    logarithmic = not linear and low > 0 and high / low > WIDE
    low, high = (math.log10(low), math.log10(high)) if logarithmic else padded(low, high)
    first, last = min(steps), max(steps)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        place = math.log10(value) if logarithmic else value
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (place - low) / (high - low)

    lines = []
    for colour, (name, (at, line)) in enumerate(series.items()):
        places = [(x(step), y(value)) if math.isfinite(value) else None for step, value in spread(at, line)]
        lines.append(Line(name, path(places), line[-1] if line else math.nan, colour, name in dashed))
    marks = decades(low, high) if logarithmic else nice(low, high)
    ticks_y = [(y(value), number(float(value))) for value in marks]
    ticks_x = [(x(step), number(int(step))) for step in nice(first, last) if float(step).is_integer()]
    return Chart(title, lines, ticks_x, ticks_y, logarithmic)


def padded(low: float, high: float) -> tuple[float, float]:
    """The range with a little room, and never empty."""
    room = 0.04 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def spread(steps: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    """At most `POINTS` of the points, evenly spread, the last one among them."""
    points = list(zip(steps, values, strict=True))
    if len(points) <= POINTS:
        return points
    return [points[round(k * (len(points) - 1) / (POINTS - 1))] for k in range(POINTS)]


def path(places: Sequence[tuple[float, float] | None]) -> str:
    """SVG's path through these places; None breaks it. A point that stands alone is a circle."""
    parts, begun = [], False
    for number_, place in enumerate(places):
        if place is None:
            begun = False
            continue
        alone = not begun and (number_ + 1 == len(places) or places[number_ + 1] is None)
        parts.append(f"{'L' if begun else 'M'}{place[0]:.1f} {place[1]:.1f}{CIRCLE * alone}")
        begun = True
    return "".join(parts)


def nice(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within a range: at most about `most`."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten within a range of exponents; between few of them also their doubles and fives."""
    whole = range(math.floor(low), math.ceil(high) + 1)
    factors = (1, 2, 5) if high - low < 2.5 else (1,)
    found = [factor * 10.0**power for power in whole for factor in factors]
    shown = [value for value in found if low - 1e-9 <= math.log10(value) <= high + 1e-9]
    return shown[:: max(1, len(shown) // 6)]
