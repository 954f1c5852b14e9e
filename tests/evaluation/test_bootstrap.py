"""Intervals against normal theory, and draws of whole recordings."""

from __future__ import annotations

import numpy as np
import pytest

from savae_dist.evaluation import bootstrap
from savae_dist.evaluation.bootstrap import Resampling, ends, mean_intervals, scatter


def test_the_interval_of_a_mean_is_that_of_normal_theory() -> None:
    x = np.random.default_rng(0).normal(3, 2, 400)
    low, high = mean_intervals({"x": x}, Resampling.of(np.arange(400)))["x"]
    half = 1.96 * x.std() / 20
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.1 * half)


def test_windows_of_a_recording_are_drawn_together() -> None:
    """Ten equal windows of each of twenty recordings say no more than twenty windows."""
    x = np.random.default_rng(1).normal(size=20)
    once = mean_intervals({"x": x}, Resampling.of(np.arange(20)))["x"]
    tenfold = mean_intervals({"x": np.repeat(x, 10)}, Resampling.of(np.repeat(np.arange(20) + 7, 10)))["x"]
    assert tenfold == pytest.approx(once)


def test_draws_are_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Resampling.of(np.arange(9), seed=3, resamples=50)
    whole = np.concatenate([*drawn.weights()])
    monkeypatch.setattr(bootstrap, "BLOCK", 9 * 7)
    np.testing.assert_array_equal(np.concatenate([*drawn.weights()]), whole)
    assert (whole.sum(1) == 9).all()
    values = np.random.default_rng(0).normal(size=(9, 2))
    np.testing.assert_allclose(drawn.sums(values), whole @ values)


def test_samples_that_do_not_count() -> None:
    x = np.array([1.0, np.nan, 3.0, np.nan, 2.0, 4.0])
    found = mean_intervals({"x": x, "none": np.full(6, np.nan)}, Resampling.of(np.arange(6)))
    assert found.keys() == {"x"}
    assert 1 <= found["x"][0] < 2.5 < found["x"][1] <= 4


def test_scatter_leaves_out_the_bias_of_the_draws() -> None:
    draws = np.random.default_rng(0).normal(size=500)
    low, high = ends(draws - draws.mean())
    assert scatter(7.0, draws + 5) == pytest.approx([7 + low, 7 + high])
