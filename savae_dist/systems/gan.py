"""Generative adversarial networks without an encoder: DCGAN (Radford 2016), WGAN (Arjovsky 2017), LSGAN (Mao 2017).

A critic tells samples from generated ones, and the decoder (the papers' generator) learns from it alone. Networks and
the order of the updates are the same for the three; each class below holds what its paper adds: losses, optimisers,
critic steps. The prior is N(0, I) throughout (Radford's is uniform).

The critic is called on samples and on generated ones apart: its batch norm normalises each kind by itself, as it does
in the decoder's step, where there are generated ones alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Protocol

import torch.nn.functional as F
from torch import Tensor

from savae_dist.networks import CriticBackbone, Network, make_critic, make_decoder
from savae_dist.networks.blocks import Norm
from savae_dist.preprocess import DataSpec
from savae_dist.systems import losses
from savae_dist.systems.fit import check_slopes
from savae_dist.systems.phases import Batch, Phase, Recalibration, Update, check_numbers

Terms = dict[str, Tensor]
PIPELINE = ("decoder",)


DCGAN_CITATION = """@inproceedings{radford2016unsupervised,
  title     = {Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks},
  author    = {Radford, Alec and Metz, Luke and Chintala, Soumith},
  booktitle = {International Conference on Learning Representations},
  year      = {2016}
}"""


@dataclass(frozen=True)
class DCGAN:
    """Radford 2016: the discriminator is a probability, the generator's loss the non-saturating one."""

    summary: ClassVar[str] = "a GAN of strided convolutions; without an encoder it neither reconstructs nor encodes"
    paper: ClassVar[str] = "Radford 2016"
    citation: ClassVar[str] = DCGAN_CITATION

    name: Literal["dcgan"] = "dcgan"
    latent_dim: int = 100
    steps: int = 10_000
    critic_steps: int = 1
    r1_weight: float = 0.0  # weight of R1, the critic's squared slope at real samples (Mescheder 2018)
    backbone: CriticBackbone = "dcgan"
    pipeline = PIPELINE

    def __post_init__(self) -> None:
        check_numbers(self, ("latent_dim", "steps", "critic_steps"), ("r1_weight",))

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        return build_networks(self, spec, width, norm, pools)

    def phases(self) -> tuple[Phase, ...]:
        return gan_phases(self, {"lr": 2e-4, "betas": (0.5, 0.999)})

    def chance(self) -> dict[str, float]:
        return losses.chance_loss("non_saturating")

    def critic_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """-E log D(x) - E log(1 - D(G(z)))."""
        return {
            "real": F.softplus(-nets.critic(batch.x)).mean(),
            "generated": F.softplus(nets.critic(generated(nets, batch))).mean(),
        } | r1(self, nets, batch)

    def generator_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """-E log D(G(z))."""
        return {"adv": F.softplus(-nets.critic(generated(nets, batch))).mean()}


WGAN_CITATION = """@inproceedings{arjovsky2017wasserstein,
  title     = {Wasserstein Generative Adversarial Networks},
  author    = {Arjovsky, Martin and Chintala, Soumith and Bottou, L{\\'e}on},
  booktitle = {International Conference on Machine Learning},
  year      = {2017}
}"""


@dataclass(frozen=True)
class WGAN:
    """Arjovsky 2017, Algorithm 1: a score with clipped weights, n_critic steps of it per step of the generator.

    The paper's RMSprop is Adam without momentum (the same but for Adam's bias correction over the first steps), since
    only optimisers that torch has fused can leave a step out on the device.
    """

    summary: ClassVar[str] = "the same with the Wasserstein distance"
    paper: ClassVar[str] = "Arjovsky 2017"
    citation: ClassVar[str] = WGAN_CITATION

    name: Literal["wgan"] = "wgan"
    latent_dim: int = 100
    steps: int = 10_000
    critic_steps: int = 5  # n_critic
    r1_weight: float = 0.0  # weight of R1, the critic's squared slope at real samples (Mescheder 2018)
    backbone: CriticBackbone = "dcgan"
    pipeline = PIPELINE

    def __post_init__(self) -> None:
        check_numbers(self, ("latent_dim", "steps", "critic_steps"), ("r1_weight",))

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        return build_networks(self, spec, width, norm, pools)

    def phases(self) -> tuple[Phase, ...]:
        return gan_phases(self, {"lr": 5e-5, "betas": (0.0, 0.99)}, {"clip_weights": 0.01})

    def chance(self) -> dict[str, float]:
        return losses.chance_loss("wasserstein")

    def critic_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """-E f(x) + E f(g(z)), the negative of an estimate of the Wasserstein distance (eq 3)."""
        terms = {"real": -nets.critic(batch.x).mean(), "generated": nets.critic(generated(nets, batch)).mean()}
        return terms | r1(self, nets, batch)

    def generator_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """-E f(g(z))."""
        return {"adv": -nets.critic(generated(nets, batch)).mean()}


LSGAN_CITATION = """@inproceedings{mao2017least,
  title     = {Least Squares Generative Adversarial Networks},
  author    = {Mao, Xudong and Li, Qing and Xie, Haoran and Lau, Raymond Y.K. and Wang, Zhen and Smolley, Stephen Paul},
  booktitle = {International Conference on Computer Vision},
  year      = {2017}
}"""


@dataclass(frozen=True)
class LSGAN:
    """Mao 2017: least squares to labels; (a, b, c) of generated samples, real ones, and what the generator aims at.

    (0, 1, 1) is the paper's eq 9; (-1, 1, 0) its eq 8, under which the generator minimises the Pearson chi2 divergence.
    """

    summary: ClassVar[str] = "the same with least squares"
    paper: ClassVar[str] = "Mao 2017"
    citation: ClassVar[str] = LSGAN_CITATION

    name: Literal["lsgan"] = "lsgan"
    latent_dim: int = 100
    steps: int = 10_000
    critic_steps: int = 1
    r1_weight: float = 0.0  # weight of R1, the critic's squared slope at real samples (Mescheder 2018)
    labels: tuple[float, float, float] = (0.0, 1.0, 1.0)
    backbone: CriticBackbone = "dcgan"
    pipeline = PIPELINE

    def __post_init__(self) -> None:
        check_numbers(self, ("latent_dim", "steps", "critic_steps"), ("r1_weight",))
        if len(self.labels) != 3 or self.labels[0] in self.labels[1:]:
            raise ValueError(
                f"system.labels are (a, b, c), generated samples' a unlike b and c, and not {self.labels}: try [0,1,1]"
            )

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        return build_networks(self, spec, width, norm, pools)

    def phases(self) -> tuple[Phase, ...]:
        return gan_phases(self, {"lr": 2e-4, "betas": (0.5, 0.999)})

    def chance(self) -> dict[str, float]:
        """The best single score lies halfway between the labels."""
        a, b, _ = self.labels
        return losses.chance_loss("lsgan", (b - a) / 2, weight=0.5)

    def critic_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """1/2 E (D(x) - b)^2 + 1/2 E (D(G(z)) - a)^2 (eq 2)."""
        a, b, _ = self.labels
        return {
            "real": 0.5 * (nets.critic(batch.x) - b).square().mean(),
            "generated": 0.5 * (nets.critic(generated(nets, batch)) - a).square().mean(),
        } | r1(self, nets, batch)

    def generator_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """1/2 E (D(G(z)) - c)^2 (eq 2)."""
        return {"adv": 0.5 * (nets.critic(generated(nets, batch)) - self.labels[2]).square().mean()}


class GAN(Protocol):
    """The attributes of the three systems that the functions below use."""

    @property
    def latent_dim(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def critic_steps(self) -> int: ...
    @property
    def r1_weight(self) -> float: ...
    @property
    def backbone(self) -> CriticBackbone: ...
    def chance(self) -> dict[str, float]: ...
    def critic_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms: ...
    def generator_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms: ...


def build_networks(gan: GAN, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
    """The generator, which pipelines know as decoder, and the critic (a discriminator, where its logit is one)."""
    networks: dict[str, Network] = {
        "decoder": make_decoder(gan.backbone, spec.shape, gan.latent_dim, width, norm, pools),
        "critic": make_critic(gan.backbone, spec.shape, width, norm, pools),
    }
    check_slopes(networks["critic"], gan.r1_weight)
    return networks


def gan_phases(
    gan: GAN, optimizer: Mapping[str, Any], critic_optimizer: Mapping[str, Any] | None = None
) -> tuple[Phase]:
    """The critic, then the decoder, each on fresh batches; of the decoder's batch only the size counts."""
    z = {"z": (gan.latent_dim,)}
    critic = Update(
        "critic",
        ("critic",),
        (gan.critic_loss,),
        repeats=gan.critic_steps,
        noise=z,
        averaged=False,
        optimizer={**optimizer, **(critic_optimizer or {})},
        chance=gan.chance(),
    )
    decoder = Update("decoder", ("decoder",), (gan.generator_loss,), noise=z, optimizer=optimizer)
    return (Phase("gan", gan.steps, (critic, decoder), recalibrate=Recalibration(PIPELINE, generated, decoder)),)


def generated(nets: SimpleNamespace, batch: Batch) -> Tensor:
    """G(z), in the samples' precision; without a graph where the decoder is frozen."""
    return nets.decoder(batch.noise["z"].to(batch.x.dtype))


def r1(gan: GAN, nets: SimpleNamespace, batch: Batch) -> Terms:
    return {"r1": gan.r1_weight * losses.r1_penalty(nets.critic, batch.x)} if gan.r1_weight else {}
