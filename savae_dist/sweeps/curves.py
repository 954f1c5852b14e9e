"""The curves of several runs side by side: what a critic, a decoder and the validation say of each game."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from savae_dist.colours import COLOURS
from savae_dist.files import read_object
from savae_dist.pages.curves import Curves, read

# Row of the picture -> the prefix of its tags, and their last parts; without any, all but NOT_DRAWN.
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "critic's loss": ("critic/", ()),
    "share of the gradient": ("gradient_share/", ()),
    "generated against real": ("generated/", ()),
    "validation": ("validation/", ("accuracy", "class_flip_rate", "sharpness")),
}
COLUMNS = 10  # runs that find room
SCALES: dict[str, dict[str, Any]] = {
    "share of the gradient": {"ylim": (-0.02, 1.02)},
    "generated against real": {"yscale": "log", "ylim": (1e-3, 50)},
}
NOT_DRAWN = ("lr", "skipped", "gradient_norm")


def of_row(curves: Curves, row: str) -> Curves:
    """The curves of a row, by the last part of their tags."""
    start, parts = ROWS[row]
    found = {tag.removeprefix(start): points for tag, points in curves.items() if tag.startswith(start)}
    return {part: points for part, points in found.items() if (part in parts if parts else part not in NOT_DRAWN)}


def draw(runs: Sequence[tuple[str, Path]]) -> Figure:
    """A column for each (name, folder of a run), headed by its name and the warnings of the run."""
    figure = Figure(figsize=(2.4 * len(runs), 2.0 * len(ROWS)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(ROWS), len(runs), squeeze=False, sharex="col")
    for column, (name, run) in enumerate(runs):
        curves = read(run)
        for number, row in enumerate(ROWS):
            _lines(grid[number, column], of_row(curves, row))
            if not column:
                grid[number, 0].set_ylabel(row)
            if row in SCALES:
                grid[number, column].set(**SCALES[row])
        told = "\n".join(warnings(run)) or "no warning"
        grid[0, column].set_title(f"{name}\n{told}", fontsize=8)
        grid[-1, column].set_xlabel("step")
    return figure


def warnings(run: Path) -> list[str]:
    """The names of a run's warnings, each once."""
    lines = read_object(run / "summary.json").get("warnings", [])
    return [*dict.fromkeys(line.split(": ")[1] for line in lines)]


def _lines(axes: Axes, curves: Curves) -> None:
    for (part, points), colour in zip(sorted(curves.items()), COLOURS, strict=False):
        axes.plot(*points, color=colour, linewidth=1.2, label=part)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=7)
    if curves:
        axes.legend(fontsize=6, loc="best")
