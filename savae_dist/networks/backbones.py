"""The papers' networks under one signature, so that systems can be compared on the same ones.

`savae`: Zemouri 2020; `hou`: Hou 2019, four halvings or more `pools`; `dcgan`: Radford 2016 in Larsen's form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from savae_dist.networks.base import Critic, Decoder, Encoder, Network
from savae_dist.networks.blocks import Norm, is_image, output_for
from savae_dist.networks.conv import ConvCritic, ConvDecoder, ConvEncoder
from savae_dist.networks.dcgan import DcganCritic, DcganDecoder, DcganEncoder
from savae_dist.networks.hou import STAGES, HouDecoder, HouEncoder

Backbone = Literal["savae", "hou", "dcgan"]
CriticBackbone = Literal["savae", "dcgan"]  # their critics have `features` and a `head`; Hou's critic takes features


def make_encoder(
    backbone: Backbone, shape: Sequence[int], latent_dim: int, width: int, norm: Norm, pools: int
) -> Encoder:
    if backbone == "dcgan":
        return DcganEncoder(shape, latent_dim, width, norm, centred=is_image(shape))
    if backbone == "hou":
        return HouEncoder(shape, latent_dim, width, max(STAGES, pools), norm)
    return ConvEncoder(shape, latent_dim, width, pools)


def make_decoder(
    backbone: Backbone, shape: Sequence[int], latent_dim: int, width: int, norm: Norm, pools: int
) -> Decoder:
    output = output_for(shape)
    if backbone == "dcgan":
        return DcganDecoder(shape, latent_dim, width, norm, output)
    if backbone == "hou":
        return HouDecoder(shape, latent_dim, width, max(STAGES, pools), norm, output)
    return ConvDecoder(shape, latent_dim, width, pools, norm, output)


def make_autoencoder(
    backbone: Backbone, shape: Sequence[int], latent_dim: int, width: int, norm: Norm, pools: int
) -> dict[str, Network]:
    """`encoder` and `decoder`."""
    return {
        "encoder": make_encoder(backbone, shape, latent_dim, width, norm, pools),
        "decoder": make_decoder(backbone, shape, latent_dim, width, norm, pools),
    }


def make_critic(backbone: CriticBackbone, shape: Sequence[int], width: int, norm: Norm, pools: int) -> Critic:
    """Either one has `features(x)`, the activations of its last convolution, and `head` of them, the score."""
    if backbone == "dcgan":
        return DcganCritic(shape, width, norm, centred=is_image(shape))
    return ConvCritic(shape, width, pools)
