"""Metrics of a trained pipeline's codes and reconstructions.

They are kept as float64 sums and counts, since those of several batches or ranks can be added. Batches are pairs
(x, y): x normalised float `[n, *shape]`, y int64 `[n]` with -1 for unlabelled. A reconstruction is the decoded
posterior mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from savae_dist.evaluation.similarity import psnr, ssim
from savae_dist.latents import Posterior
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.spectra import audible, envelope_spectrum, log_spectral_distance, log_spectrum, relative_distance

Batches = Iterable[tuple[Tensor, Tensor]]
Sums = dict[str, float]
Counted = dict[str, tuple[Tensor, Tensor]]  # name -> values of the samples that count, and which those are, both `[m]`

AVERAGES = (
    "accuracy",
    "cluster_error",
    "reconstruction_mse",
    "class_mean_mse",
    "psnr",
    "ssim",
    "class_flip_rate",
    "judge_flip_rate",
    "kl",
    "log_spectral_distance",
    "class_mean_log_spectral_distance",
    "envelope_spectral_distance",
    "class_mean_envelope_spectral_distance",
)
SHARPNESS = ("laplacian_variance", "laplacian_variance_real")


def no_sums() -> Sums:
    """Zeros under every key: ranks add their sums as one vector, so all have the same keys in the same order."""
    return {f"{name}.{part}": 0.0 for name in AVERAGES + SHARPNESS for part in ("sum", "count")}


def add(total: Sums, more: Sums) -> Sums:
    """The sums over both."""
    return {key: value + more[key] for key, value in total.items()}


@dataclass(frozen=True)
class ClassMeans:
    """The mean sample of each class: a reconstruction is worth something if it is closer to its sample than that.

    sums: float64 tensors that add up over batches and ranks: `count` `[classes]`, `sample` `[classes, *shape]`, and
    for signals `log_spectrum` and `envelope_spectrum` `[classes, channels, frequencies]`.
    """

    sums: dict[str, Tensor]

    def known(self, y: Tensor) -> Tensor:
        """Whether a label has a mean, bool `[n]`; unlabelled samples have none."""
        count = torch.cat([self.sums["count"], torch.zeros(1)])  # the index -1, for unlabelled, finds the zero
        return count[y] > 0

    def of(self, name: str, y: Tensor) -> Tensor:
        """The class means `[n, ...]` of labels y `[n]`, all of them known."""
        count = self.sums["count"][y]
        return self.sums[name][y] / count.view(-1, *[1] * (self.sums[name].ndim - 1))


def class_means(batches: Batches, spec: DataSpec) -> ClassMeans:
    """The class means over the labelled samples of some batches: those of the training set, for a fair baseline."""
    sums = {"count": torch.zeros(spec.classes, dtype=torch.float64)}
    for x, y in batches:
        labelled = y.cpu() >= 0
        label = y.cpu()[labelled]
        values = {"sample": x.cpu()[labelled].double()}
        if spec.kind == "signal":
            windows = values["sample"].numpy()
            values["log_spectrum"] = torch.from_numpy(log_spectrum(windows))
            values["envelope_spectrum"] = torch.from_numpy(envelope_spectrum(windows))
        sums["count"] += torch.bincount(label, minlength=spec.classes)
        for name, value in values.items():
            empty = torch.zeros(spec.classes, *value.shape[1:], dtype=torch.float64)
            sums[name] = sums.get(name, empty).index_add(0, label, value)
    return ClassMeans(sums)


@dataclass(frozen=True)
class Seen:
    """Samples x `[n, *shape]` with labels y `[n]`, as a pipeline sees them.

    posterior: None without an encoder; x_hat `[n, *shape]`, the decoded posterior means: None without a decoder too.
    """

    x: Tensor
    y: Tensor
    posterior: Posterior | None
    x_hat: Tensor | None

    @classmethod
    def by(cls, pipeline: Pipeline, x: Tensor, y: Tensor) -> Seen:
        x, y = x.to(pipeline.device), y.to(pipeline.device)
        posterior = pipeline.posterior(x) if "encoder" in pipeline.networks else None
        decoded = posterior is not None and "decoder" in pipeline.networks
        x_hat = pipeline.decoded(pipeline.completed(posterior.mean, y)) if decoded and posterior is not None else None
        return cls(x, y, posterior, x_hat)


def measure(
    pipeline: Pipeline, batches: Batches, class_means: ClassMeans | None = None, judge: Pipeline | None = None
) -> Sums:
    """The sums over these batches; those that need a network which the pipeline does not have stay zero.

    judge: another pipeline, trained independently, with encoder and classifier and the same normalisation; ValueError
    if it does not fit.
    """
    if judge is not None:
        check_judge(judge, pipeline.spec)
    sums = no_sums()
    for x, y in batches:
        add_to(sums, by_sample(pipeline, Seen.by(pipeline, x, y), class_means, judge))
    return sums


def add_to(sums: Sums, counted: Counted) -> None:
    """The values of some samples into the sums."""
    for name, (values, _) in counted.items():
        sums[f"{name}.sum"] += values.sum().item()
        sums[f"{name}.count"] += len(values)


def summarise(sums: Sums) -> dict[str, float | None]:
    """The metrics, None where nothing was counted.

    - accuracy: share of the labelled samples whose class is right.
    - cluster_error: 1 - accuracy, where clusters were given their classes afterwards (see `name_clusters`).
    - reconstruction_mse, class_mean_mse: mean square error per element, of the reconstruction and of the class mean.
    - psnr, in dB, and ssim of the reconstructions of images: see `similarity`.
    - class_flip_rate: share of samples that the pipeline's own encoder and classifier put into another class once they
      are reconstructed; judge_flip_rate: the same by the judge's encoder and classifier.
    - kl: divergence of the posterior from the prior in nats, summed over latent dimensions.
    - sharpness: Laplacian variance of reconstructions over that of samples; 1 is as sharp, less is blurred.
    - log_spectral_distance: in dB. envelope_spectral_distance: relative to the sample's own envelope spectrum. The
      same with `class_mean_` before: between the sample and the mean spectrum of its class.
    """
    averages: dict[str, float | None] = {}
    for name in AVERAGES:
        count = sums[f"{name}.count"]
        averages[name] = sums[f"{name}.sum"] / count if count else None
    ours, real = (sums[f"{name}.sum"] for name in SHARPNESS)
    return {**averages, "sharpness": ours / real if real else None}


def check_judge(judge: Pipeline, spec: DataSpec) -> None:
    """ValueError unless the judge takes samples of this shape and normalisation and knows the same classes."""
    for role in ("encoder", "classifier"):
        judge.role(role)
    if renamed := spec.renamed(judge.spec):
        number, here, there = renamed
        raise ValueError(f"class {number} is {here!r}, and {there!r} to the judge: train it on sets that agree")
    theirs = replace(judge.spec, classes=spec.classes, class_names=spec.class_names, rate=spec.rate)
    if theirs != spec:
        raise ValueError(
            f"the judge takes {theirs.shape} normalised by {theirs.normalise}, not {spec.shape} by {spec.normalise} "
            "(or with other statistics): train a judge on the same shards"
        )


def laplacian_variance(x: Tensor) -> Tensor:
    """How sharp each sample is `[n]`: the variance of its Laplacian over space, averaged over channels.

    x: `[n, channels, height, width]`, or `[n, channels, length]` whose Laplacian is the second difference. Each
    position is compared with its 4 (or 2) neighbours; borders are left out (Pech-Pacheco 2000).
    """
    if x.ndim == 3:
        laplacian = x[..., 2:] + x[..., :-2] - 2 * x[..., 1:-1]
    else:
        vertical = x[..., 2:, 1:-1] + x[..., :-2, 1:-1]
        horizontal = x[..., 1:-1, 2:] + x[..., 1:-1, :-2]
        laplacian = vertical + horizontal - 4 * x[..., 1:-1, 1:-1]
    return laplacian.flatten(2).var(2, correction=0).mean(1)


def by_sample(
    pipeline: Pipeline, seen: Seen, means: ClassMeans | None = None, judge: Pipeline | None = None
) -> Counted:
    """The values, float64 `[m]`, of which the metrics are the means, and to which samples they belong, int64 `[m]`."""
    found, x, y = Counted(), seen.x, seen.y
    if seen.posterior is not None:
        _of_codes(found, pipeline, seen.posterior, y)
    if seen.x_hat is not None:
        _of_reconstructions(found, x, seen.x_hat)
        _flips(found, pipeline, judge, seen)
        if pipeline.spec.kind == "signal":
            _spectral_distances(found, x, seen.x_hat, y, means)
    if means is not None:
        known = means.known(y.cpu())
        error = x.cpu().double()[known] - means.of("sample", y.cpu()[known])
        _count(found, "class_mean_mse", error.square().flatten(1).mean(1), known)
    return found


def _of_codes(found: Counted, pipeline: Pipeline, posterior: Posterior, y: Tensor) -> None:
    """Everything that is measured from the samples' codes alone."""
    if not posterior.log_variance.isneginf().all():  # the KL term of a deterministic encoder is infinite
        _count(found, "kl", posterior.kl().sum(1))
    if "classifier" in pipeline.networks:
        labelled = y >= 0
        right = _decision(pipeline, posterior.mean)[labelled] == y[labelled]
        _count(found, "accuracy", right, labelled)
        if pipeline.has_clusters:
            _count(found, "cluster_error", ~right, labelled)


def _of_reconstructions(found: Counted, x: Tensor, x_hat: Tensor) -> None:
    _count(found, "reconstruction_mse", (x_hat - x).square().flatten(1).mean(1))
    _count(found, "laplacian_variance", laplacian_variance(x_hat))
    _count(found, "laplacian_variance_real", laplacian_variance(x))
    if x.ndim == 4:
        _count(found, "psnr", psnr(x, x_hat))
        _count(found, "ssim", ssim(x, x_hat))


def _count(found: Counted, name: str, values: Tensor | np.ndarray, counts: Tensor | None = None) -> None:
    """Note the values, one per sample; counts: bool `[n]`, which samples they are of where it is not all."""
    values = torch.as_tensor(values).double().cpu()
    rows = torch.arange(len(values)) if counts is None else counts.cpu().nonzero().squeeze(1)
    found[name] = (values, rows)


def _decision(pipeline: Pipeline, z: Tensor) -> Tensor:
    """The class that the pipeline's classifier puts each code into, `[n]`."""
    return pipeline.logits(z).argmax(1)


def _flips(found: Counted, pipeline: Pipeline, judge: Pipeline | None, seen: Seen) -> None:
    """Which samples change class when they are reconstructed, as each classifier sees it."""
    assert seen.posterior is not None
    assert seen.x_hat is not None
    judged = {"judge_flip_rate": (judge, judge.posterior(seen.x).mean)} if judge is not None else {}
    if "classifier" in pipeline.networks:
        judged["class_flip_rate"] = (pipeline, seen.posterior.mean)
    for name, (one, before) in judged.items():
        after = one.posterior(seen.x_hat).mean
        _count(found, name, _decision(one, before) != _decision(one, after))


def _spectral_distances(found: Counted, x: Tensor, x_hat: Tensor, y: Tensor, means: ClassMeans | None) -> None:
    """Compare the spectra of signals with those of their reconstructions, and with their class's mean spectra.

    Spectra, since two signals of the same class differ in phase, so that their waveforms may differ everywhere.
    """
    real, ours = x.double().cpu().numpy(), x_hat.double().cpu().numpy()
    spectra = (
        ("log_spectrum", log_spectrum, "log_spectral_distance", log_spectral_distance),
        ("envelope_spectrum", envelope_spectrum, "envelope_spectral_distance", relative_distance),
    )
    for kind, spectrum, name, distance in spectra:
        spectrum_real = spectrum(real)
        everything = torch.ones(len(x), dtype=torch.bool)
        heard = torch.from_numpy(audible(spectrum_real)) if distance is relative_distance else everything
        _count(found, name, distance(spectrum_real, spectrum(ours)), heard)
        if means is not None:
            known = means.known(y.cpu())
            baseline = means.of(kind, y.cpu()[known]).numpy()
            _count(found, f"class_mean_{name}", distance(spectrum_real[known.numpy()], baseline), heard & known)
