"""The same roles from two families of networks, so that systems can be compared on equal terms.

`paper`: those of the system's own paper, in DCGAN's form. `savae`: Zemouri's, as SAVAE has them.
"""

from __future__ import annotations

from typing import Literal

from savae_dist.networks.base import Critic, Decoder, Encoder, Norm
from savae_dist.networks.conv import ConvCritic, ConvDecoder, ConvEncoder
from savae_dist.networks.dcgan import DcganCritic, DcganDecoder, DcganEncoder

Backbone = Literal["paper", "savae"]


def make_encoder(
    backbone: Backbone, shape: tuple[int, ...], latent_dim: int, width: int, norm: Norm, pools: int
) -> Encoder:
    if backbone == "paper":
        return DcganEncoder(shape, latent_dim, width, norm, centred=is_image(shape))
    return ConvEncoder(shape, latent_dim, width, pools)


def make_decoder(
    backbone: Backbone, shape: tuple[int, ...], latent_dim: int, width: int, norm: Norm, pools: int
) -> Decoder:
    output: Literal["sigmoid", "linear"] = "sigmoid" if is_image(shape) else "linear"
    if backbone == "paper":
        return DcganDecoder(shape, latent_dim, width, norm, output)
    return ConvDecoder(shape, latent_dim, width, pools, norm, output)


def make_critic(backbone: Backbone, shape: tuple[int, ...], width: int, norm: Norm, pools: int) -> Critic:
    """Either one has `features(x)`, the activations of its last convolution, and `head` of them, the score."""
    if backbone == "paper":
        return DcganCritic(shape, width, norm, centred=is_image(shape))
    return ConvCritic(shape, width, pools)


def is_image(shape: tuple[int, ...]) -> bool:
    """(channels, height, width), values in [0, 1]; a signal is (channels, length)."""
    return len(shape) == 3
