"""Alarms without labels of faults: scores of recordings, a threshold from healthy machines, and lives until failure.

A machine's statistic is its highest score over `in_a_row` recordings one after the other. Healthy machines are scored
with what was fitted to the others alone, and the threshold is a rank among them (conformal prediction, Vovk 2005): a
new healthy machine of the same kind passes it with at most the stated rate, which cannot be below 1 / (machines + 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kurtosis
from sklearn.metrics import roc_auc_score

from savae_dist.evaluation.signals import health
from savae_dist.evaluation.signals.baselines import Mahalanobis
from savae_dist.evaluation.signals.by_recording import Windows
from savae_dist.pipeline.anomaly import all_scores_of
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.spectra import features

COMBINED, MAHALANOBIS = "combined", "Mahalanobis distance on spectra"
INDEX = tuple(health.MEASURES)  # measures of a score as a health index
PART = 0.2  # the first and the last fifth of a life are compared by AUROC

# (rows) -> kind -> scores `[windows]`, by a scorer that is fitted to the healthy windows in `rows`.
Fitted = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Lives:
    """Recordings in the order of their names, machine by machine. order: the windows of each, as index arrays.

    machine: `[recordings]`, numbers of `names`.
    """

    order: list[np.ndarray]
    machine: np.ndarray
    names: list[str]

    @classmethod
    def of(cls, windows: Windows) -> Lives:
        told = windows.told
        names = {int(one): windows.names.get(int(one), str(one)) for one in np.unique(windows.machine)}
        keys = sorted(
            {
                (names[int(m)], told.get(int(r), str(r)), int(m), int(r))
                for m, r in zip(windows.machine, windows.recording)
            }
        )
        machines = sorted(set(names.values()))
        order = [np.flatnonzero((windows.recording == r) & (windows.machine == m)) for *_, m, r in keys]
        return cls(order, np.array([machines.index(name) for name, *_ in keys]), machines)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The mean over the windows of each recording, `[recordings]`."""
        return np.array([values[rows].mean() for rows in self.order])


def in_a_row(values: np.ndarray, count: int) -> np.ndarray:
    """What the last `count` scores `[recordings]` of a machine all reach; -inf before there are so many."""
    if len(values) < count:
        return np.full(len(values), -math.inf)
    least = np.lib.stride_tricks.sliding_window_view(values, count).min(1)
    return np.concatenate([np.full(count - 1, -math.inf), least])


def threshold(highest: np.ndarray, rate: float) -> tuple[float, float]:
    """The score above which there is an alarm, and the rate of false alarms per machine that it stands for.

    highest: the statistic of each healthy machine. A rate that they are too few for becomes the lowest that they allow.
    """
    n = len(highest)
    rank = min(math.ceil((1 - rate) * (n + 1) - 1e-9), n)
    return float(np.sort(highest)[rank - 1]), 1 - rank / (n + 1)


Scales = dict[str, tuple[float, float]]  # kind -> median and interquartile range of healthy windows


def scales(kinds: Mapping[str, np.ndarray], rows: np.ndarray) -> Scales:
    """Median and interquartile range of each kind of score over the healthy windows in `rows`."""
    found = {kind: np.percentile(values[rows], [25, 50, 75]) for kind, values in kinds.items()}
    return {kind: (float(middle), max(float(high - low), 1e-12)) for kind, (low, middle, high) in found.items()}


def combined(kinds: Mapping[str, np.ndarray], healthy: Scales) -> np.ndarray:
    """The mean over the kinds of (score - median) / interquartile range, `[windows]`."""
    each = [(values - healthy[kind][0]) / healthy[kind][1] for kind, values in kinds.items()]
    mean: np.ndarray = np.mean(each, 0)
    return mean


def all_scores(pipeline: Pipeline, windows: Windows, healthy: Windows) -> tuple[Fitted, Fitted]:
    """What scores the healthy windows and the tested ones, given which of the healthy ones count as known.

    The pipeline's scores, their combination, and beside them RMS, kurtosis and Mahalanobis distance on spectra.
    """
    own = [of_pipeline(pipeline, one) for one in (healthy, windows)]
    plain = [one.x.double().numpy() for one in (healthy, windows)]
    spectra = [features(x) for x in plain]

    def fitted(rows: np.ndarray, which: int) -> dict[str, np.ndarray]:
        known = Mahalanobis(spectra[0][rows], np.zeros(len(rows), int), 1)
        return {
            **own[which],
            COMBINED: combined(own[which], scales(own[0], rows)),
            "RMS": np.sqrt(np.square(plain[which]).mean((1, 2))),
            "kurtosis": kurtosis(plain[which], axis=-1).mean(1),
            MAHALANOBIS: known.squared(spectra[which])[:, 0],
        }

    return (lambda rows: fitted(rows, 0)), (lambda rows: fitted(rows, 1))


def of_pipeline(pipeline: Pipeline, windows: Windows) -> dict[str, np.ndarray]:
    """The pipeline's scores of all windows, kind -> `[windows]`."""
    return all_scores_of(pipeline, (part.to(pipeline.device) for part in windows.x.split(pipeline.batch_size)))


def check_machines(healthy: Windows) -> None:
    """ValueError unless one machine can be left out at a time."""
    if len(np.unique(healthy.machine)) < 2:
        raise ValueError("--healthy needs recordings of at least two machines: one is left out at a time")


def healthy_statistics(healthy: Windows, score: Fitted, count: int) -> dict[str, np.ndarray]:
    """The statistic of each healthy machine, scored by what was fitted to the others: kind -> `[machines]`."""
    lives, found = Lives.of(healthy), list[dict[str, float]]()
    names = np.array([lives.names.index(healthy.names.get(int(one), str(one))) for one in healthy.machine])
    for number in range(len(lives.names)):
        mine = lives.machine == number
        own = score(np.flatnonzero(names != number))
        found.append({kind: float(in_a_row(lives.mean(values)[mine], count).max()) for kind, values in own.items()})
    return {kind: np.array([one[kind] for one in found]) for kind in found[0]}


def detect(pipeline: Pipeline, windows: Windows, healthy: Windows, rate: float, count: int) -> dict[str, Any]:
    """Alarms on the machines of `windows`, whose recordings are in the order of time by name, for each kind of score.

    For each kind: threshold, false_alarm_rate (per machine), auroc of the last against the first part of the lives,
    alarms: the life at the first alarm of each machine, from 0 to 1, None without an alarm, and health: how well the
    score, averaged over `count` recordings, serves as an index of health.
    """
    check_machines(healthy)
    of_healthy, of_tested = all_scores(pipeline, windows, healthy)
    highest = healthy_statistics(healthy, of_healthy, count)
    lives, found = Lives.of(windows), {}
    machines = range(len(lives.names))
    for kind, values in of_tested(np.arange(len(healthy.x))).items():
        limit, supported = threshold(highest[kind], rate)
        recorded = lives.mean(values)
        found[kind] = {
            "threshold": limit,
            "false_alarm_rate": supported,
            "auroc": late_against_early(recorded, lives.machine),
            "health": health.measures([health.smoothed(recorded[lives.machine == m], count) for m in machines]),
            "alarms": {
                name: first_alarm(recorded[lives.machine == number], limit, count)
                for number, name in enumerate(lives.names)
            },
        }
    return found


def first_alarm(values: np.ndarray, limit: float, count: int) -> float | None:
    """The part of a life `[recordings]` that is over at the first alarm, None without one."""
    over = np.flatnonzero(in_a_row(values, count) > limit)
    return float((over[0] + 1) / len(values)) if len(over) else None


def late_against_early(values: np.ndarray, machine: np.ndarray) -> float:
    """Area under the curve that tells the last part of each life from its first part, mean over the machines."""
    areas = []
    for one in np.unique(machine):
        mine = values[machine == one]
        part = max(int(PART * len(mine)), 1)
        areas.append(roc_auc_score([0] * part + [1] * part, np.concatenate([mine[:part], mine[-part:]])))
    return float(np.mean(areas))


def table(found: Mapping[str, Any]) -> str:
    """The result of `detect` as lines of text."""
    lines = [f"{'score':34} alarms  in the first half  life at the alarm  AUROC late/early  {'  '.join(INDEX)}"]
    for kind, values in found.items():
        alarms = [at for at in values["alarms"].values() if at is not None]
        early = sum(at <= 0.5 for at in alarms)
        true = [at for at in alarms if at > 0.5]
        at = f"{np.median(true):.3f}" if true else "-"
        lines.append(
            f"{kind:34} {len(alarms):2} of {len(values['alarms']):2} {early:18} {at:>18} {values['auroc']:17.3f}"
            + "".join(f"  {values['health'][name]:{len(name)}.3f}" for name in INDEX if name in values["health"])
        )
    rate = next(iter(found.values()))["false_alarm_rate"]
    lines.append(f"thresholds for false alarms on {rate:.1%} of healthy machines; a lower rate needs more of them")
    return "\n".join(lines)
