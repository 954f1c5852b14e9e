"""Measures of a health index, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from savae_dist.evaluation.signals import health


def test_an_index_is_smoothed_by_what_came_before() -> None:
    assert health.smoothed(np.array([2.0, 4, 9, 2]), 2).tolist() == [2, 3, 6.5, 5.5]


def test_measures_by_hand() -> None:
    up, mixed = np.array([0.0, 1, 2, 3, 4]), np.array([0.0, 2, 1, 3])
    assert health.monotonicity([up, -up]) == 1
    assert health.monotonicity([up, mixed]) == pytest.approx((1 + 1 / 3) / 2)
    assert health.prognosability([up, up]) == 1
    assert health.prognosability([up, mixed]) == pytest.approx(np.exp(-np.sqrt(0.5) / 3.5))
    assert health.prognosability([0 * up, 0 * up]) == 0  # never leaves its first value
    stretched = np.interp(np.linspace(0, 1, 5), np.linspace(0, 1, 4), mixed)
    assert health.trendability([up, mixed]) == pytest.approx(np.corrcoef(up, stretched)[0, 1])
    assert health.trendability([up, -3 * up[::2]]) == pytest.approx(1)
    assert health.trendability([up, 0 * up]) == 0
    assert health.measures([up]) == {}
    assert health.measures([up, up]) == {"monotonicity": 1, "trendability": pytest.approx(1), "prognosability": 1}
