"""Moments that stream and add up, their Gaussian, and what stands in an interval."""

from __future__ import annotations

import numpy as np
import pytest

from savae_dist.evaluation.features.frechet import PARTS, Gaussian, Moments, frechet_distance, frechet_with_interval


def moments(x: np.ndarray, batch: int, unit: np.ndarray | None = None) -> Moments:
    found, unit = Moments(x.shape[1]), np.arange(len(x)) if unit is None else unit
    for start in range(0, len(x), batch):
        found.add(x[start : start + batch], unit[start : start + batch])
    return found


def test_the_fit_to_a_stream_is_that_to_the_whole() -> None:
    x = 20 + np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    for batch in (1, 64, 300):
        found, expected = moments(x, batch).gaussian(), Gaussian.of(x)
        np.testing.assert_allclose(found.mean, expected.mean)
        np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-6, atol=1e-9)


def test_what_is_taken_away_is_not_there() -> None:
    x = np.random.default_rng(1).normal(size=(200, 3))
    some = np.arange(200) % 3 == 1
    part = Moments(3)
    part.add(x[some], np.flatnonzero(some))
    found, expected = moments(x, 50).without(part).gaussian(), Gaussian.of(x[~some])
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9)


def test_a_draw_repeats_whole_parts() -> None:
    x = np.random.default_rng(2).normal(size=(100, 2))
    times = np.random.default_rng(3).integers(0, 3, PARTS).astype(float)
    repeated = np.repeat(x, times[np.arange(100) % PARTS].astype(int), 0)
    found, expected = moments(x, 32).gaussian(times), Gaussian.of(repeated)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9)


def test_the_interval_is_as_wide_as_the_distance_scatters() -> None:
    """Over new sets of the same size; one that is twice too wide or too narrow fails."""
    rng = np.random.default_rng(4)
    sets = [(rng.normal(size=(400, 3)), 0.5 + rng.normal(size=(300, 3))) for _ in range(120)]
    values = [frechet_distance(Gaussian.of(a), Gaussian.of(b)) for a, b in sets]
    value, (low, high) = frechet_with_interval(moments(sets[0][0], 400), moments(sets[0][1], 300))
    assert value == pytest.approx(values[0])
    assert low < value < high
    width = np.subtract(*np.percentile(values, (97.5, 2.5)))
    assert width / 1.6 < high - low < 1.6 * width
