"""Precision, recall, density and coverage against loops over spheres; nearest samples against all distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from savae_dist.evaluation.features import neighbours
from savae_dist.evaluation.features.neighbours import Nearest, nearest_distances, quality


def sphere(points: np.ndarray, which: int, k: int) -> float:
    return sorted(float(np.linalg.norm(points[which] - other)) for other in np.delete(points, which, 0))[k - 1]


def holds(points: np.ndarray, k: int, place: np.ndarray) -> list[bool]:
    """Which points' spheres hold the place."""
    return [bool(np.linalg.norm(points[i] - place) <= sphere(points, i, k)) for i in range(len(points))]


def test_against_loops_over_spheres() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(31, 3)), 0.6 + 0.7 * rng.normal(size=(23, 3))
    found = quality(real, made)
    assert found["precision"].tolist() == [float(any(holds(real, 3, one))) for one in made]
    assert found["recall"].tolist() == [float(any(holds(made, 3, one))) for one in real]
    np.testing.assert_allclose(found["density"], [sum(holds(real, 5, one)) / 5 for one in made])
    covered = [any(np.linalg.norm(real[i] - one) <= sphere(real, i, 5) for one in made) for i in range(len(real))]
    assert found["coverage"].tolist() == [float(one) for one in covered]
    assert 0 < found["recall"].mean() < found["precision"].mean() <= 1


def test_far_away_nothing_is_covered_and_copies_cover_everything() -> None:
    x = np.random.default_rng(1).normal(size=(40, 4))
    assert all(values.sum() == 0 for values in quality(x, x + 100).values())
    found = quality(x, x)
    assert all(found[name].mean() == 1 for name in ("precision", "recall", "coverage"))
    # A copy lies in its own sphere and in those of whom it is a neighbour: k + 1 spheres each on average.
    np.testing.assert_allclose(found["density"].mean(), 6 / 5)


def test_the_nearest_of_a_set_that_streams_past() -> None:
    torch.manual_seed(0)
    x, others = torch.rand(5, 1, 4, 3), torch.rand(30, 1, 4, 3)
    others[17] = x[2]
    nearest = Nearest(x)
    for part in others.split(7):
        nearest.pass_by(part)
    expected = (x.double()[:, None] - others.double()).square().mean((2, 3, 4)).sqrt().amin(1)
    torch.testing.assert_close(nearest.distance, expected)
    assert nearest.distance[2] == 0


def test_nearest_distances_by_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "ROWS", 3)
    rng = np.random.default_rng(1)
    known = rng.normal(size=(9, 4))
    some = rng.normal(size=(7, 4))
    expected = [min(np.sqrt(np.mean((a - b) ** 2)) for b in known) for a in some]
    np.testing.assert_allclose(nearest_distances(some, known), expected)
    np.testing.assert_allclose(nearest_distances(known[:1] + 3, known[:1]), 3)  # 3 dB everywhere
    groups = np.repeat([1, 2, 3], 3)
    apart = nearest_distances(known, known, groups, groups)
    own = [min(np.sqrt(np.mean((known[i] - known[j]) ** 2)) for j in range(9) if j // 3 != i // 3) for i in range(9)]
    np.testing.assert_allclose(apart, own)
    assert np.isnan(nearest_distances(known, known, np.ones(9), np.ones(9))).all()
