"""The confusion matrix of a classifier, and its F1 beside each class."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from savae_dist.colours import COLOURS
from savae_dist.evaluation.classes.classification import f1
from savae_dist.evaluation.figures.figures import class_name, suffix
from savae_dist.preprocess import DataSpec

WITH_NUMBERS = 20  # with more classes the cells are too small for text
NAMED = 60  # with more classes not every one is named
FROM_GREY = 0.6  # share of a row from which black is read better than white


def confusion_matrix(counts: np.ndarray, spec: DataSpec, of: str = "") -> Figure:
    """counts: int `[classes, classes]`, a row for each class as it is; colours are shares of a row."""
    classes = len(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(0.45 * classes + 2.4, 11)
    figure = Figure(figsize=(side + 2.2, side), layout="constrained")
    every = max(1, -(-classes // NAMED))
    ticks, names = range(0, classes, every), [class_name(label, spec) for label in range(0, classes, every)]
    right = np.trace(counts) / max(counts.sum(), 1)
    figure.suptitle(f"Classes as they are and as they are told: {right:.1%} of {counts.sum():,} are right{suffix(of)}")
    axes, bars = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    picture = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=8)
    axes.set_yticks(ticks, names, fontsize=8)
    axes.set(xlabel="told", ylabel="as it is")
    if classes <= WITH_NUMBERS:
        for row, column in np.argwhere(counts > 0):
            colour = "black" if shares[row, column] > FROM_GREY else "white"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(picture, ax=axes, label="share of the class", location="left", shrink=0.6)
    scores = f1(counts)
    bars.barh(np.arange(classes), np.nan_to_num(scores), color=COLOURS[0])
    if classes <= WITH_NUMBERS:
        for row, score in enumerate(scores):
            bars.text(0.03, row, "-" if np.isnan(score) else f"{score:.3f}", va="center", fontsize=7)
    bars.set(xlim=(0, 1), xlabel="F1")
    bars.set_title(f"macro {np.nanmean(scores):.3f}", fontsize=9)
    bars.tick_params(left=False)
    return figure
