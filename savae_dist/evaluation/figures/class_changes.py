"""Zemouri 2020, figure 9: reconstructions whose class has changed, and curves over the adversary's weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from savae_dist.colours import COLOURS
from savae_dist.evaluation.figures.figures import mosaic

SIDE = 8  # images in a row of a panel
CHANGED, REPAIRED = "#d1001f", "#00963f"


@dataclass(frozen=True)
class Panel:
    """Reconstructions `[n, *shape]` of the same images; changed: which of them change class, bool `[n]`."""

    x_hat: Tensor
    changed: Tensor


def class_changes(x: Tensor, panels: Mapping[tuple[str, str], Panel], title: str) -> Figure:
    """Images x `[n, *shape]` and their reconstructions: a row of panels per gamma, a column per beta.

    panels: by (beta, gamma). A changed class is framed red; green is right at a gamma where it is changed at the
    smallest one and the same beta.
    """
    betas, gammas = (sorted({place[axis] for place in panels}, key=float) for axis in (0, 1))
    height = -(-len(x) // SIDE) / SIDE * x.shape[2] / x.shape[3]
    size = (2.9 * (len(betas) + 1), (2.9 * height + 0.3) * len(gammas) + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, fontsize=12, wrap=True)
    for row, gamma in zip(figure.subplots(len(gammas), len(betas) + 1, squeeze=False), gammas, strict=True):
        _panel(row[0], x, "test images" if gamma == gammas[0] else "the same")
        for axes, beta in zip(row[1:], betas, strict=True):
            if (panel := panels.get((beta, gamma))) is None:
                axes.set_axis_off()
                continue
            share = 100 * panel.changed.double().mean().item()
            _panel(axes, panel.x_hat, f"beta {beta}, gamma {gamma}: {share:.0f} % changed")
            without = panels.get((beta, gammas[0]), panel)
            _frames(axes, panel.changed, CHANGED, x.shape)
            _frames(axes, without.changed & ~panel.changed, REPAIRED, x.shape)
    frames = [Patch(facecolor="none", edgecolor=CHANGED, linewidth=2, label="another class, as the judge sees it")]
    repaired = f"right, and changed at gamma {gammas[0]}"
    frames.append(Patch(facecolor="none", edgecolor=REPAIRED, linewidth=2, label=repaired))
    figure.legend(handles=frames, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _panel(axes: Axes, x: Tensor, title: str) -> None:
    axes.imshow(mosaic(x, SIDE, pad=2), interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def _frames(axes: Axes, framed: Tensor, colour: str, shape: torch.Size) -> None:
    """Around the chosen images of a panel, in its white margin."""
    height, width = shape[2] + 4, shape[3] + 4
    for place in torch.nonzero(framed).flatten().tolist():
        row, column = divmod(place, SIDE)
        corner = (column * width + 0.5, row * height + 0.5)
        axes.add_patch(Rectangle(corner, width - 2, height - 2, fill=False, edgecolor=colour, linewidth=1.6))


@dataclass(frozen=True)
class Curve:
    """One measure over the betas for each gamma: values `[betas][seeds]`; a place without a seed is empty."""

    title: str
    values: Mapping[str, Sequence[Sequence[float]]]
    reference: tuple[str, float] | None = None  # name and height of a horizontal line to compare with


def over_beta(betas: Sequence[str], curves: Sequence[Curve], marked: Mapping[str, str | None], title: str) -> Figure:
    """A plot per curve: the mean over seeds, and a band from the least to the most. marked: names of some betas."""

    def named(beta: str) -> str:
        return "\n".join([beta, *(name for name, place in marked.items() if place == beta)])

    figure = Figure(figsize=(3.6 * len(curves), 4.2), layout="constrained")
    figure.suptitle(title, fontsize=12)
    for axes, curve in zip(np.atleast_1d(figure.subplots(1, len(curves))), curves, strict=True):
        for number, (gamma, values) in enumerate(curve.values.items()):
            known = [place for place, seeds in enumerate(values) if len(seeds)]
            means, least, most = ([f(values[place]) for place in known] for f in (np.mean, min, max))
            axes.plot(known, means, color=COLOURS[2 - 2 * number % 3], marker="o", label=f"gamma {gamma}")
            axes.fill_between(known, least, most, color=COLOURS[2 - 2 * number % 3], alpha=0.2, linewidth=0)
        if curve.reference is not None:
            name, height = curve.reference
            axes.axhline(height, color="#404040", linewidth=0.8, linestyle=":", label=name)
        axes.set_xticks(range(len(betas)), [named(beta) for beta in betas])
        for beta in filter(None, marked.values()):
            axes.axvline(betas.index(beta), color="#404040", linewidth=0.8, linestyle="--")
        axes.set(title=curve.title, xlabel="beta")
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.legend(fontsize=8, frameon=False)
    return figure
