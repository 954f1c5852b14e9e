"""Faulty recordings against healthy ones, where the classes of a test set tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from savae_dist.evaluation.bootstrap import ends
from savae_dist.evaluation.classes.classification import aurocs
from savae_dist.evaluation.signals.by_recording import Windows
from savae_dist.evaluation.signals.recordings import draws_by_class
from savae_dist.pipeline.class_names import name_of

UNKNOWN, HEALTHY, FAULTY = -1, 0, 1


def told(windows: Windows, healthy: Windows, order: Sequence[np.ndarray]) -> np.ndarray:
    """What the classes say of each recording, `[recordings]`: `FAULTY` where a window of it is of a class, by name,
    that no healthy window has, else `HEALTHY`, and `UNKNOWN` where all are unlabelled.

    order: the rows of the windows of each recording.
    """
    known = {name_of(one, healthy.class_names) for one in np.unique(healthy.y).tolist() if one >= 0}
    classes = {one: name_of(one, windows.class_names) for one in np.unique(windows.y).tolist() if one >= 0}
    meant = {one: HEALTHY if name in known else FAULTY for one, name in classes.items()}
    each = np.array([meant.get(one, UNKNOWN) for one in windows.y.tolist()])
    return np.array([each[rows].max() for rows in order])


def both(kinds: np.ndarray) -> bool:
    """Whether there are faulty and healthy recordings among these."""
    return {HEALTHY, FAULTY} <= set(kinds.tolist())


def measure(values: np.ndarray, kinds: np.ndarray) -> dict[str, Any]:
    """How well scores `[recordings]` tell faulty recordings from healthy ones: the area under the curve with its
    interval over recordings, and how many there are of each.
    """
    known = kinds != UNKNOWN
    positive = kinds[known] == FAULTY
    drawn = aurocs(values[known], positive, draws_by_class(positive))
    return {
        "auroc": float(roc_auc_score(positive, values[known])),
        "intervals": {"auroc": ends(drawn)},
        "faulty": int(positive.sum()),
        "healthy": int((~positive).sum()),
    }
