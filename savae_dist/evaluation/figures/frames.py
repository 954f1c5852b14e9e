"""Decoded codes as a grid: a named row each for one thing, a column for each step."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.evaluation.figures.figures import bare, mosaic
from savae_dist.evaluation.figures.signal_rows import small_curves
from savae_dist.preprocess import DataSpec


def frames(x: Tensor, names: Sequence[str], headings: Sequence[str], title: str, spec: DataSpec) -> Figure:
    """Samples `[rows * columns, *shape]`, row by row; names: of the rows, headings: of the columns."""
    rows, columns, longest = len(names), len(headings), max(map(len, names))
    image = spec.kind == "image"
    ratio, cell = (spec.shape[1] / spec.shape[2] if image else 1.0), (0.75 if columns > 6 else 1.15)
    size = (cell * columns + 0.6 + 0.085 * longest, cell * ratio * rows + 0.9)
    figure = Figure(figsize=(max(size[0], 5.5), size[1]), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots()
    height, width, places = 1.0, 1.0, range(rows)[::-1]
    if image:
        height, width = spec.shape[1] + 2, spec.shape[2] + 2
        axes.imshow(mosaic(x, columns), interpolation="nearest", extent=(0, width * columns, height * rows, 0))
        places = range(rows)
    else:
        small_curves(axes, x[:, 0].detach().cpu().numpy(), columns)
    axes.set_xticks([width * (k + 0.5) for k in range(columns)], headings, fontsize=8)
    axes.xaxis.tick_top()
    axes.set_yticks([height * (k + 0.5) for k in places], names, fontsize=8)
    bare(axes)
    return figure
