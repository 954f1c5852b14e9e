"""KID against a double loop over pairs, and what is known of equal and of different sets."""

from __future__ import annotations

import numpy as np
import pytest

from savae_dist.evaluation.bootstrap import Resampling
from savae_dist.evaluation.features.kernel_distance import kernel_distance, kernel_distance_with_interval


def by_loops(x: np.ndarray, y: np.ndarray) -> float:
    """Binkowski 2018, equation 4."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return (float(np.dot(a, b)) / len(a) + 1) ** 3

    m, n = len(x), len(y)
    first = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    second = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return first + second - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


def test_against_a_double_loop() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 5)), 0.3 + rng.normal(size=(9, 5))
    assert kernel_distance(x, y) == pytest.approx(by_loops(x, y), rel=1e-12)
    drawn = [Resampling.of(np.arange(len(one)), seed) for seed, one in enumerate((x, y))]
    value, (low, high) = kernel_distance_with_interval(x, y, *drawn)
    assert value == kernel_distance(x, y)
    assert low < high


def test_a_draw_is_the_loop_over_pairs_of_different_samples() -> None:
    """A sample that is drawn twice is no pair with its own copy."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3)), rng.normal(size=(5, 3))
    drawn = [Resampling.of(np.arange(len(one)), seed, resamples=1) for seed, one in enumerate((x, y))]
    _, (low, high) = kernel_distance_with_interval(x, y, *drawn)
    w, v = (next(one.weights())[0] for one in drawn)

    def within(z: np.ndarray, times: np.ndarray) -> float:
        pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
        weight = [times[i] * times[j] for i, j in pairs]
        return np.average([(z[i] @ z[j] / 3 + 1) ** 3 for i, j in pairs], weights=weight)

    between = np.average((x @ y.T / 3 + 1) ** 3, weights=np.outer(w, v))
    assert low == pytest.approx(within(x, w) + within(y, v) - 2 * between)
    assert low == high


def test_it_is_zero_on_average_for_one_distribution_and_not_for_two() -> None:
    rng = np.random.default_rng(2)
    same = [kernel_distance(rng.normal(size=(40, 4)), rng.normal(size=(60, 4))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(200)
    assert np.mean(same) < 0.1 * kernel_distance(rng.normal(size=(400, 4)), 1 + rng.normal(size=(400, 4)))
