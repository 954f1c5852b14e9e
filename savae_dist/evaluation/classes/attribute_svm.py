"""A linear SVM for each attribute on codes, of one model or several (Hou 2019, section 4.4, table 2)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from savae_dist.evaluation.bootstrap import Interval, Resampling, mean_intervals
from savae_dist.evaluation.classes.attributes import Attributes

TOGETHER = "all views"
CHANCE = "most frequent"


@dataclass(frozen=True)
class Views:
    """Codes of the same samples by several models, name -> `[n, K]`, and the samples' attributes."""

    codes: Mapping[str, np.ndarray]
    attributes: Attributes

    def columns(self) -> dict[str, np.ndarray]:
        """The codes of each, and all of them concatenated where there are several (multi-view)."""
        together = {TOGETHER: np.concatenate(list(self.codes.values()), 1)} if len(self.codes) > 1 else {}
        return {**self.codes, **together}


@dataclass(frozen=True)
class Accuracy:
    """share: of the n tested samples, those whose attribute is predicted rightly."""

    share: float
    interval: Interval | None
    n: int


def attribute_accuracies(seen: Views, tested: Views, drawn: Resampling) -> dict[str, dict[str, Accuracy]]:
    """Attribute -> view -> accuracy on `tested` of an SVM fitted to `seen`; CHANCE: always its more frequent answer.

    drawn: draws of the tested samples.
    """
    found: dict[str, dict[str, Accuracy]] = {}
    for name in seen.attributes:
        truth = tested.attributes.get(name)
        if truth is None or np.isnan(truth).all():
            continue
        own, known = seen.attributes[name], ~np.isnan(truth)
        fitted = own[~np.isnan(own)]
        right = {CHANCE: truth[known] == float(fitted.mean() > 0.5)}
        for view, codes in seen.columns().items():
            told = _svm(codes[~np.isnan(own)], fitted).predict(tested.columns()[view][known])
            right[view] = told == truth[known]
        intervals = mean_intervals(
            {view: one.astype(float) for view, one in right.items()}, Resampling.of(drawn.unit[known], drawn.seed)
        )
        found[name] = {view: Accuracy(float(one.mean()), intervals.get(view), len(one)) for view, one in right.items()}
    return found


def _svm(z: np.ndarray, attribute: np.ndarray) -> LinearSVC:
    """scikit-learn's linear SVM with its default penalty, C = 1, on standardised codes."""
    model = make_pipeline(StandardScaler(), LinearSVC(random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(z, attribute)


def markdown(found: Mapping[str, Mapping[str, Accuracy]], note: str) -> str:
    """The table in Hou's form: a line for each attribute and their average, in %, a column for each view."""
    views: Sequence[str] = list(next(iter(found.values())))
    lines = [f"{note}\n", _line(["attribute", "n", *views]), _line(["---"] * (len(views) + 2))]
    for name, row in found.items():
        cells = [_cell(row[view]) for view in views]
        lines.append(_line([name, f"{row[views[0]].n:,}", *cells]))
    average = [f"**{100 * np.mean([row[view].share for row in found.values()]):.2f}**" for view in views]
    return "\n".join([*lines, _line(["**average**", "", *average])]) + "\n"


def _cell(one: Accuracy) -> str:
    between = "" if one.interval is None else f" [{100 * one.interval[0]:.1f}, {100 * one.interval[1]:.1f}]"
    return f"{100 * one.share:.2f}{between}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
