"""Alarms without labels of faults: scores of recordings, a threshold from healthy machines, and lives until failure.

A machine's statistic is its highest score over `in_a_row` recordings one after the other, in the order of their names.
Healthy machines are scored with what was fitted to the others alone, and the threshold is a rank among them (conformal
prediction, Vovk 2005): a new healthy machine of the same kind passes it with at most the stated rate, which cannot be
below 1 / (machines + 1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kurtosis
from sklearn.metrics import roc_auc_score

from savae_dist.errors import ConfigError
from savae_dist.evaluation.signals import faults, health
from savae_dist.evaluation.signals.baselines import Mahalanobis
from savae_dist.evaluation.signals.by_recording import Windows
from savae_dist.pipeline.anomaly import all_scores_of
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.spectra import features

COMBINED, MAHALANOBIS = "combined", "Mahalanobis distance on spectra"
ALARMS, ON_FAULTY, ON_HEALTHY = "alarms", "alarms_on_faulty", "alarms_on_healthy"
# Behind the name of a machine that has recordings of both kinds.
END = {ALARMS: "", ON_FAULTY: " (faulty)", ON_HEALTHY: " (healthy)"}
EDGE = 1e-9  # rates written as decimals are rounded
PART = 0.2  # the first and the last fifth of a life are compared by AUROC

# (rows) -> kind -> scores `[windows]`, by a scorer that is fitted to the healthy windows in `rows`.
Fitted = Callable[[np.ndarray], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Lives:
    """Recordings in the order of their names, machine by machine. order: the windows of each, as index arrays.

    In names numbers count as numbers: `day_2` is before `day_10`. machine: `[recordings]`, numbers of `names`.
    """

    order: list[np.ndarray]
    machine: np.ndarray
    names: list[str]

    @classmethod
    def of(cls, windows: Windows) -> Lives:
        names = {int(one): windows.names.get(int(one), str(one)) for one in np.unique(windows.machine)}
        told = {int(one): windows.told.get(int(one), str(one)) for one in np.unique(windows.recording)}
        pairs = {(int(m), int(r)) for m, r in zip(windows.machine, windows.recording)}
        keys = sorted((names[m], in_order(told[r]), told[r], m, r) for m, r in pairs)
        machines = sorted(set(names.values()))
        order = [np.flatnonzero((windows.recording == r) & (windows.machine == m)) for *_, m, r in keys]
        return cls(order, np.array([machines.index(name) for name, *_ in keys]), machines)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The mean over the windows of each recording, `[recordings]`."""
        return np.array([values[rows].mean() for rows in self.order])


def in_order(name: str) -> list[str | int]:
    """A name by which to sort, its numbers as numbers."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split("([0-9]+)", name))]


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
    rank = min(math.ceil((1 - rate) * (n + 1) - EDGE), n)
    return float(np.sort(highest)[rank - 1]), 1 - rank / (n + 1)


def told_rate(machines: int, asked: float, supported: float) -> str:
    """The rate of false alarms in words, and where machines are too few for what was asked for, how many are needed."""
    told = f"threshold for false alarms on {supported:.1%} of healthy machines"
    needed = math.ceil((1 - EDGE) / asked - 1)  # the fewest whose highest rank is not beyond them in `threshold`
    if machines >= needed:
        return told
    lowest, wanted = (f"{100 * rate:.3g} %" for rate in (supported, asked))
    few = f"{machines} healthy machines support no rate below {lowest}"
    return f"{told}\n{few}; for {wanted} at least {needed:,} are needed"


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
            # That of a constant window is 0 / 0, and is taken as 0.
            "kurtosis": np.nan_to_num(kurtosis(plain[which], axis=-1)).mean(1),
            MAHALANOBIS: known.squared(spectra[which])[:, 0],
        }

    return (lambda rows: fitted(rows, 0)), (lambda rows: fitted(rows, 1))


def of_pipeline(pipeline: Pipeline, windows: Windows) -> dict[str, np.ndarray]:
    """The pipeline's scores of all windows, kind -> `[windows]`."""
    return all_scores_of(pipeline, (part.to(pipeline.device) for part in windows.x.split(pipeline.batch_size)))


def check_machines(healthy: Windows) -> int:
    """How many there are; ConfigError unless one machine can be left out at a time."""
    machines = len(np.unique(healthy.machine))
    if machines < 2:
        raise ConfigError("--healthy needs recordings of at least two machines: one is left out at a time")
    return machines


def check_lengths(healthy: Windows, count: int) -> None:
    """ConfigError unless every healthy machine has `count` recordings: a shorter one has no statistic."""
    lives = Lives.of(healthy)
    sizes = np.bincount(lives.machine)
    least = int(sizes.min())
    if least < count:
        has = f"{lives.names[int(sizes.argmin())]} has {least} healthy recording{'s' * (least > 1)}"
        raise ConfigError(f"{has}, fewer than --in-a-row {count}: give --in-a-row {least} or more healthy recordings")


def check_order(windows: Windows) -> None:
    """ConfigError where the names of some recordings, by which they are in order, were not kept."""
    if lost := set(windows.recording[windows.recording > 0].tolist()) - windows.told.keys():
        raise ConfigError(
            f"the names of {len(lost):,} recordings, and so their order, are not known: give fewer machines"
        )


def check_finite(kinds: Mapping[str, np.ndarray]) -> None:
    """ConfigError where a score of a window is no number: no threshold could be set."""
    for kind, values in kinds.items():
        if bad := int((~np.isfinite(values)).sum()):
            raise ConfigError(
                f"the score {kind} is no number on {bad:,} of {len(values):,} windows: take another checkpoint"
            )


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
    """Alarms on the machines of `windows` for each kind of score, with threshold and false_alarm_rate (per machine).

    Where classes tell faulty recordings from healthy ones: alarms_on_faulty and alarms_on_healthy, of the recordings of
    each machine that are one or the other, and faults, see `faults.measure`. Else each machine is taken as a life until
    failure: alarms, auroc, of the last against the first part of the lives, and health: how well the score, averaged
    over `count` recordings, serves as an index of health. Alarms: the part of these recordings that is over at the
    first one, None without one. too_short: which have fewer recordings than `count`, and so no alarms.
    """
    check_machines(healthy)
    check_lengths(healthy, count)
    for one in (windows, healthy):
        check_order(one)
    of_healthy, of_tested = all_scores(pipeline, windows, healthy)
    every = np.arange(len(healthy.x))
    tested = of_tested(every)
    for scored in (of_healthy(every), tested):
        check_finite(scored)
    highest = healthy_statistics(healthy, of_healthy, count)
    lives, found = Lives.of(windows), {}
    told = faults.told(windows, healthy, lives.order)
    groups = series(lives, told)
    short = [f"{name}{END[group]}" for group, each in groups.items() for name, one in each.items() if len(one) < count]
    for kind, values in tested.items():
        limit, supported = threshold(highest[kind], rate)
        mean = lives.mean(values)
        found[kind] = {"threshold": limit, "false_alarm_rate": supported, "too_short": short}
        for group, each in groups.items():
            long = {name: mean[one] for name, one in each.items() if len(one) >= count}
            found[kind][group] = {name: first_alarm(own, limit, count) for name, own in long.items()}
        if ALARMS in groups:
            found[kind]["auroc"] = late_against_early(mean, lives.machine)
            smooth = [health.smoothed(mean[one], count) for one in groups[ALARMS].values()]
            found[kind]["health"] = health.measures(smooth)
        else:
            found[kind]["faults"] = faults.measure(mean, told)
    return found


def series(lives: Lives, told: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """The recordings over which there may be an alarm: group of alarms -> machine -> numbers of recordings in order.

    told: what classes say of each recording, of `faults.told`; machines that have none of a kind are left out.
    """
    kinds = {ON_FAULTY: faults.FAULTY, ON_HEALTHY: faults.HEALTHY}
    chosen = (
        {group: told == kind for group, kind in kinds.items()}
        if faults.both(told)
        else {ALARMS: np.ones(len(told), bool)}
    )
    every: dict[str, dict[str, np.ndarray]] = {group: {} for group in chosen}
    for group, mine in chosen.items():
        for number, name in enumerate(lives.names):
            if len(one := np.flatnonzero(mine & (lives.machine == number))):
                every[group][name] = one
    return every


def first_alarm(values: np.ndarray, limit: float, count: int) -> float | None:
    """The part of a life `[recordings]` that is over at the first alarm, None without one."""
    over = np.flatnonzero(in_a_row(values, count) > limit)
    return float((over[0] + 1) / len(values)) if len(over) else None


def late_against_early(values: np.ndarray, machine: np.ndarray) -> float | None:
    """Area under the curve that tells the last part of each life from its first part, mean over the machines.

    Over those with two recordings or more; None where there is none.
    """
    areas = []
    for mine in (values[machine == one] for one in np.unique(machine)):
        part = max(int(PART * len(mine)), 1)
        if len(mine) > 1:
            areas.append(roc_auc_score([0] * part + [1] * part, np.concatenate([mine[:part], mine[-part:]])))
    return float(np.mean(areas)) if areas else None
