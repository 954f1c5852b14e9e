"""The Frechet distance between Gaussians that are fitted to features, from sums that stream and add up over ranks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from savae_dist.evaluation.bootstrap import Interval, scatter

PARTS = 32  # sums are kept of so many parts of a set, of which the bootstrap draws
RESAMPLES = 200  # each takes two eigendecompositions


@dataclass(frozen=True)
class Gaussian:
    """Mean `[units]` and covariance `[units, units]` of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """Fitted to features `[n, units]`, n at least 2."""
        features = features.astype(np.float64)
        return cls(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """||m_a - m_b||^2 + tr(A + B - 2 (A B)^(1/2)) (Dowson and Landau 1982; Heusel 2017).

    Computed with the trace of (A^(1/2) B A^(1/2))^(1/2), which equals that of (A B)^(1/2). The former is the root of
    a symmetric matrix, so it is real; the root of a nearly singular A B comes out complex by rounding.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b.covariance @ root).clip(min=0)).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return max(float(distance), 0.0)


class Moments:
    """Count `[parts]`, sum `[parts, units]` and sum of products `[parts, units, units]` of features, batch by batch.

    A sample belongs to the part unit % PARTS, where its unit is its own number or that of its recording: what is drawn
    together stays together. Sums of several ranks add up.
    """

    def __init__(self, units: int) -> None:
        self.count, self.total = np.zeros(PARTS), np.zeros((PARTS, units))
        self.products = np.zeros((PARTS, units, units))

    def add(self, features: np.ndarray, unit: np.ndarray) -> None:
        """More features `[n, units]` of samples of these units `[n]`."""
        features = features.astype(np.float64)
        for part in np.unique(unit % PARTS):
            here = features[unit % PARTS == part]
            self.count[part] += len(here)
            self.total[part] += here.sum(0)
            self.products[part] += here.T @ here

    def without(self, some: Moments) -> Moments:
        """Of the features that are not among `some` of them."""
        others = Moments(self.total.shape[1])
        others.count, others.total = self.count - some.count, self.total - some.total
        others.products = self.products - some.products
        return others

    def gaussian(self, times: np.ndarray | None = None) -> Gaussian:
        """The fit to all of them; times `[parts]`: with each part taken so many times."""
        times = np.ones(PARTS) if times is None else times
        n = times @ self.count
        mean = times @ self.total / n
        products = np.tensordot(times, self.products, 1)
        return Gaussian(mean, (products - n * np.outer(mean, mean)) / (n - 1))


def frechet_with_interval(a: Moments, b: Moments, seed: int = 0) -> tuple[float, Interval]:
    """The distance, and the interval of its scatter when the parts of both sets are drawn with replacement."""
    random = np.random.default_rng(seed)
    drawn = [frechet_distance(a.gaussian(_times(random, a)), b.gaussian(_times(random, b))) for _ in range(RESAMPLES)]
    value = frechet_distance(a.gaussian(), b.gaussian())
    return value, scatter(value, np.array(drawn))


def _times(random: np.random.Generator, moments: Moments) -> np.ndarray:
    """How often each part that has samples is drawn `[parts]`."""
    filled = np.flatnonzero(moments.count)
    return np.bincount(random.choice(filled, len(filled)), minlength=PARTS).astype(np.float64)
