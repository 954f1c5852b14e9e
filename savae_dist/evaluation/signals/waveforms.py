"""The signals that a decoder makes: do they vary as real ones do, are they copies, and do classifiers learn from them?

Windows are compared by their spectra, since their phases are random. Beside each number stands that of real windows.
How near a reconstruction is to its window stands among the other metrics, see `metrics.summarise`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from savae_dist.evaluation.bootstrap import Resampling, mean_intervals, with_interval
from savae_dist.evaluation.features.neighbours import nearest_distances
from savae_dist.evaluation.metrics import check_judge
from savae_dist.evaluation.signals import synthetic
from savae_dist.evaluation.signals.by_recording import Windows
from savae_dist.evaluation.signals.synthetic import Made
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.codes import Source
from savae_dist.spectra import log_spectrum

MOST = 2000  # at most so many training windows, evenly spread, are compared with all others

Found = dict[str, Any]


def compare(
    pipeline: Pipeline,
    tested: Windows,
    training: Windows,
    judge: Pipeline | None = None,
    sampler: Source | None = None,
    seed: int = 0,
) -> Found:
    """What stands in metrics.json under `decoder`; the windows of `tested` are those that training has never seen."""
    if judge is not None:
        check_judge(judge, pipeline.spec)
    x_hat = synthetic.reconstructed(pipeline, tested)
    made = synthetic.generated(pipeline, np.bincount(training.y[training.y >= 0]), sampler, seed)
    return {
        "windows": len(tested.x),
        "recordings": len(np.unique(tested.recording[tested.recording > 0])),
        "made": len(made.x),
        "seed": seed,
        "spectra": spread_and_copies(tested, training, x_hat, made),
        "trained_on": synthetic.trained_on(pipeline, tested, training, made, judge),
        "yield": synthetic.confirmed_by_class(judge, made, pipeline.spec.class_names),
    }


def spread_and_copies(tested: Windows, training: Windows, x_hat: torch.Tensor, made: Made) -> Found:
    """For each kind of windows: `variance` within a class over that of training windows, and `nearest` in dB.

    variance: of log spectra; reconstructions are compared with the windows that they are of. nearest: the distance to
    the nearest training window; of a training window, to the nearest one of another recording.
    """
    spectra = {
        "made": flat_spectra(made.x),
        "reconstructions": flat_spectra(x_hat),
        "real, never seen": flat_spectra(tested.x),
        "training": flat_spectra(training.x),
    }
    known, own = spectra["training"], training.recording
    some = np.linspace(0, len(known) - 1, min(MOST, len(known))).round().astype(int)
    numbers = own if own.any() else np.arange(1, len(known) + 1)
    within = {
        "made": variance_ratio(spectra["made"], made.y, known, training.y),
        "reconstructions": variance_ratio(spectra["reconstructions"], tested.y, spectra["real, never seen"], tested.y),
        "real, never seen": variance_ratio(spectra["real, never seen"], tested.y, known, training.y),
        "training": 1.0,
    }
    others = {kind: each for kind, each in spectra.items() if kind != "training"}
    distances = {kind: (nearest_distances(each, known), tested.recording) for kind, each in others.items()}
    distances["made"] = distances["made"][0], np.zeros(len(made.x), np.uint64)  # they belong to no recording
    distances["training"] = nearest_distances(known[some], known, numbers[some], numbers), own[some]
    return {kind: {"variance": within[kind], "nearest": measured(*distances[kind])} for kind in spectra}


def flat_spectra(x: torch.Tensor) -> np.ndarray:
    """Log spectra in dB `[n, channels * frequencies]` of windows `[n, channels, length]`."""
    found = log_spectrum(x.double().cpu().numpy())
    return found.reshape(len(found), math.prod(found.shape[1:]))  # -1 fails without windows


def measured(values: np.ndarray, recording: np.ndarray) -> Found:
    """The mean of values `[windows]` without NaN, with its interval over recordings where these have names."""
    known, named = ~np.isnan(values), recording > 0
    intervals = mean_intervals({"mean": values[named]}, Resampling.of(recording[named])) if named.any() else {}
    return {"value": float(values[known].mean()) if known.any() else None, "interval": intervals.get("mean")}


def variance_within(spectra: np.ndarray, y: np.ndarray) -> dict[int, float]:
    """Class -> unbiased variance of spectra `[n, units]` around the class's mean, averaged over units."""
    classes = [int(one) for one in np.unique(y[y >= 0]) if (y == one).sum() > 1]
    return {one: float(spectra[y == one].var(0, ddof=1).mean()) for one in classes}


def variance_ratio(ours: np.ndarray, y: np.ndarray, real: np.ndarray, y_real: np.ndarray) -> float | None:
    """Variance within our classes over that within the real ones, of the classes that both have; None without any."""
    own, other = variance_within(ours, y), variance_within(real, y_real)
    both = sorted(own.keys() & other.keys())
    return sum(own[one] for one in both) / sum(other[one] for one in both) if both else None


def table(found: Mapping[str, Any]) -> str:
    """The result of `compare` as lines of text."""
    tested = f"{found['windows']:,} real windows of {found['recordings']:,} recordings"
    lines = [f"decoder: {found['made']:,} windows made, seed {found['seed']}; {tested}; 95 % over recordings"]
    lines.append(f"{'':40} variance of spectra   nearest training window, dB")
    for kind, each in found["spectra"].items():
        nearest = each["nearest"]
        variance = "-" if each["variance"] is None else f"{each['variance']:.3f}"
        lines.append(f"{kind:40} {variance:21} {with_interval(nearest['value'], nearest['interval'])}")
    if found["yield"]:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in found["yield"].items())
        lines.append(f"made windows that the judge confirms: {shares}")
    return "\n".join([*lines, *synthetic.lines(found["trained_on"])])
