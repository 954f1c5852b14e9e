"""Train on synthetic, test on real (Esteban 2017): how good are classifiers that saw only windows of a pipeline?

The classifiers are the baselines on spectra, and the windows that they are tested on those that nothing was trained on.
Beside them stand the same classifiers trained on the real windows that the pipeline was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from savae_dist.evaluation.signals import baselines
from savae_dist.evaluation.signals.by_recording import Windows, measures_of, row
from savae_dist.pipeline.class_names import name_of
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.codes import Source

REAL = "real windows"
MOST = 1000  # windows that are made of a class, at most


@dataclass(frozen=True)
class Made:
    """Normalised windows x `[n, channels, length]` on the CPU, and the classes y `[n]` that were asked for."""

    x: torch.Tensor
    y: np.ndarray


def generated(pipeline: Pipeline, counts: np.ndarray, sampler: Source | None, seed: int) -> Made:
    """Of each class that the pipeline generates as many windows as the largest class has; counts `[classes]`."""
    labels = pipeline.labels if sampler is None else pipeline.codes.labels_of(sampler)
    count = min(int(counts.max()), MOST)
    codes = [pipeline.latents(count, label, seed + label, sampler=sampler) for label in labels]
    x = [pipeline.decoded(each).cpu() for each in codes]
    return Made(torch.cat(x) if x else torch.empty(0, *pipeline.spec.shape), np.repeat(labels, count).astype(int))


def reconstructed(pipeline: Pipeline, windows: Windows) -> torch.Tensor:
    """Each window decoded from the mean of its posterior, on the pipeline's device."""
    codes = pipeline.posterior(windows.x).mean
    return pipeline.decoded(pipeline.completed(codes, torch.from_numpy(windows.y)))


def confirmed(judge: Pipeline, made: Made) -> np.ndarray:
    """Whether the judge puts each window into the class that was asked for, bool `[n]`."""
    if not len(made.x):
        return np.zeros(0, bool)
    known = judge.logits(judge.posterior(made.x.to(judge.device)).mean).argmax(1).cpu().numpy()
    right: np.ndarray = known == made.y
    return right


def confirmed_by_class(judge: Pipeline | None, made: Made, names: Sequence[str]) -> dict[str, float]:
    """The share of the made windows of each class that the judge confirms; nothing without a judge."""
    if judge is None:
        return {}
    right = confirmed(judge, made)
    return {name_of(int(one), names): float(right[made.y == one].mean()) for one in np.unique(made.y)}


def training_sets(
    pipeline: Pipeline, training: Windows, made: Made, judge: Pipeline | None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What the classifiers are trained on, by name: windows `[n, channels, length]` and their classes `[n]`.

    Where the classes differ in size, further sets fill the rarer ones up to the largest: with repeated real windows, as
    the baseline, and with made ones.
    """
    labelled = training.y >= 0
    x, y = training.x.double().numpy()[labelled], training.y[labelled]
    ours = made.x.double().numpy(), made.y
    sets = {REAL: (x, y), "made windows": ours}
    sets["reconstructions of real windows"] = reconstructed(pipeline, training).double().cpu().numpy()[labelled], y
    if judge is not None:
        right = confirmed(judge, made)
        sets["made windows that the judge confirms"] = ours[0][right], ours[1][right]
    counts = np.bincount(y)
    if len(set(counts[counts > 0].tolist())) > 1:
        sets["real, the rare ones repeated"] = filled(x, y, x, y)
        more = {name: one for name, one in sets.items() if name.startswith("made")}
        sets |= {f"real and {name}": filled(x, y, *one) for name, one in more.items()}
    return sets


def filled(x: np.ndarray, y: np.ndarray, more: np.ndarray, y_more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x, y with every class brought to the size of the largest, by the windows of `more` in turn, as often as needed.

    A class that `more` does not have stays as it is.
    """
    counts = np.bincount(y)
    rows = []
    for one in np.flatnonzero(counts):
        own = np.flatnonzero(y_more == one)
        if len(own):
            rows.append(np.resize(own, counts.max() - counts[one]))
    taken = np.concatenate([np.zeros(0, int), *rows])
    return np.concatenate([x, more[taken]]), np.concatenate([y, y_more[taken]])


def trained_on(
    pipeline: Pipeline, tested: Windows, training: Windows, made: Made, judge: Pipeline | None
) -> dict[str, dict[str, Any]]:
    """For each training set and each classifier the measures of `by_recording.row` on the tested windows."""
    real, found = tested.x.double().numpy(), {}
    for name, (x, y) in training_sets(pipeline, training, made, judge).items():
        classified = baselines.classify(x, y, real, pipeline.spec.classes)
        rows = {classifier: row(scores, tested) for classifier, scores in classified.items()}
        found[name] = {"windows": len(x), **{classifier: one for classifier, one in rows.items() if one}}
    return found


def lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The result of `trained_on` as lines of text."""
    told = [f"{'trained on, tested on real windows':40} windows  classifier                       balanced accuracy"]
    told[0] += "     macro AUROC"
    for name, each in found.items():
        for classifier, values in each.items():
            if classifier != "windows":
                measures = measures_of(values)
                start = f"{name:40} {each['windows']:7,}  {classifier:32}"
                told.append(f"{start} {measures[0]:21} {measures[1]}".rstrip())
    return told
