"""All numbers of a pipeline on a set, each with its interval, the number of samples it is of, and how it was measured.

What each is stands in the docstrings of `metrics.summarise`, `sample_metrics.measure_samples` and here:

- macro_f1, macro_auroc: of the pipeline's classifier; see `classification`. active_units: see `probes`.
- rfid, rkid: Frechet and kernel distance between the reconstructions of all samples and the samples.
- gfid, gkid: between generated and real samples. gfid_floor: between as many real samples and the other real ones.
- precision, recall, density, coverage: of generated samples; see `neighbours`.
- linear_probe, knn_probe: classes read from codes by what was fitted to training codes; see `probes`. most_frequent:
  the share of the class that is most frequent in training, which needs no code.
- nearest_training: distance of a generated sample from the nearest training sample, root mean square over elements;
  nearest_training_real: that of a real sample, beside it. Generated ones much closer than real ones are copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from savae_dist.data import Reader
from savae_dist.evaluation import metrics, report
from savae_dist.evaluation.bootstrap import LEVEL, RESAMPLES, Interval, Resampling, ends, mean_intervals
from savae_dist.evaluation.classes import classification, probes
from savae_dist.evaluation.features import sample_metrics
from savae_dist.evaluation.features.feature_view import FeatureView
from savae_dist.evaluation.features.frechet import RESAMPLES as FRECHET_RESAMPLES
from savae_dist.evaluation.features.frechet import Moments, frechet_distance, frechet_with_interval
from savae_dist.evaluation.features.kernel_distance import kernel_distance_with_interval
from savae_dist.evaluation.features.neighbours import DENSITY_NEIGHBOURS, Nearest, quality
from savae_dist.evaluation.gathered import FeatureSet, Gathered, codes_of, gather
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.codes import Source
from savae_dist.preprocess import normalise

PROBED = 10_000  # about the most training codes that the probes are fitted to
Unmeasured = float | None


@dataclass
class Measured:
    """Numbers by name, None where one does not apply; n: how many samples a number is of.

    confusion: int `[classes, classes]`, see `classification.confusion`; None without labels or a classifier.
    """

    values: dict[str, Unmeasured] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    n: dict[str, int] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    confusion: np.ndarray | None = None

    def note(self, name: str, value: float, interval: Interval | None, n: int) -> None:
        self.values[name], self.n[name] = value, n
        if interval is not None and np.isfinite(interval).all():
            self.intervals[name] = interval

    def note_means(self, columns: Mapping[str, np.ndarray], drawn: Resampling) -> None:
        """The mean of each column `[n]`, NaN where a sample does not count."""
        intervals = mean_intervals(columns, drawn)
        for name, column in columns.items():
            self.note(name, float(np.nanmean(column)), intervals.get(name), int((~np.isnan(column)).sum()))

    def as_dict(self) -> dict[str, Any]:
        """As it stands in metrics.json."""
        return {**self.values, "intervals": self.intervals, "n": self.n, "protocol": self.protocol}


@dataclass(frozen=True)
class Asked:
    """How much is measured: samples to draw and from what, and what costs another pass over the training set.

    view: in which features sets are compared; None: they are not.
    """

    samples: int = sample_metrics.DRAWN
    sampler: Source | None = None
    view: FeatureView | None = None
    probes: bool = False
    nearest: bool = False
    seed: int = 0


def measure_all(
    pipeline: Pipeline, reader: Reader, training: Reader | None, judge: Pipeline | None, asked: Asked
) -> Measured:
    """All that was asked for and that the networks allow. training: for baselines, probes and nearest samples."""
    if judge is not None:
        metrics.check_judge(judge, pipeline.spec)
    means = metrics.class_means(report.batches(training), pipeline.spec) if training is not None else None
    found = gather(pipeline, reader, means, judge, asked.view, asked.samples)
    drawn, measured = Resampling.of(found.all("unit"), asked.seed), Measured()
    measured.values |= metrics.summarise(found.sums())
    _averages(measured, found, drawn)
    _classes(measured, found, drawn)
    _codes(measured, found, drawn)
    if "decoder" in pipeline.networks:
        of_samples = sample_metrics.measure_samples(
            pipeline, report.batches(reader), judge, asked.samples, asked.seed, asked.sampler
        )
        measured.values |= of_samples
        measured.n |= {name: asked.samples for name, value in of_samples.items() if value is not None}
        _generated(measured, pipeline, found, training, reader, judge, asked)
    if asked.probes and training is not None and "encoder" in pipeline.networks:
        _probes(measured, pipeline, training, found, drawn)
    measured.protocol = told(pipeline, reader, drawn, asked)
    return measured


def told(pipeline: Pipeline, reader: Reader, drawn: Resampling, asked: Asked) -> dict[str, Any]:
    """How it was measured: numbers of two programs can be compared where this is the same."""
    recordings = drawn.units < len(drawn.unit)
    protocol = {
        "reference": f"{reader.shards.describe()}: {len(drawn.unit):,} samples, all that can be read",
        "seed": asked.seed,
        "intervals": f"percentile bootstrap, {LEVEL:.0%}, {RESAMPLES} draws ({FRECHET_RESAMPLES} of Frechet distances) "
        + (f"of {drawn.units:,} recordings" if recordings else "of samples"),
    }
    if "decoder" in pipeline.networks:
        source = asked.sampler or pipeline.codes.usual(None)
        protocol["generated"] = f"{asked.samples:,} draws of the {source}"
    return protocol | (asked.view.told() if asked.view is not None else {})


def _averages(measured: Measured, found: Gathered, drawn: Resampling) -> None:
    """Intervals of the means over samples, and of sharpness, which is a ratio of two of them."""
    columns = found.columns()
    averages = {name: columns[name] for name in metrics.AVERAGES if name in columns}
    intervals = mean_intervals(averages, drawn)
    for name, column in averages.items():
        if (value := measured.values[name]) is not None:
            measured.note(name, value, intervals.get(name), int((~np.isnan(column)).sum()))
    if measured.values["sharpness"] is not None:
        sums = drawn.sums(np.stack([columns[name] for name in metrics.SHARPNESS], 1))
        measured.note("sharpness", measured.values["sharpness"], ends(sums[:, 0] / sums[:, 1]), len(drawn.unit))


def _classes(measured: Measured, found: Gathered, drawn: Resampling) -> None:
    labelled = found.all("label") >= 0
    if "probabilities" not in found.rows or not labelled.any():
        return
    label, probabilities = found.all("label")[labelled], found.all("probabilities")[labelled]
    own, classes = Resampling.of(drawn.unit[labelled], drawn.seed), probabilities.shape[1]
    decided, once = probabilities.argmax(1), np.ones((1, len(label)))
    measured.confusion = classification.confusion(label, decided, classes)
    value = float(np.nanmean(classification.f1(measured.confusion)))
    draws = classification.macro_f1_draws(label, decided, classes, own)
    measured.note("macro_f1", value, ends(draws), len(label))
    area = classification.macro_auroc_draws(probabilities, label, once)[0]
    if np.isfinite(area):
        parts = [classification.macro_auroc_draws(probabilities, label, part) for part in own.weights()]
        drawn_areas = np.concatenate(parts)
        interval = ends(drawn_areas[np.isfinite(drawn_areas)]) if np.isfinite(drawn_areas).any() else None
        measured.note("macro_auroc", float(area), interval, len(label))


def _codes(measured: Measured, found: Gathered, drawn: Resampling) -> None:
    if "z" not in found.rows:
        return
    z = found.all("z")
    sums = np.concatenate([np.ones((len(z), 1)), z, np.square(z)], 1)
    everything, dimensions = sums.sum(0, keepdims=True), z.shape[1]
    each = [
        probes.active_units(part[:, 0], part[:, 1 : dimensions + 1], part[:, dimensions + 1 :])
        for part in (everything, drawn.sums(sums))
    ]
    measured.note("active_units", float(each[0][0]), ends(each[1]), len(z))


def _generated(
    measured: Measured,
    pipeline: Pipeline,
    found: Gathered,
    training: Reader | None,
    reader: Reader,
    judge: Pipeline | None,
    asked: Asked,
) -> None:
    """Distances of reconstructed and generated samples from real ones, and of generated ones from training samples."""
    if asked.view is None and judge is None and not (asked.nearest and training is not None):
        return
    made = pipeline.decoded(pipeline.latents(asked.samples, seed=asked.seed, sampler=asked.sampler))
    if asked.view is not None:
        generated = FeatureSet(asked.samples, seed=asked.seed)
        generated.add(asked.view.features(made), np.arange(len(made)))
        _distances(measured, found, generated, asked)
        # On the judge's features `frechet_distance` is `gfid` under its older name.
        if judge is asked.view.pipeline and "gfid" in measured.intervals:
            measured.intervals["frechet_distance"] = measured.intervals["gfid"]
    if judge is not None:
        weights = np.concatenate([*Resampling.of(np.arange(len(made)), asked.seed).weights()])
        drawn = sample_metrics.judged(judge, made).measures(weights)
        measured.intervals |= {name: ends(one) for name, one in drawn.items()}
    if asked.nearest and training is not None:
        real = normalise(report.first(reader).x, reader.shards.spec)[: asked.samples]
        _nearest(measured, made, real, training, asked.seed)


def _distances(measured: Measured, found: Gathered, generated: FeatureSet, asked: Asked) -> None:
    real, seed = found.real, asked.seed
    for name, ours in (("r", found.ours), ("g", generated)):
        if min(ours.n, real.n) < 2 or ours.moments is None or real.moments is None:
            continue
        measured.note(f"{name}fid", *frechet_with_interval(ours.moments, real.moments, seed), ours.n)
        distance = kernel_distance_with_interval(ours.kept, real.kept, ours.drawn(seed + 1), real.drawn(seed))
        measured.note(f"{name}kid", *distance, len(ours.kept))
    if real.moments is not None and real.n >= 2 * asked.samples:
        measured.note("gfid_floor", _floor(real), None, len(real.kept))
    if min(len(real.kept), generated.n) > DENSITY_NEIGHBOURS:
        values = quality(real.kept, generated.kept)
        of_real = {name: values[name] for name in ("recall", "coverage")}
        measured.note_means(of_real, real.drawn(seed))
        measured.note_means({name: values[name] for name in ("precision", "density")}, generated.drawn(seed))


def _floor(real: FeatureSet) -> float:
    """The distance of the kept samples, a random draw, from all others."""
    kept = Moments(real.kept.shape[1])
    kept.add(real.kept, real.unit)
    assert real.moments is not None
    return frechet_distance(kept.gaussian(), real.moments.without(kept).gaussian())


def _nearest(measured: Measured, made: Tensor, real: Tensor, training: Reader, seed: int) -> None:
    both = {"nearest_training": Nearest(made), "nearest_training_real": Nearest(real)}
    for x, _ in report.batches(training):
        for one in both.values():
            one.pass_by(x)
    for name, one in both.items():
        measured.note_means({name: one.distance.numpy()}, Resampling.of(np.arange(len(one.distance)), seed))


def _probes(measured: Measured, pipeline: Pipeline, training: Reader, found: Gathered, drawn: Resampling) -> None:
    here = codes_of(pipeline, training, PROBED)
    seen = probes.Codes(here.z, here.y)
    tested = probes.Codes(found.all("z"), found.all("label"))
    own = Resampling.of(drawn.unit[tested.y >= 0], drawn.seed)
    measured.note_means(probes.probe(seen, tested), own)
