"""Confusion, F1 and AUROC against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

from savae_dist.evaluation.bootstrap import Resampling
from savae_dist.evaluation.classes.classification import aurocs, confusion, f1, macro_auroc_draws, macro_f1_draws

RNG = np.random.default_rng(0)
LABEL, DECIDED = RNG.integers(0, 4, 90), RNG.integers(0, 4, 90)


def test_confusion_and_f1_are_those_of_scikit_learn() -> None:
    counts = confusion(LABEL, DECIDED, 5)
    np.testing.assert_array_equal(counts, confusion_matrix(LABEL, DECIDED, labels=range(5)))
    np.testing.assert_allclose(f1(counts)[:4], f1_score(LABEL, DECIDED, average=None))
    assert np.isnan(f1(counts)[4])


def test_areas_are_those_of_scikit_learn_with_weights_and_ties() -> None:
    scores = RNG.integers(0, 12, 90) / 12  # many ties
    weights = RNG.integers(0, 3, (6, 90)).astype(float)
    found = aurocs(scores, LABEL == 1, weights)
    assert found.tolist() == pytest.approx([roc_auc_score(LABEL == 1, scores, sample_weight=row) for row in weights])
    assert np.isnan(aurocs(scores, LABEL == 9, weights)).all()


def test_the_mean_over_classes_in_each_draw() -> None:
    probabilities = RNG.dirichlet(np.ones(5), 90)
    drawn = Resampling.of(np.arange(90), resamples=8)
    rows = [np.repeat(np.arange(90), counts.astype(int)) for counts in next(drawn.weights())]
    areas = macro_auroc_draws(probabilities, LABEL, next(drawn.weights()))
    for row, area, mean in zip(rows, areas, macro_f1_draws(LABEL, DECIDED, 5, drawn), strict=True):
        each = [roc_auc_score(LABEL[row] == one, probabilities[row, one]) for one in range(4)]
        assert area == pytest.approx(np.mean(each))
        assert mean == pytest.approx(f1_score(LABEL[row], DECIDED[row], average="macro"))
    assert np.isnan(macro_auroc_draws(probabilities, np.zeros(90, int), np.ones((1, 90)))).all()
    alone = (LABEL == 2).astype(float)[None]
    assert np.isnan(macro_auroc_draws(probabilities, LABEL, alone)).all()  # a draw that holds one class alone
