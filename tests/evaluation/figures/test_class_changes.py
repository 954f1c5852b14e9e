"""The pictures of figure 9: who is framed how, and what the curves show."""

from __future__ import annotations

import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from savae_dist.evaluation.figures.class_changes import CHANGED, REPAIRED, Curve, Panel, class_changes, over_beta


def test_changed_is_red_and_repaired_is_green() -> None:
    x = torch.rand(10, 1, 6, 5)
    changed = torch.zeros(2, 10, dtype=torch.bool)
    changed[0, [1, 8, 9]] = True  # without gamma
    changed[1, [2, 9]] = True  # with it: 1 and 8 are repaired
    panels = {("0.1", gamma): Panel(x, flips) for gamma, flips in zip(("0", "0.5"), changed, strict=True)}
    figure = class_changes(x, panels, "title")
    framed = [
        sorted((to_hex(p.get_edgecolor()), p.get_xy()) for p in axes.patches if isinstance(p, Rectangle))
        for axes in figure.axes
    ]
    # Images are 9 pixels wide and 10 high with their margins, eight in a row.
    places = {1: (9.5, 0.5), 2: (18.5, 0.5), 8: (0.5, 10.5), 9: (9.5, 10.5)}
    assert framed[0] == framed[2] == []
    assert framed[1] == sorted((CHANGED, places[n]) for n in (1, 8, 9))
    assert framed[3] == sorted(
        [(CHANGED, places[2]), (CHANGED, places[9]), (REPAIRED, places[1]), (REPAIRED, places[8])]
    )
    assert [axes.get_title() for axes in figure.axes][1] == "beta 0.1, gamma 0: 30 % changed"


def test_curves_are_means_with_a_place_left_out() -> None:
    curve = Curve("flips", {"0": [[1.0, 3.0], [], [5.0]]}, reference=("mean image", 4.0))
    figure = over_beta(["0", "0.1", "0.5"], [curve], {"beta*": "0.5", "epsilon": None}, "title")
    line, reference, mark = figure.axes[0].lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([0, 2], [2, 5])
    assert (list(reference.get_ydata()), list(mark.get_xdata())) == ([4, 4], [2, 2])
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "0.1", "0.5\nbeta*"]
