"""Metrics as rows: intervals and what they stand beside."""

from __future__ import annotations

import pytest
from scipy.stats import norm

from savae_dist.config.metric_names import BASELINES, DIRECTIONS
from savae_dist.pages.metrics import rows, tables, wilson

DATA = {"count": 120, "classes": [[0, "a", 60], [1, "b", 40], [-1, "no label", 20]]}


def test_wilson_is_where_the_score_test_turns() -> None:
    """Closed form: at both ends (share - p)^2 = z^2 p (1 - p) / n."""
    z, n, share = norm.ppf(0.975), 50, 0.9
    ends = wilson(share, n)
    assert ends is not None
    for p in ends:
        assert (share - p) ** 2 == pytest.approx(z**2 * p * (1 - p) / n, rel=1e-4)
    assert wilson(0.0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(0.5, 0) is None


def test_each_metric_stands_beside_its_baseline() -> None:
    values = {"accuracy": 0.9, "reconstruction_mse": 0.02, "class_mean_mse": 0.05, "kl": 3.0, "seed": 7, "steps": {}}
    found = {row.name: row for row in rows(values, DATA)}
    assert list(found) == ["accuracy", "reconstruction_mse", "kl"]  # a baseline has no row of its own
    assert found["reconstruction_mse"].baseline == "0.05: class_mean_mse"
    assert found["accuracy"].baseline == "0.6: always the most frequent class"
    low, high = wilson(0.9, 100) or (0, 0)  # of the labelled ones
    assert found["accuracy"].interval == f"{low:.4g} to {high:.4g}"
    assert (found["accuracy"].count, found["kl"].count) == (100, None)
    assert found["kl"].interval == found["kl"].better == ""


def test_measured_intervals_come_first() -> None:
    found = rows({"accuracy": 0.9, "intervals": {"accuracy": [0.7, 0.95]}, "n": {"accuracy": 99}}, DATA)
    assert [(row.interval, row.count) for row in found] == [("0.7 to 0.95", 99)]


def test_what_compares_several_things_is_a_table() -> None:
    group = {"note": "shared", "ours": {"auroc": 0.9, "intervals": {"auroc": [0.8, 1.0]}}, "chance": {"auroc": 0.5}}
    (found,) = tables({"accuracy": 0.5, "by_recording": group, "intervals": {"accuracy": [0.1, 0.2]}})
    assert (found.title, found.head, found.note) == ("by recording", ["", "auroc"], "shared")
    assert found.rows == [["ours", "0.9 [0.8, 1]"], ["chance", "0.5"]]
    assert [one.title for one in tables({"decoder": {"windows": 9, "trained_on": group}})] == ["decoder: trained on"]


def test_baselines_have_the_direction_of_what_they_stand_beside() -> None:
    assert BASELINES.keys() - DIRECTIONS.keys() == {"nearest_training"}  # the nearer the better it copies
    assert not BASELINES.values() & DIRECTIONS.keys()
