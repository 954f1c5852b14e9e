"""Active units of codes with known variances, and probes of codes that do and do not tell the class."""

from __future__ import annotations

import numpy as np

from savae_dist.evaluation.classes.probes import Codes, active_units, probe


def test_units_above_the_variance_are_active() -> None:
    z = np.random.default_rng(0).normal(size=(500, 4)) * [1.0, 0.2, 0.05, 0.0] + [3.0, 0.0, 50.0, 7.0]
    weights = np.stack([np.ones(500), np.arange(500) % 3])
    found = active_units(weights.sum(1), weights @ z, weights @ np.square(z))
    expected = [(np.cov(np.repeat(z, w.astype(int), 0), rowvar=False, ddof=0).diagonal() > 0.01).sum() for w in weights]
    assert found.tolist() == expected == [2, 2]


def test_probes_read_what_is_there() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 300)
    told = np.eye(3)[y] + 0.1 * rng.normal(size=(300, 3))
    first, last = slice(200), slice(200, None)
    found = probe(Codes(told[first], y[first]), Codes(told[last], y[last]))
    assert found["linear_probe"].mean() == found["knn_probe"].mean() == 1
    assert found["most_frequent"].mean() == np.mean(y[last] == np.bincount(y[first]).argmax())
    noise = rng.normal(size=(300, 3))
    found = probe(Codes(noise[first], y[first]), Codes(noise[last], y[last]))
    assert max(found["linear_probe"].mean(), found["knn_probe"].mean()) < 0.6


def test_unlabelled_codes_are_left_out_and_one_class_is_no_question() -> None:
    rng = np.random.default_rng(2)
    z, y = rng.normal(size=(40, 2)), rng.integers(0, 2, 40)
    mixed = np.where(np.arange(40) % 2, y, -1)
    assert len(probe(Codes(z, mixed), Codes(z, mixed))["knn_probe"]) == 20
    assert probe(Codes(z, np.zeros(40, int)), Codes(z, y)) == {}
    assert probe(Codes(z, y), Codes(z, np.full(40, -1))) == {}
