"""What a code holds: units that are in use, and classes that a simple classifier reads from it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ACTIVE = 0.01  # variance of a unit's posterior mean over samples, from which it is active (Burda 2016, section 5.2)
NEIGHBOURS = 5
ITERATIONS = 1000


@dataclass(frozen=True)
class Codes:
    """Posterior means z float64 `[n, K]` and labels y int `[n]`, -1 = unlabelled."""

    z: np.ndarray
    y: np.ndarray

    @property
    def labelled(self) -> Codes:
        return Codes(self.z[self.y >= 0], self.y[self.y >= 0])


def active_units(counts: np.ndarray, sums: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """How many units have a variance above ACTIVE, `[draws]`.

    counts: samples in each draw, `[draws]`; sums, squares: of the posterior means and of their squares, `[draws, K]`.
    """
    mean = sums / counts[:, None]
    active: np.ndarray = (squares / counts[:, None] - mean**2 > ACTIVE).sum(1)
    return active


def probe(seen: Codes, tested: Codes) -> dict[str, np.ndarray]:
    """Whether each labelled code of `tested` is put into its class, `[m]`, by two classifiers fitted to `seen`.

    - linear_probe: logistic regression on standardised codes, scikit-learn's with its penalty of C = 1.
    - knn_probe: the majority of the 5 nearest codes of `seen`.
    - most_frequent: the class that is most frequent in `seen`, whatever the code.

    Nothing where `seen` has fewer than two classes, or fewer samples than neighbours.
    """
    seen, tested = seen.labelled, tested.labelled
    if len(np.unique(seen.y)) < 2 or len(seen.y) < NEIGHBOURS or not len(tested.y):
        return {}
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        linear.fit(seen.z, seen.y)
    nearest = KNeighborsClassifier(NEIGHBOURS).fit(seen.z, seen.y)
    models = {"linear_probe": linear, "knn_probe": nearest}
    right = {name: one.predict(tested.z) == tested.y for name, one in models.items()}
    right["most_frequent"] = tested.y == np.bincount(seen.y).argmax()
    return {name: one.astype(np.float64) for name, one in right.items()}
