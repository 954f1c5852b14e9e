"""Baselines on spectra: what they tell apart, and Mahalanobis by hand."""

from __future__ import annotations

import numpy as np
import pytest

from savae_dist.evaluation.signals.baselines import Mahalanobis, chance, classify


def hum(rng: np.random.Generator, frequency: float, n: int) -> np.ndarray:
    phase = rng.uniform(0, 2 * np.pi, (n, 1, 1))
    return np.sin(2 * np.pi * frequency * np.arange(512) + phase) + 0.3 * rng.normal(size=(n, 1, 512))


def test_spectra_tell_hums_apart_whatever_their_phase_and_unlabelled_windows_are_not_used():
    rng = np.random.default_rng(0)
    x = np.concatenate([hum(rng, 0.05, 20), hum(rng, 0.2, 20), hum(rng, 0.2, 10)])
    y = np.repeat([0, 2, -1], [20, 20, 10])
    tested = np.concatenate([hum(rng, 0.05, 8), hum(rng, 0.2, 8)])
    found = classify(x, y, tested, 3)
    assert len(found) == 2
    for probabilities in found.values():
        np.testing.assert_allclose(probabilities.sum(1), 1)
        assert (probabilities.argmax(1) == np.repeat([0, 2], 8)).all()
        assert (probabilities[:, 1] == 0).all()  # no label was given for this class
    assert classify(x[:20], y[:20], tested, 3) == {}
    assert chance(4, 5)["chance"].tolist() == [[0.2] * 5] * 4


def test_mahalanobis_distance_by_hand():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 2)) @ np.array([[2.0, 0.0], [1.0, 0.5]])
    covariance = np.cov(x.T, bias=True)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 2 * np.eye(2)
    point = np.array([[1.0, -1.0]])
    gap = point - x.mean(0)
    expected = (gap @ np.linalg.inv(shrunk) @ gap.T).item()
    assert Mahalanobis(x, np.zeros(4000, int), 1).squared(point).item() == pytest.approx(expected)


def test_one_sample_of_each_class_leaves_euclidean_distances() -> None:
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    nearest = Mahalanobis(x, np.array([0, 2]), 3)
    assert nearest.squared(np.array([[3.0, 0.0]])).tolist() == [[9.0, 16.0]]
    assert nearest.probabilities(x).argmax(1).tolist() == [0, 2]
