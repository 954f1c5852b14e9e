"""Deep feature consistent VAE, and VAE-WGAN, which adds a critic on shallow features (both Hou 2019)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from savae_dist.config.effect import needs
from savae_dist.errors import ConfigError
from savae_dist.networks import (
    Backbone,
    FeatureNetwork,
    HouCritic,
    Network,
    Preprocessing,
    TapWeights,
    make_autoencoder,
)
from savae_dist.networks.blocks import Norm
from savae_dist.networks.features import tap_statistics
from savae_dist.networks.hou import STAGES
from savae_dist.pipeline.feature_network import open_features
from savae_dist.preprocess import DataSpec
from savae_dist.systems import losses
from savae_dist.systems.phases import Batch, BatchUse, Phase, Recalibration, Update, check_numbers

Terms = dict[str, Tensor]
CALIBRATED = 100.0  # nats that beta L_rec charges for the mean image, about what a small image's code may cost
WITH_CRITIC = ("wasserstein", "squared")
HOU = {"lr": 5e-4}  # halved each epoch, which is a number of steps only the preset knows


CITATION = """@article{hou2019improving,
  title   = {Improving Variational Autoencoder with Deep Feature Consistent and Generative Adversarial Training},
  author  = {Hou, Xianxu and Sun, Ke and Shen, Linlin and Qiu, Guoping},
  journal = {Neurocomputing},
  year    = {2019}
}"""


@dataclass(frozen=True)
class DFCVAE:
    """Hyperparameters of `dfc_vae`, and with an adversarial form of `vae_wgan`.

    Hou's eq 6 weighs VGG-19's features on 0-255 images. Other features are smaller by orders of magnitude: unscaled,
    the code earns less than it costs, and the posterior collapses. Hence `feature_scale: calibrated`.
    """

    summary: ClassVar[str] = "deep feature consistent VAE, and VAE-WGAN with a critic on shallow features"
    paper: ClassVar[str] = "Hou 2019, eq 5-8"
    citation: ClassVar[str] = CITATION

    name: Literal["dfc_vae", "vae_wgan"] = "dfc_vae"
    latent_dim: int = 100
    steps: int = 15_828  # 5 epochs of CelebA's 202,599 images at a batch of 64
    backbone: Backbone = "hou"  # the family of encoder and decoder

    # Phi: a file with VGG-19's weights, or a run or pipeline, whose encoder is used
    feature_network: str | None = None
    # how VGG-19's input is prepared: as Caffe's weights need it, or torchvision's
    feature_input: Preprocessing = needs("caffe", feature_network=("*.safetensors",))
    layers: tuple[str, ...] = ()  # its taps in eq 6, none named: all; section 4.2.3 tries them one by one
    # 100 / C^2 (eq 6); calibrated: 1 / variance of the tap, and one factor for all
    feature_scale: Literal["paper", "calibrated"] = "paper"
    alpha: float = 1.0  # KL, eq 7
    kl_free_bits: float = 0.0  # nats of each latent dimension that cost nothing (Kingma 2016); 0: the papers' KL
    kl_capacity: float = 0.0  # nats at which the KL is held (Burgess 2018); 0: as low as it gets
    beta: float = 0.5  # features, eq 7

    # eq 8. wasserstein: the labels +-10 multiply the scores; squared: the scores are regressed to them
    adversarial: Literal["none", "wasserstein", "squared"] = "none"
    label_value: float = needs(10.0, adversarial=WITH_CRITIC)
    critic_steps: int = needs(1, adversarial=WITH_CRITIC)
    # Weight of R1, the critic's squared slope at the features of real samples (Mescheder 2018)
    r1_weight: float = needs(0.0, adversarial=WITH_CRITIC)
    batches: BatchUse = needs("shared", adversarial=WITH_CRITIC)  # Algorithm 1 takes one batch for everything
    pipeline = ("encoder", "decoder")

    def __post_init__(self) -> None:
        weights = ("alpha", "beta", "label_value", "kl_free_bits", "kl_capacity", "r1_weight")
        check_numbers(self, ("latent_dim", "critic_steps"), ("steps", *weights))
        if self.with_critic and not self.label_value:
            raise ValueError("system.label_value must be positive, or system.adversarial=none")
        if not (self.beta or self.with_critic):
            raise ValueError("system.beta is 0 and system.adversarial none: the decoder would have no loss")

    @property
    def with_critic(self) -> bool:
        return self.adversarial != "none"

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        """The networks of section 3.2 and Phi."""
        networks = make_autoencoder(self.backbone, spec.shape, self.latent_dim, width, norm, pools)
        features = open_features("system.feature_network", self.feature_network, self.feature_input, spec)
        shapes = features.shapes(spec.shape)
        unknown = [name for name in self.layers if name not in shapes]
        if unknown or len(set(self.layers)) < len(self.layers):
            raise ConfigError(f"system.layers={list(self.layers)}: name each once, of {', '.join(shapes)}")
        if self.with_critic:
            networks["critic"] = HouCritic(shapes[features.taps[0]], width, max(STAGES, pools))
        # eq 6 divides by the squared number of filters; `calibrate` replaces that.
        weights = [100 / shapes[name][0] ** 2 for name in self.taps(features)]
        return {**networks, "features": features, "tap_weights": TapWeights(weights)}

    def taps(self, features: FeatureNetwork) -> tuple[str, ...]:
        return self.layers or features.taps

    def phases(self) -> tuple[Phase, ...]:
        """Algorithm 1; encoder and decoder share an optimiser, since Adam treats each weight by itself."""
        z = {"z": (self.latent_dim,)}
        vae = Update("vae", ("encoder", "decoder"), (self.vae_loss,), noise=z, optimizer=HOU)
        critic = Update(
            "critic",
            ("critic",),
            (self.critic_loss,),
            repeats=self.critic_steps,
            noise=z,
            averaged=False,
            # The text clips gradients (clip_value), Algorithm 1 the weights.
            optimizer={**HOU, "clip_weights": 0.01},
            chance=losses.chance_loss("lsgan", self.label_value) if self.adversarial == "squared" else {},
        )
        return (
            Phase(
                "vae",
                self.steps,
                (vae, critic) if self.with_critic else (vae,),
                self.batches,
                prepare=self.calibrate if self.feature_scale == "calibrated" and self.beta else None,
                recalibrate=Recalibration(vae.trains, self.generated, vae),
            ),
        )

    def generated(self, nets: SimpleNamespace, batch: Batch) -> Tensor:
        posterior, _ = nets.encoder(batch.x)
        return nets.decoder(posterior.sample(batch.noise["z"]))

    def vae_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """alpha L_kl + beta L_rec (eq 7) and L_GAN (eq 8).

        Eq 8 adds what Algorithm 1 subtracts; either way the decoder must work against the critic: it raises the score.
        """
        posterior, _ = nets.encoder(batch.x)
        x_hat = nets.decoder(posterior.sample(batch.noise["z"]))
        terms: Terms = {}
        if self.alpha:
            terms["kl"] = self.alpha * losses.kl_divergence(posterior, self.kl_free_bits, self.kl_capacity)
        taps, first = self.taps(nets.features) if self.beta else (), nets.features.taps[0]
        features_hat = nets.features(x_hat, {*taps, first} if self.with_critic else taps)
        if self.beta:
            each = losses.tap_losses(nets.features(batch.x, taps), features_hat, taps)
            terms["rec"] = self.beta * (nets.tap_weights() * each).sum()
        if self.adversarial == "wasserstein":
            terms["adv"] = -self.label_value * nets.critic(features_hat[first]).mean()
        elif self.adversarial == "squared":
            terms["adv"] = (self.label_value - nets.critic(features_hat[first])).square().mean()
        return terms

    def critic_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """On features of the first tap; the score is high for real ones. Algorithm 1's has the opposite sign."""
        first = nets.features.taps[0]
        both = nets.features(torch.cat([batch.x, self.generated(nets, batch)]), (first,))[first]
        real, generated = nets.critic(both).chunk(2)
        if self.adversarial == "wasserstein":
            terms = {"real": -self.label_value * real.mean(), "generated": self.label_value * generated.mean()}
        else:
            terms = {
                "real": (self.label_value - real).square().mean(),
                "generated": (self.label_value + generated).square().mean(),
            }
        if self.r1_weight:
            terms["r1"] = self.r1_weight * losses.r1_penalty(nets.critic, both.chunk(2)[0])
        return terms

    def calibrate(self, nets: SimpleNamespace, samples: Iterable[Tensor]) -> None:
        """Each tap counts by its variance, and beta L_rec is 100 nats if every sample is decoded to their mean."""
        taps = self.taps(nets.features)
        variances, of_mean = tap_statistics(nets.features, samples, taps)
        still = [name for name, variance in zip(taps, variances, strict=True) if not variance]
        if still:
            raise ConfigError(f"system.layers: {still[0]} is the same for all training samples; leave it out")
        weights = 1 / variances
        factor = CALIBRATED / (self.beta * (weights * 0.5 * of_mean).sum())  # eq 5 has the half
        nets.tap_weights.weight.copy_(factor * weights)
