"""How unlike what a pipeline was trained on a sample is: several scores, each higher for what is stranger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from savae_dist.networks import Encoder
from savae_dist.networks.base import inference

if TYPE_CHECKING:
    from savae_dist.pipeline.pipeline import Pipeline

Scores = Mapping[str, np.ndarray]  # kind -> [n]


def kinds(pipeline: Pipeline) -> list[str]:
    """The scores that the pipeline's networks allow, in the order of `scores`."""
    if "encoder" not in pipeline.networks:
        return []
    decodes, signal = "decoder" in pipeline.networks, pipeline.spec.kind == "signal"
    return [
        *(["features"] if decodes else []),
        *(["spectrum"] if decodes and signal else []),
        "density",
        *(["critic"] if "critic" in pipeline.networks else []),
    ]


def scores(
    pipeline: Pipeline, x: Tensor, mean: Tensor | None = None, x_hat: Tensor | None = None
) -> dict[str, np.ndarray]:
    """The scores of normalised samples x `[n, *shape]` that the pipeline's networks allow, by kind, float64 `[n]`.

    mean, x_hat: the means `[n, K]` of their posteriors and what is decoded from these, where they are known already.

    - features: squared distance of the time averages of the encoder's stages from those of the reconstruction.
    - spectrum: of signals, the distance of their log spectra from those of the reconstruction, in dB.
    - density: minus the log-density of the code under the mixture of the training codes, or under N(0, I), in nats.
    - critic: minus the critic's score, where the pipeline was saved with one.
    """
    encoder, found = pipeline.role("encoder"), {}
    assert isinstance(encoder, Encoder)
    mean = pipeline.posterior(x).mean if mean is None else mean
    if "decoder" in pipeline.networks:
        x_hat = pipeline.decoded(pipeline.completed(mean)) if x_hat is None else x_hat
        with inference(encoder):
            both = [encoder.stages(one.to(pipeline.dtype)) for one in (x, x_hat)]
        means = ([stage.float().flatten(2).mean(2) for stage in stages] for stages in both)
        gaps = [(f - f_hat).square().mean(1) for f, f_hat in zip(*means, strict=True)]
        found["features"] = torch.stack(gaps).sum(0)
        if pipeline.spec.kind == "signal":
            from savae_dist.spectra import log_spectral_distance, log_spectrum  # here, since it loads scipy's

            real, ours = (log_spectrum(one.double().cpu().numpy()) for one in (x, x_hat))
            found["spectrum"] = torch.from_numpy(log_spectral_distance(real, ours))
    codes = mean.double().cpu()
    normal = 0.5 * codes.square().sum(1)
    found["density"] = normal if pipeline.mixture is None else -pipeline.mixture.log_density(codes.float())
    if "critic" in pipeline.networks:
        critic = pipeline.networks["critic"]
        with inference(critic):
            found["critic"] = -critic(x.to(pipeline.dtype))
    return {kind: values.double().cpu().numpy() for kind, values in found.items()}


def all_scores_of(pipeline: Pipeline, parts: Iterable[Tensor]) -> dict[str, np.ndarray]:
    """The same of normalised samples that come in parts, one part after the other."""
    found = [scores(pipeline, part) for part in parts]
    return {kind: np.concatenate([part[kind] for part in found]) for kind in found[0]}
