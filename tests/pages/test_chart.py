"""Drawings of curves."""

from __future__ import annotations

import math
import re

import pytest

from savae_dist.pages.chart import (
    BOTTOM,
    CIRCLE,
    HEIGHT,
    LEFT,
    POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    chart,
    decades,
    nice,
    path,
)


def drawn(**series: list[float]) -> Chart:
    found = chart("title", {name: (list(range(len(line))), line) for name, line in series.items()})
    assert found is not None
    return found


def places(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", line)]


def test_a_line_fills_the_axes() -> None:
    """From the first step to the last, low values below; a little room above and below."""
    found = drawn(a=[0.0, 1.0])
    room = 0.04 / 1.08 * (HEIGHT - TOP - BOTTOM)
    assert places(found.lines[0].path) == [
        (LEFT, pytest.approx(HEIGHT - BOTTOM - room, abs=0.06)),
        (WIDTH - RIGHT, pytest.approx(TOP + room, abs=0.06)),
    ]
    assert [label for _, label in found.ticks_y] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert not found.logarithmic


def test_sizes_that_differ_much_are_drawn_by_their_logarithm() -> None:
    found = drawn(a=[100.0, 10.0, 1.0])
    heights = [y for _, y in places(found.lines[0].path)]
    assert found.logarithmic
    assert heights[1] == pytest.approx((heights[0] + heights[2]) / 2, abs=0.1)
    assert not drawn(a=[-1.0, 1000.0]).logarithmic
    linear = chart("a", {"a": ([0, 1], [0.001, 1.0])}, linear=True)
    assert linear is not None
    assert not linear.logarithmic


def test_what_is_not_finite_is_a_gap() -> None:
    line = drawn(a=[1.0, 2.0, math.nan, 1.0, math.inf, 2.0, 1.0]).lines[0].path
    assert re.sub(r"[\d. -]", "", line) == "MLMmaaML"
    assert chart("none", {"a": ([0, 1], [math.nan, math.inf])}) is None
    assert chart("none", {}) is None


def test_one_point_is_seen() -> None:
    found = drawn(a=[3.0])
    assert found.lines[0].path.endswith(CIRCLE)
    assert path([None, None]) == ""


def test_long_lines_are_thinned_and_end_where_they_end() -> None:
    found = drawn(a=[float(k) for k in range(10_000)])
    points = places(found.lines[0].path)
    assert len(points) == POINTS
    assert points[-1][0] == WIDTH - RIGHT
    assert found.lines[0].last == 9999


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]), (3, 3, [3]), (-7.0, 18.0, [-5, 0, 5, 10, 15])],
)
def test_ticks_are_round(low: float, high: float, found: list[float]) -> None:
    assert nice(low, high) == pytest.approx(found)


def test_ticks_of_a_logarithmic_axis() -> None:
    assert decades(-1, 1) == pytest.approx([0.1, 0.2, 0.5, 1, 2, 5, 10][:: max(1, 7 // 6)])
    assert decades(-3, 3) == pytest.approx([1e-3, 1e-2, 0.1, 1, 10, 100, 1000])
