"""The kernel distance (KID) between two sets of features: an unbiased estimate of MMD^2 (Binkowski 2018)."""

from __future__ import annotations

import numpy as np

from savae_dist.evaluation.bootstrap import Interval, Resampling, ends


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(a.b / units + 1)^3 of features `[n, units]` and `[m, units]`, as `[n, m]` (section 4)."""
    values: np.ndarray = (a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1) ** 3
    return values


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """MMD^2 without bias (Gretton 2012, equation 3): it may be below zero, and is zero on average for equal sets."""
    return float(_distances(_kernels(a, b), np.ones((1, len(a))), np.ones((1, len(b))))[0])


def kernel_distance_with_interval(
    x: np.ndarray, y: np.ndarray, x_drawn: Resampling, y_drawn: Resampling
) -> tuple[float, Interval]:
    """The distance of features x and y, and its interval when the units of both are drawn with replacement.

    Pairs of a sample with itself never count, also where it is drawn twice; so the draws are unbiased, too.
    """
    kernels = _kernels(x, y)
    drawn = _distances(kernels, *(np.concatenate([*one.weights()]) for one in (x_drawn, y_drawn)))
    value = float(_distances(kernels, np.ones((1, len(x))), np.ones((1, len(y))))[0])
    return value, ends(drawn)


def _kernels(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Within each set, without the diagonals, and between them."""
    within = [kernel(one, one) for one in (a, b)]
    for one in within:
        np.fill_diagonal(one, 0)
    return within[0], within[1], kernel(a, b)


def _distances(kernels: tuple[np.ndarray, ...], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """MMD^2 `[draws]`. a `[draws, n]`, b `[draws, m]`: how often each sample of either set is in a draw."""
    within = [
        ((weights @ own) * weights).sum(1) / (weights.sum(1) ** 2 - np.square(weights).sum(1))
        for weights, own in zip((a, b), kernels, strict=False)
    ]
    between = ((a @ kernels[2]) * b).sum(1) / (a.sum(1) * b.sum(1))
    distances: np.ndarray = within[0] + within[1] - 2 * between
    return distances
