"""The papers' autoencoders under one signature, so that systems can be compared on the same networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from savae_dist.networks.base import Network, Norm
from savae_dist.networks.conv import ConvDecoder, ConvEncoder
from savae_dist.networks.hou import STAGES, HouDecoder, HouEncoder

Backbone = Literal["savae", "hou"]


def autoencoder(
    backbone: Backbone,
    shape: Sequence[int],
    latent_dim: int,
    width: int,
    pools: int,
    norm: Norm,
    output: Literal["sigmoid", "linear"],
) -> dict[str, Network]:
    """`encoder` and `decoder` of Zemouri 2020 (`savae`) or Hou 2019 (four halvings, or more `pools`)."""
    if backbone == "hou":
        stages = max(STAGES, pools)
        return {
            "encoder": HouEncoder(shape, latent_dim, width, stages, norm),
            "decoder": HouDecoder(shape, latent_dim, width, stages, norm, output),
        }
    return {
        "encoder": ConvEncoder(shape, latent_dim, width, pools),
        "decoder": ConvDecoder(shape, latent_dim, width, pools, norm, output),
    }
