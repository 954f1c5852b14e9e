"""What any result on signals stands beside: classifiers of spectra that know nothing of deep learning, and chance."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from savae_dist.spectra import features

MOST = 20_000  # windows that are fitted to, spread evenly over the set
# The covariance is mixed with so much of a multiple of 1: of fewer windows than a spectrum has bins it has no inverse.
SHRINKAGE = 0.1


class Mahalanobis:
    """Distances to the mean of each class (Mahalanobis 1936), with one covariance of all around their own means."""

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: int) -> None:
        """x: features `[n, units]`, y: their classes `[n]`, of which some may be missing.

        With one sample of each class no spread is known, and the distances are Euclidean.
        """
        self.classes = classes
        self.known = np.unique(y)
        self.means = np.stack([x[y == one].mean(0) for one in self.known])
        rest = x - self.means[np.searchsorted(self.known, y)]
        covariance = rest.T @ rest / len(x)
        scale = np.trace(covariance) / len(covariance)
        covariance = (1 - SHRINKAGE) * covariance + (SHRINKAGE * scale or 1.0) * np.eye(len(covariance))
        self.whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T

    def squared(self, x: np.ndarray) -> np.ndarray:
        """Squared distances of features x `[n, units]` to the class means, `[n, known classes]`."""
        own, means = x @ self.whiten, self.means @ self.whiten
        squared: np.ndarray = np.square(own).sum(1)[:, None] - 2 * own @ means.T + np.square(means).sum(1)
        return np.maximum(squared, 0)

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """Those of equally likely Gaussian classes, `[n, classes]`; zero for a class without a training sample."""
        logits = -0.5 * self.squared(x)
        each = np.exp(logits - logits.max(1, keepdims=True))
        found = np.zeros((len(x), self.classes))
        found[:, self.known] = each / each.sum(1, keepdims=True)
        return found


def classify(x: np.ndarray, y: np.ndarray, tested: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Class probabilities `[m, classes]` of the windows `tested` `[m, channels, length]`, by the name of a baseline.

    x: training windows `[n, channels, length]`; y: their classes, -1 for none; such windows are not used.
    """
    labelled = np.flatnonzero(y >= 0)
    labelled = labelled[np.linspace(0, len(labelled) - 1, min(MOST, len(labelled))).round().astype(int)]
    y = y[labelled]
    if len(np.unique(y)) < 2:
        return {}
    seen, new = features(x[labelled]), features(tested)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(seen, y)
    scores = np.zeros((len(tested), classes))
    scores[:, regression.classes_] = regression.predict_proba(new)
    return {
        "logistic regression on spectra": scores,
        "Mahalanobis distance on spectra": Mahalanobis(seen, y, classes).probabilities(new),
    }


def chance(n: int, classes: int) -> dict[str, np.ndarray]:
    """All classes equally likely for each of n windows."""
    return {"chance": np.full((n, classes), 1 / classes)}
