"""Figures of merit of samples, of the prior and of classes, as an independently trained judge sees them.

Inception is of no use for one channel or a signal, so the features of the Frechet distance are the judge's own: the
last hidden layer of its encoder (128 units, before the latent heads), which is as wide whatever the judge's latent
dimension; its classifier would see a code of two numbers where K = 2. Distances compare only under the same judge and
the same number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from savae_dist.evaluation.metrics import Batches, check_judge, laplacian_variance
from savae_dist.networks import ConvEncoder
from savae_dist.networks.base import inference
from savae_dist.pipeline.pipeline import Pipeline

DRAWN = 2000  # samples of the prior
BATCH = 256


@dataclass(frozen=True)
class Gaussian:
    """Mean `[units]` and covariance `[units, units]` of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Gaussian:
        """The one fitted to features `[n, units]`, n at least 2."""
        features = features.astype(np.float64)
        return cls(features.mean(0), np.atleast_2d(np.cov(features, rowvar=False)))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """||m_a - m_b||^2 + tr(A + B - 2 (A B)^(1/2)) (Dowson and Landau 1982; Heusel 2017).

    The trace of (A B)^(1/2) is that of (A^(1/2) B A^(1/2))^(1/2), which is symmetric: no complex root of a matrix that
    is nearly singular.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ b.covariance @ root).clip(min=0)).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross
    return max(float(distance), 0.0)


@dataclass(frozen=True)
class Judged:
    """What a judge makes of n samples: features `[n, units]` and class probabilities `[n, classes]`, float64."""

    features: np.ndarray
    probabilities: np.ndarray

    @property
    def confidence(self) -> float:
        """Mean probability of the class that the judge decides for."""
        return float(self.probabilities.max(1).mean())

    @property
    def class_balance(self) -> float:
        """Entropy of the mean prediction over that of the uniform: 1 all classes equally, 0 one class only."""
        classes = self.probabilities.shape[1]
        return entropy(self.probabilities.mean(0)) / np.log(classes) if classes > 1 else 1.0

    @property
    def inception_score(self) -> float:
        """exp of the mean KL divergence from the mean prediction (Salimans 2016): 1 to the number of classes."""
        each = np.mean([entropy(row) for row in self.probabilities])
        return float(np.exp(entropy(self.probabilities.mean(0)) - each))


def entropy(probabilities: np.ndarray) -> float:
    """In nats."""
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


def judged(judge: Pipeline, x: Tensor) -> Judged:
    """x normalised `[n, *shape]`; ValueError if the judge's encoder has no such layer."""
    encoder = judge.role("encoder")
    if not isinstance(encoder, ConvEncoder):
        raise ValueError(f"a judge needs a conv_encoder, as SAVAE trains it, not a {encoder.model_type}")
    parts = [part.to(judge.device) for part in x.split(BATCH)]
    with inference(encoder):
        features = [encoder.hidden(encoder.features(part)[1]).cpu() for part in parts]
    probabilities = [judge.logits(judge.posterior(part).mean).softmax(1).cpu() for part in parts]
    return Judged(torch.cat(features).double().numpy(), torch.cat(probabilities).double().numpy())


def measure_samples(
    pipeline: Pipeline, real: Batches, judge: Pipeline | None = None, count: int = DRAWN, seed: int = 0
) -> dict[str, float | None]:
    """Figures of merit of `count` samples of the prior beside all real samples.

    sample_sharpness: Laplacian variance, generated over real. With a judge: judge_confidence, class_balance and
    inception_score of the samples, frechet_distance from the real ones; frechet_floor, the distance of `count` real
    samples from the rest, is what a perfect generator would get (None if there are not 2 `count`). Where classes can be
    asked for, label_frechet_distance is that of `count` samples of the real ones' classes, and label_agreement the
    share of them that the judge takes for what was asked.
    """
    if judge is not None:
        check_judge(judge, pipeline.spec)
    sharpness, features, labels = [], [], []
    for x, y in real:
        sharpness.append(laplacian_variance(x).cpu())
        labels.append(y.cpu())
        if judge is not None:
            features.append(judged(judge, x).features)
    samples = pipeline.decoded(pipeline.latents(count, seed=seed))
    ratio = float(laplacian_variance(samples).mean().cpu() / torch.cat(sharpness).mean())
    values: dict[str, float | None] = {"sample_sharpness": ratio if np.isfinite(ratio) else None}
    if judge is None:
        return values
    ours, theirs, floor = judged(judge, samples), np.concatenate(features), None
    everything = Gaussian.of(theirs)
    if len(theirs) >= 2 * count:
        some = np.random.default_rng(seed).permutation(len(theirs))  # sets may be sorted
        floor = frechet_distance(Gaussian.of(theirs[some[:count]]), Gaussian.of(theirs[some[count:]]))
    return {
        **values,
        "frechet_distance": frechet_distance(Gaussian.of(ours.features), everything),
        "frechet_floor": floor,
        "judge_confidence": ours.confidence,
        "class_balance": ours.class_balance,
        "inception_score": ours.inception_score,
        **measure_classes(pipeline, torch.cat(labels), everything, judge, count, seed),
    }


def measure_classes(
    pipeline: Pipeline, y: Tensor, real: Gaussian, judge: Pipeline, count: int, seed: int
) -> dict[str, float | None]:
    """Of `count` samples whose classes are drawn from the labels y of the real ones; None where none can be asked for.

    A class that cannot be asked for counts as one that the judge does not see.
    """
    y = y[y >= 0]
    drawn = y[torch.randint(len(y), (count,), generator=torch.Generator().manual_seed(seed))] if len(y) else y
    asked = drawn[torch.isin(drawn, torch.tensor(pipeline.labels, dtype=y.dtype))].sort().values
    if len(asked) < 2:  # too few for a distance
        return {"label_frechet_distance": None, "label_agreement": None}
    each = zip(*asked.unique(return_counts=True), strict=True)
    codes = torch.cat([pipeline.latents(int(n), int(label), seed + int(label)) for label, n in each])
    seen = judged(judge, pipeline.decoded(codes))
    return {
        "label_frechet_distance": frechet_distance(Gaussian.of(seen.features), real),
        "label_agreement": float((seen.probabilities.argmax(1) == asked.numpy()).sum() / count),
    }
