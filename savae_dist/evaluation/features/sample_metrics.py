"""Metrics of generated samples, as an independently trained judge sees them.

The features of the Frechet distance are those of the judge, since Inception takes neither grey images nor signals:
the last hidden layer of its encoder, 128 units before the latent heads. That layer has the same width for every latent
dimension; the code itself may have only two numbers. Of a judge with another encoder it is the code. Distances can be
compared only if they were measured by the same judge on the same number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.special
import torch
from torch import Tensor

from savae_dist.evaluation.features.feature_view import FeatureView
from savae_dist.evaluation.features.frechet import Gaussian, frechet_distance
from savae_dist.evaluation.metrics import Batches, check_judge, laplacian_variance
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.codes import Source

DRAWN = 2000  # generated samples


@dataclass(frozen=True)
class Judged:
    """What a judge sees in n samples: features `[n, units]` and class probabilities `[n, classes]`, float64."""

    features: np.ndarray
    probabilities: np.ndarray

    def measures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The three numbers `[draws]`, where weights `[draws, n]` say how often each sample counts.

        - judge_confidence: mean probability of the most probable class.
        - class_balance: entropy of the mean prediction over the largest possible: 1 for equally frequent classes, 0 for
          one only.
        - inception_score: exp of the predictions' mean KL divergence from the mean prediction, from 1 to the number of
          classes (Salimans 2016, with the judge in place of Inception).
        """
        shares, classes = weights / weights.sum(1, keepdims=True), self.probabilities.shape[1]
        mixed = entropy(shares @ self.probabilities)
        return {
            "judge_confidence": shares @ self.probabilities.max(1),
            "class_balance": mixed / np.log(classes) if classes > 1 else np.ones(len(weights)),
            "inception_score": np.exp(mixed - shares @ entropy(self.probabilities)),
        }

    def once(self) -> dict[str, float]:
        """`measures` with each sample counted once."""
        return {name: float(one[0]) for name, one in self.measures(np.ones((1, len(self.probabilities)))).items()}


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of distributions `[n, classes]` in nats, `[n]`."""
    found: np.ndarray = scipy.special.entr(probabilities).sum(1)
    return found


def judged(judge: Pipeline, x: Tensor) -> Judged:
    """The judge's view of normalised samples x `[n, *shape]`."""
    probabilities = judge.logits(judge.posterior(x).mean).softmax(1).cpu()
    return Judged(FeatureView(judge, "the judge", judge.spec).features(x), probabilities.double().numpy())


def measure_samples(
    pipeline: Pipeline,
    real: Batches,
    judge: Pipeline | None = None,
    count: int = DRAWN,
    seed: int = 0,
    sampler: Source | None = None,
) -> dict[str, float | None]:
    """Metrics of `count` decoded draws of the pipeline's sampler, compared with all real samples.

    sampler: another one than that which the pipeline takes by itself.

    - sample_sharpness: Laplacian variance of the generated samples over that of the real ones.

    And with a judge:

    - judge_confidence, class_balance, inception_score: see `Judged.measures`.
    - frechet_distance: between the generated and the real samples.
    - frechet_floor: between `count` real samples and the other real ones, which is what a perfect generator would get;
      None if there are fewer than 2 `count`.
    - prior_frechet_distance: as frechet_distance, of draws of the prior; None where these are draws of it.
    - label_frechet_distance, label_agreement: see `measure_classes`.
    """
    if judge is not None:
        check_judge(judge, pipeline.spec)
        view = FeatureView(judge, "the judge", pipeline.spec)
    sharpness, features, labels = [], [], []
    for x, y in real:
        sharpness.append(laplacian_variance(x).cpu())
        labels.append(y.cpu())
        if judge is not None:
            features.append(view.features(x))
    source = sampler or pipeline.codes.usual(None)
    samples = pipeline.decoded(pipeline.latents(count, seed=seed, sampler=source))
    ratio = float(laplacian_variance(samples).mean().cpu() / torch.cat(sharpness).mean())
    values: dict[str, float | None] = {"sample_sharpness": ratio if np.isfinite(ratio) else None}
    if judge is None:
        return values
    ours, theirs = judged(judge, samples), np.concatenate(features)
    everything = Gaussian.of(theirs)
    return {
        **values,
        "frechet_distance": frechet_distance(Gaussian.of(ours.features), everything),
        "prior_frechet_distance": None if source == "prior" else _of_prior(pipeline, everything, judge, count, seed),
        "frechet_floor": _floor(theirs, count, seed),
        **ours.once(),
        **measure_classes(pipeline, torch.cat(labels), everything, judge, count, seed, sampler),
    }


def _of_prior(pipeline: Pipeline, real: Gaussian, judge: Pipeline, count: int, seed: int) -> float:
    """The distance of `count` decoded draws of the prior from the real samples."""
    samples = pipeline.decoded(pipeline.latents(count, seed=seed, sampler="prior"))
    return frechet_distance(Gaussian.of(judged(judge, samples).features), real)


def _floor(features: np.ndarray, count: int, seed: int) -> float | None:
    """The distance of `count` rows of features `[n, units]` from the others."""
    if len(features) < 2 * count:
        return None
    some = np.random.default_rng(seed).permutation(len(features))  # shuffled, because a set may be sorted by class
    return frechet_distance(Gaussian.of(features[some[:count]]), Gaussian.of(features[some[count:]]))


def measure_classes(
    pipeline: Pipeline,
    y: Tensor,
    real: Gaussian,
    judge: Pipeline,
    count: int,
    seed: int,
    sampler: Source | None = None,
) -> dict[str, float | None]:
    """Metrics of `count` samples that are generated by class, with classes drawn from the labels y of the real ones.

    - label_frechet_distance: between these and the real samples.
    - label_agreement: share whose class is, to the judge, the one that was asked for. A class that the pipeline cannot
      generate counts as not agreeing.

    Both are None if the pipeline, or the sampler asked for, generates no class by name.
    """
    y, known = y[y >= 0], pipeline.labels if sampler is None else pipeline.codes.labels_of(sampler)
    drawn = y[torch.randint(len(y), (count,), generator=torch.Generator().manual_seed(seed))] if len(y) else y
    asked = drawn[torch.isin(drawn, torch.tensor(known, dtype=y.dtype))].sort().values
    if len(asked) < 2:  # one sample has no covariance
        return {"label_frechet_distance": None, "label_agreement": None}
    each = zip(*asked.unique(return_counts=True), strict=True)
    codes = torch.cat([pipeline.latents(int(n), int(label), seed + int(label), sampler=sampler) for label, n in each])
    seen = judged(judge, pipeline.decoded(codes))
    return {
        "label_frechet_distance": frechet_distance(Gaussian.of(seen.features), real),
        "label_agreement": float((seen.probabilities.argmax(1) == asked.numpy()).sum() / count),
    }
