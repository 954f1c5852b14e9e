"""Accuracy by recording: the windows of a recording vote, and intervals are drawn over recordings.

Windows of one recording are alike, so neither their number nor their scatter says how sure a result is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from savae_dist.evaluation.bootstrap import RESAMPLES, ends
from savae_dist.evaluation.classes.classification import macro_auroc_draws


@dataclass(frozen=True)
class Votes:
    """Recordings with their classes. probabilities: `[recordings, classes]`; label, machine: `[recordings]`."""

    probabilities: np.ndarray
    label: np.ndarray
    machine: np.ndarray


def vote(probabilities: np.ndarray, label: np.ndarray, recording: np.ndarray, machine: np.ndarray) -> Votes:
    """The mean of the probabilities `[windows, classes]` over the windows of each recording and label, all `[windows]`.

    Windows without a label (-1) are left out.
    """
    labelled = label >= 0
    keys = np.stack([recording[labelled], label[labelled].astype(recording.dtype)], 1)
    _, first, each = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    each = each.reshape(-1)
    sums = np.zeros((len(first), probabilities.shape[1]))
    np.add.at(sums, each, probabilities[labelled])
    return Votes(sums / np.bincount(each)[:, None], label[labelled][first], machine[labelled][first])


def balanced_accuracy(probabilities: np.ndarray, label: np.ndarray) -> float:
    """The mean over the classes that occur of the share that is put into its class."""
    right = probabilities.argmax(1) == label
    return float(np.mean([right[label == one].mean() for one in np.unique(label)]))


def macro_auroc(probabilities: np.ndarray, label: np.ndarray) -> float | None:
    """The mean over classes of the area under the curve of one against all others (Hand and Till 2001, one vs rest).

    None where all samples are of one class.
    """
    present = [one for one in np.unique(label) if 0 < (label == one).sum() < len(label)]
    areas = [roc_auc_score(label == one, probabilities[:, one]) for one in present]
    return float(np.mean(areas)) if areas else None


def intervals(votes: Votes, seed: int = 0) -> dict[str, list[float]]:
    """Percentile bootstrap intervals (Efron 1979) of both measures over recordings drawn with replacement.

    Drawn within each class, so that no class is ever missing. With few recordings the intervals are too narrow.
    """
    rows = [np.flatnonzero(votes.label == one) for one in np.unique(votes.label)]
    counts = draws_by_class(votes.label, seed)
    right = votes.probabilities.argmax(1) == votes.label
    found = {"balanced_accuracy": np.mean([counts[:, row] @ right[row] / len(row) for row in rows], 0)}
    if len(rows) > 1:
        found["macro_auroc"] = macro_auroc_draws(votes.probabilities, votes.label, counts)
    return {name: ends(each) for name, each in found.items()}


def draws_by_class(label: np.ndarray, seed: int = 0) -> np.ndarray:
    """How often each recording is in each draw, `[draws, recordings]`: each class keeps its number of them."""
    random = np.random.default_rng(seed)
    rows = [np.flatnonzero(label == one) for one in np.unique(label)]
    taken = [np.concatenate([random.choice(row, len(row)) for row in rows]) for _ in range(RESAMPLES)]
    return np.stack([np.bincount(each, minlength=len(label)) for each in taken])


def by_machine(votes: Votes) -> dict[int, float]:
    """The share of its recordings that are put into their class, for each machine."""
    right = votes.probabilities.argmax(1) == votes.label
    return {int(one): float(right[votes.machine == one].mean()) for one in np.unique(votes.machine)}
