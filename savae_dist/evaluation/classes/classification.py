"""Confusion of classes, F1 and the area under the ROC curve, each with its interval."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from savae_dist.evaluation.bootstrap import Resampling


def confusion(label: np.ndarray, decided: np.ndarray, classes: int) -> np.ndarray:
    """How many samples of each class (row) were put into each class (column), int `[classes, classes]`."""
    return np.bincount(label * classes + decided, minlength=classes**2).reshape(classes, classes)


def f1(counts: np.ndarray) -> np.ndarray:
    """2 TP / (2 TP + FP + FN) of each class `[..., classes]`, NaN for a class that occurs on neither side.

    counts: `[..., classes, classes]`, as of `confusion`.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    either = counts.sum(-1) + counts.sum(-2)
    with np.errstate(invalid="ignore"):
        found: np.ndarray = 2 * right / either
    return found


def macro_f1_draws(label: np.ndarray, decided: np.ndarray, classes: int, drawn: Resampling) -> np.ndarray:
    """The mean of F1 over the classes that occur, in each draw `[resamples]`."""
    cell = label * classes + decided
    each = (row for weights in drawn.weights() for row in weights)
    counts = (np.bincount(cell, row, minlength=classes**2).reshape(classes, classes) for row in each)
    return np.array([np.nanmean(f1(one)) for one in counts])


def aurocs(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of pairs of a positive and a negative sample in which the positive one scores higher, ties half.

    scores, positive: `[n]`; weights: how often each sample counts, `[draws, n]`. NaN in a draw that lacks one side.
    """
    rank = rankdata(scores, "dense") - 1
    sides = np.zeros((2, len(weights), rank.max() + 1))  # weight of negatives and of positives at each score
    order = np.argsort(rank, kind="stable")
    first = np.flatnonzero(np.diff(rank[order], prepend=-1))
    for side, mine in enumerate((~positive, positive)):
        sides[side] = np.add.reduceat((weights * mine)[:, order], first, axis=1)
    below = sides[0].cumsum(1) - sides[0]
    with np.errstate(invalid="ignore"):
        found: np.ndarray = (sides[1] * (below + sides[0] / 2)).sum(1) / (sides[0].sum(1) * sides[1].sum(1))
    return found


def macro_auroc_draws(probabilities: np.ndarray, label: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of `aurocs` of each class that occurs against the others (Hand and Till 2001), `[draws]`.

    NaN where all samples are of one class. probabilities: `[n, classes]`; weights: `[draws, n]`.
    """
    present = [one for one in np.unique(label) if (label != one).any()]
    if not present:
        return np.full(len(weights), np.nan)
    areas = np.array([aurocs(probabilities[:, one], label == one, weights) for one in present])
    known = ~np.isnan(areas)
    with np.errstate(invalid="ignore"):  # NaN where a draw holds one class only
        means: np.ndarray = np.where(known, areas, 0).sum(0) / known.sum(0)
    return means
