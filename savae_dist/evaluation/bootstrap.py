"""Intervals by the bootstrap (Efron 1979): units are drawn with replacement, and the metric is taken of each draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000  # draws
LEVEL = 0.95  # how likely an interval is to hold the true value
BLOCK = 4_000_000  # numbers that are held at once

Interval = list[float]  # [low, high]


def ends(draws: np.ndarray) -> Interval:
    """The percentile interval of a metric's values in the draws."""
    found: Interval = np.percentile(np.asarray(draws, float), (50 * (1 - LEVEL), 50 * (1 + LEVEL))).tolist()
    return found


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """`0.750 [0.667, 0.917]`; without an interval the value alone, and `-` without a value."""
    if value is None:
        return "-"
    return f"{value:.3f}" + (" [{:.3f}, {:.3f}]".format(*interval) if interval else "")


def scatter(value: float, draws: np.ndarray) -> Interval:
    """The interval for a metric that is biased by the number of samples, as a distance between distributions is.

    A draw repeats samples, so its value is too large throughout. Only the draws' scatter about their mean is kept.
    """
    low, high = ends(draws - np.mean(draws))
    return [value + low, value + high]


@dataclass(frozen=True)
class Resampling:
    """Draws of the units that n samples belong to.

    unit: int `[n]`, 0 to units - 1: each sample's own number, or that of the recording it is a window of, since windows
    of a recording are alike.
    """

    unit: np.ndarray
    seed: int = 0
    resamples: int = RESAMPLES

    @classmethod
    def of(cls, unit: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Resampling:
        """Units may have any numbers here, such as hashes; they are counted from 0."""
        return cls(np.unique(unit, return_inverse=True)[1].reshape(-1), seed, resamples)

    @property
    def units(self) -> int:
        return int(self.unit.max()) + 1 if len(self.unit) else 0

    def counts(self) -> Iterator[np.ndarray]:
        """How often each unit is in each draw, float64 `[block, units]`, block by block, the same at every call."""
        random, block = np.random.default_rng(self.seed), max(1, BLOCK // max(self.units, 1))
        for start in range(0, self.resamples, block):
            rows = [random.integers(0, self.units, self.units) for _ in range(min(block, self.resamples - start))]
            yield np.stack([np.bincount(row, minlength=self.units) for row in rows]).astype(np.float64)

    def weights(self) -> Iterator[np.ndarray]:
        """How often each sample is in each draw, `[block, n]`: as often as its unit."""
        return (counts[:, self.unit] for counts in self.counts())

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The sums over each draw's samples `[resamples, columns]` of values `[n, columns]`."""
        by_unit = np.zeros((self.units, values.shape[1]))
        np.add.at(by_unit, self.unit, values)
        return np.concatenate([counts @ by_unit for counts in self.counts()])


def mean_intervals(values: Mapping[str, np.ndarray], drawn: Resampling) -> dict[str, Interval]:
    """The interval of the mean of each column `[n]`, for those with two units or more.

    A sample that does not count in a column is NaN there.
    """
    columns = {name: one for name, one in values.items() if len(np.unique(drawn.unit[~np.isnan(one)])) > 1}
    if not columns:
        return {}
    each = np.stack(list(columns.values()), 1)
    sums, counts = drawn.sums(np.nan_to_num(each)), drawn.sums((~np.isnan(each)).astype(np.float64))
    with np.errstate(invalid="ignore"):
        means = sums / counts
    return {name: ends(one[~np.isnan(one)]) for name, one in zip(columns, means.T, strict=True)}
