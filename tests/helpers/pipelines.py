"""Small pipelines that nothing was trained on."""

from __future__ import annotations

import torch

from savae_dist.networks import ConvDecoder, ConvEncoder
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec


def untrained(spec: DataSpec, latent_dim: int) -> Pipeline:
    """Encoder and decoder of width 2 for samples of `spec`; the same each time."""
    torch.manual_seed(0)
    output = "sigmoid" if spec.kind == "image" else "linear"
    networks = {
        "encoder": ConvEncoder(spec.shape, latent_dim, width=2),
        "decoder": ConvDecoder(spec.shape, latent_dim, width=2, output=output),
    }
    return Pipeline(networks, spec)
