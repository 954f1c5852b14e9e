"""One pass over a set of samples collects for the metrics: values and codes of each sample, and sums of features."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from savae_dist.data import RECORDING, Reader, recordings
from savae_dist.evaluation import metrics
from savae_dist.evaluation.bootstrap import Resampling
from savae_dist.evaluation.features.feature_view import FeatureView
from savae_dist.evaluation.features.frechet import Moments
from savae_dist.evaluation.report import raw_batches
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import normalise


class FeatureSet:
    """Features that come batch by batch: the moments of all, and at most `most` of them, drawn at random."""

    def __init__(self, most: int, seed: int = 0) -> None:
        self.most, self.random = most, np.random.default_rng(seed)
        self.moments: Moments | None = None
        self.keys, self.unit, self.kept = np.empty(0), np.empty(0, np.int64), np.empty((0, 0))
        self.n = 0

    def add(self, features: np.ndarray, unit: np.ndarray) -> None:
        """Features `[m, units]` of samples of these units `[m]`."""
        if self.moments is None:
            self.moments, self.kept = Moments(features.shape[1]), np.empty((0, features.shape[1]))
        self.moments.add(features, unit)
        self.n += len(features)
        keys = np.concatenate([self.keys, self.random.random(len(features))])
        kept, units = np.concatenate([self.kept, features]), np.concatenate([self.unit, unit])
        least = np.sort(np.argsort(keys)[: self.most])  # the samples with the smallest random keys are a uniform draw
        self.keys, self.kept, self.unit = keys[least], kept[least], units[least]

    def drawn(self, seed: int) -> Resampling:
        """Draws of the kept features' units."""
        return Resampling.of(self.unit, seed)


@dataclass
class Gathered:
    """What is known of n samples, in the order of the set; by name, in pieces of a batch.

    rows: `unit` and `label` int `[n]`, `z` the posterior means `[n, K]`, `probabilities` `[n, classes]`; the last two
    only where the pipeline has the networks.
    values: what `metrics.by_sample` found. real, ours: features of the samples and of their reconstructions.
    """

    real: FeatureSet
    ours: FeatureSet
    rows: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    values: list[metrics.Counted] = field(default_factory=list)

    def all(self, name: str) -> np.ndarray:
        """All rows of that name, empty if there are none."""
        return np.concatenate(self.rows[name]) if name in self.rows else np.empty(0)

    def columns(self) -> dict[str, np.ndarray]:
        """The values by name, float64 `[n]`, NaN where a sample does not count."""
        sizes = [len(unit) for unit in self.rows["unit"]]
        found: dict[str, np.ndarray] = {}
        for start, counted in zip(np.cumsum(sizes) - sizes, self.values, strict=True):
            for name, (values, rows) in counted.items():
                column = found.setdefault(name, np.full(sum(sizes), np.nan))
                column[start + rows.numpy()] = values.numpy()
        return found

    def sums(self) -> metrics.Sums:
        """Those of `metrics.measure`."""
        found = metrics.no_sums()
        for counted in self.values:
            metrics.add_to(found, counted)
        return found


def gather(
    pipeline: Pipeline,
    reader: Reader,
    means: metrics.ClassMeans | None = None,
    judge: Pipeline | None = None,
    view: FeatureView | None = None,
    most: int = 2000,
) -> Gathered:
    """One pass over all samples. view: None: no features; most: of how many they are kept."""
    found = Gathered(FeatureSet(most, seed=0), FeatureSet(most, seed=1))
    for raw in raw_batches(reader):
        seen = metrics.Seen.by(pipeline, normalise(raw.x, reader.shards.spec), raw.y)
        unit = units_of(reader, raw.id.numpy())
        found.values.append(metrics.by_sample(pipeline, seen, means, judge))
        rows = {"unit": unit, "label": raw.y.numpy()}
        if seen.posterior is not None:
            rows["z"] = seen.posterior.mean.double().cpu().numpy()
            if "classifier" in pipeline.networks:
                rows["probabilities"] = pipeline.logits(seen.posterior.mean).softmax(1).double().cpu().numpy()
        for name, values in rows.items():
            found.rows[name].append(values)
        if view is not None:
            found.real.add(view.features(seen.x), unit)
            if seen.x_hat is not None:
                found.ours.add(view.features(seen.x_hat), unit)
    return found


def units_of(reader: Reader, ids: np.ndarray) -> np.ndarray:
    """The bootstrap unit of the samples of these ids, int64 `[n]`: a window's recording, else the sample itself."""
    if reader.shards.spec.kind == "signal" and len(own := recordings(reader.shards, RECORDING)):
        return (own.rows(ids) >> np.uint64(1)).astype(np.int64)  # 64-bit hashes lose a bit, so that none is negative
    return ids.astype(np.int64)


@dataclass(frozen=True)
class CodesOfSet:
    """Of m samples that lie evenly over a set: posterior means z float64 `[m, K]`, labels and ids int64 `[m]`."""

    z: np.ndarray
    y: np.ndarray
    id: np.ndarray


def codes_of(pipeline: Pipeline, reader: Reader, most: int) -> CodesOfSet:
    """About `most` samples, or all where there are fewer; evenly, because a set may be sorted by class."""
    every = max(1, reader.shards.size // most)
    z, y, ids = [], [], []
    for raw in raw_batches(reader):
        taken = raw.id % every == 0
        z.append(pipeline.posterior(normalise(raw.x[taken], reader.shards.spec)).mean.double().cpu().numpy())
        y.append(raw.y[taken].numpy())
        ids.append(raw.id[taken].numpy())
    return CodesOfSet(*(np.concatenate(each) for each in (z, y, ids)))
