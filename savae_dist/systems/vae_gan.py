"""Autoencoding beyond pixels using a learned similarity metric (Larsen 2016, VAE/GAN): a VAE whose likelihood is
measured in a hidden layer of a discriminator that is trained along with it.

Algorithm 1: one batch; the encoder learns from L_prior + L_llike, the decoder from gamma L_llike - L_GAN, the
discriminator from L_GAN alone. The paper takes the three gradients at once; here the updates follow one another, each
with noise of its own. What a network is given of several kinds, it is given at once, as in the authors' program: with
batch norm the kinds share their statistics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from savae_dist.networks import CriticBackbone, Network, make_autoencoder, make_critic
from savae_dist.networks.blocks import Norm
from savae_dist.preprocess import DataSpec
from savae_dist.systems import losses
from savae_dist.systems.fit import check_slopes
from savae_dist.systems.phases import Batch, Phase, Recalibration, Update, check_numbers

Terms = dict[str, Tensor]
EXTRAS = ("kl_free_bits", "kl_capacity", "r1_weight")  # not in the paper, and off by default
# Two in three samples are generated, so a discriminator that cannot tell gives each a probability of 1/3.
CHANCE = {"real": math.log(3), "reconstructed": math.log(1.5), "prior": math.log(1.5)}


CITATION = """@inproceedings{larsen2016autoencoding,
  title     = {Autoencoding beyond pixels using a learned similarity metric},
  author    = {Larsen, Anders Boesen Lindbo and S{\\o}nderby, S{\\o}ren Kaae and Larochelle, Hugo and Winther, Ole},
  booktitle = {International Conference on Machine Learning},
  year      = {2016}
}"""


@dataclass(frozen=True)
class VAEGAN:
    """Hyperparameters of VAE/GAN.

    The paper gives gamma no value. The authors' program has 5e-5 for a layer of 16,384 units; by the size of L_llike
    that is 1.6e-3 for the 512 units of width 8 at 28x28.
    """

    summary: ClassVar[str] = "a VAE whose likelihood is measured in the discriminator"
    paper: ClassVar[str] = "Larsen 2016"
    citation: ClassVar[str] = CITATION

    name: Literal["vae_gan"] = "vae_gan"
    latent_dim: int = 128
    steps: int = 10_000
    kl_weight: float = 1.0  # weight of L_prior
    kl_free_bits: float = 0.0  # nats of each latent dimension that cost nothing (Kingma 2016); 0: the papers' KL
    kl_capacity: float = 0.0  # nats at which the KL is held (Burgess 2018); 0: as low as it gets
    feature_weight: float = 1e-3  # gamma, of L_llike for the decoder
    r1_weight: float = 0.0  # weight of R1, the critic's squared slope at real samples (Mescheder 2018)
    backbone: CriticBackbone = "dcgan"
    pipeline = ("encoder", "decoder")

    def __post_init__(self) -> None:
        check_numbers(self, ("latent_dim", "steps"), ("kl_weight", "feature_weight", *EXTRAS))

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        networks = {
            **make_autoencoder(self.backbone, spec.shape, self.latent_dim, width, norm, pools),
            "critic": make_critic(self.backbone, spec.shape, width, norm, pools),
        }
        check_slopes(networks["critic"], self.r1_weight)
        return networks

    def phases(self) -> tuple[Phase, ...]:
        # The paper's RMSprop, as Adam without momentum.
        optimizer = {"lr": 3e-4, "betas": (0.0, 0.99)}
        z, both = (self.latent_dim,), {"z": (self.latent_dim,), "prior": (self.latent_dim,)}
        encoder = Update("encoder", ("encoder",), (self.encoder_loss,), noise={"z": z}, optimizer=optimizer)
        decoder = Update("decoder", ("decoder",), (self.decoder_loss,), noise=both, optimizer=optimizer)
        critic = Update(
            "critic",
            ("critic",),
            (self.critic_loss,),
            noise=both,
            averaged=False,
            optimizer=optimizer,
            chance=CHANCE,
        )
        recalibrate = Recalibration(("encoder", "decoder"), self.generated, decoder)
        return (Phase("vae_gan", self.steps, (encoder, decoder, critic), "shared", recalibrate),)

    def encoder_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """L_prior + L_llike; the gradient passes through decoder and discriminator, which keep still."""
        posterior, _ = nets.encoder(batch.x)
        x_tilde = nets.decoder(posterior.sample(batch.noise["z"]))
        real, reconstructed = nets.critic.features(torch.cat([batch.x, x_tilde])).chunk(2)
        terms = {"llike": losses.half_squared_error(reconstructed, real)}
        if self.kl_weight:
            terms["prior"] = self.kl_weight * losses.kl_divergence(posterior, self.kl_free_bits, self.kl_capacity)
        return terms

    def decoder_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """gamma L_llike - L_GAN in its non-saturating form, on reconstructions and on samples of the prior."""
        features = nets.critic.features(torch.cat([batch.x, self.generated(nets, batch)]))
        real, reconstructed, prior = features.chunk(3)
        terms = {
            "adv": F.softplus(-nets.critic.head(reconstructed)).mean(),
            "adv_prior": F.softplus(-nets.critic.head(prior)).mean(),
        }
        if self.feature_weight:
            terms["llike"] = self.feature_weight * losses.half_squared_error(reconstructed, real)
        return terms

    def critic_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """-L_GAN = -E log Dis(x) - E log(1 - Dis(x~)) - E log(1 - Dis(x_p))."""
        scores = nets.critic(torch.cat([batch.x, self.generated(nets, batch)]))
        real, reconstructed, prior = scores.chunk(3)
        terms = {
            "real": F.softplus(-real).mean(),
            "reconstructed": F.softplus(reconstructed).mean(),
            "prior": F.softplus(prior).mean(),
        }
        if self.r1_weight:
            terms["r1"] = self.r1_weight * losses.r1_penalty(nets.critic, batch.x)
        return terms

    def generated(self, nets: SimpleNamespace, batch: Batch) -> Tensor:
        """Reconstructions x~ = Dec(Enc(x)) and behind them samples of the prior x_p = Dec(z_p)."""
        posterior, _ = nets.encoder(batch.x)
        return nets.decoder(torch.cat([posterior.sample(batch.noise["z"]), batch.noise["prior"]]))
