"""Votes, measures over recordings and their intervals, by hand and beside scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from savae_dist.evaluation.signals import recordings
from savae_dist.evaluation.signals.recordings import Votes, balanced_accuracy, by_machine, intervals, macro_auroc, vote


def test_windows_of_a_recording_vote_with_their_mean_probability():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6], [0.5, 0.5]])
    label, recording = np.array([0, 0, 1, -1, 1]), np.array([7, 7, 7, 7, 3], np.uint64)
    votes = vote(probabilities, label, recording, np.array([1, 1, 1, 1, 2], np.uint64))
    order = np.argsort(votes.probabilities[:, 0])
    np.testing.assert_allclose(votes.probabilities[order], [[0.3, 0.7], [0.5, 0.5], [0.55, 0.45]])
    assert votes.label[order].tolist() == [1, 1, 0]  # two labels in one recording are two units; none is no unit
    assert votes.machine[order].tolist() == [1, 2, 1]
    assert by_machine(votes) == {1: 1.0, 2: 0.0}  # where probabilities are equal the first class counts


def test_measures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 60)
    probabilities = rng.dirichlet(np.ones(3), 60) + 0.3 * np.eye(3)[label]
    probabilities /= probabilities.sum(1, keepdims=True)
    assert balanced_accuracy(probabilities, label) == pytest.approx(
        balanced_accuracy_score(label, probabilities.argmax(1))
    )
    expected = roc_auc_score(label, probabilities, multi_class="ovr", average="macro")
    assert macro_auroc(probabilities, label) == pytest.approx(expected)
    assert macro_auroc(probabilities, np.zeros(60, int)) is None


def test_intervals_are_percentiles_of_the_measures_of_each_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "RESAMPLES", 40)
    rng = np.random.default_rng(3)
    label = np.repeat([0, 2, 1], [5, 3, 4])
    probabilities = rng.dirichlet(np.ones(3), 12).round(1)  # rounded, so that there are ties
    random = np.random.default_rng(0)
    rows = [np.flatnonzero(label == one) for one in range(3)]
    drawn = [np.concatenate([random.choice(row, len(row)) for row in rows]) for _ in range(40)]
    found = intervals(Votes(probabilities, label, np.zeros(12, np.uint64)))
    for name, measure in (("balanced_accuracy", balanced_accuracy), ("macro_auroc", macro_auroc)):
        each = [measure(probabilities[row], label[row]) for row in drawn]
        assert found[name] == pytest.approx(np.percentile(each, [2.5, 97.5]).tolist())


def test_intervals_are_over_recordings_however_many_windows_these_have():
    rng = np.random.default_rng(1)
    label = np.repeat([0, 1], 20)
    right = rng.random(40) < 0.7
    probabilities = np.where((label == right)[:, None], [0.2, 0.8], [0.8, 0.2])
    machine = np.zeros(40, np.uint64)
    few = intervals(Votes(probabilities, label, machine))
    again = vote(np.repeat(probabilities, 50, 0), np.repeat(label, 50), np.repeat(np.arange(40), 50), np.zeros(2000))
    assert intervals(again) == few
    low, high = few["balanced_accuracy"]
    share = balanced_accuracy(probabilities, label)
    half = 1.96 * np.sqrt(share * (1 - share) / 40)  # the binomial of 40 recordings, not of 2,000 windows
    assert (high - low) / 2 == pytest.approx(half, rel=0.25)
    assert low < share < high
