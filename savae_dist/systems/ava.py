"""Adversarial variational autoencoders (Nguyen 2023), AVA1 to AVA5: a VAE whose decoder faces a discriminator d on x',
and whose encoder may face another, D, that tells mu(x) from mu(x').

Each member is what it adds to AVA1, in `MEMBERS`. A batch trains encoder and decoder on eq 12, then d and D on their
balance functions (eq 4, 11), which may "lean" towards the decoder or the encoder (eq 10, 16).

The encoder sees x and x' one after the other, since it makes the one from the other: batch norms in it (`backbone:
dcgan`) keep a mixture of both statistics until the phase's end, where those of x are recomputed.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from savae_dist.config.effect import needs
from savae_dist.latents import full_precision
from savae_dist.networks import CodeDiscriminator, CriticBackbone, Network, make_autoencoder, make_critic
from savae_dist.networks.blocks import Norm
from savae_dist.preprocess import DataSpec
from savae_dist.systems import losses
from savae_dist.systems.fit import check_slopes
from savae_dist.systems.phases import Batch, Phase, Recalibration, Update, check_numbers

Terms = dict[str, Tensor]
# The loss of both discriminators while they cannot tell real from generated: see `Update.chance`.
CHANCE = losses.chance_loss("non_saturating")
CODE_UNITS = 128  # width of D's two hidden layers; the paper gives none

# Additions of each member to AVA1. We keep d's update in AVA3 to AVA5: the paper's listings omit it, yet need it.
MEMBERS: dict[str, frozenset[str]] = {
    "ava1": frozenset(),
    "ava2": frozenset({"lean decoder"}),
    "ava3": frozenset({"judge encoder"}),
    "ava4": frozenset({"judge encoder", "lean encoder"}),
    "ava5": frozenset({"judge encoder", "lean encoder", "lean decoder"}),
}


CITATION = """@article{nguyen2023adversarial,
  title   = {Adversarial Variational Autoencoders to Extend and Improve Generative Model},
  author  = {Nguyen, Loc},
  journal = {Preprints},
  year    = {2023},
  doi     = {10.20944/preprints202308.0131.v1}
}"""


@dataclass(frozen=True)
class AVA:
    """Hyperparameters of the five.

    encoder_gradient: `full` sends eq 12 through z into the encoder; `paper` only what its eq 5 and 14 print, the KL and
    D's verdict, so that z tells the decoder nothing of x. (Eq 14 prints that verdict with a derivative at x; it is read
    as eq 12's term, whose gradient passes through the encoder at x'.)
    lean: the terms that AVA2, 4 and 5 add do not depend on the discriminators' weights, so that their gradient is zero;
    `paper` has the one that eq 10 and 16 print for them, `none` is eq 9 and 15 differentiated.
    adversarial: log(1 - d(x')) as eq 3 reads, or -log d(x'), whose gradient does not vanish where d is sure.
    """

    summary: ClassVar[str] = "a VAE with a discriminator of its decoder, and of its encoder"
    paper: ClassVar[str] = "Nguyen 2023"
    citation: ClassVar[str] = CITATION

    name: Literal["ava1", "ava2", "ava3", "ava4", "ava5"] = "ava1"
    latent_dim: int = 32
    steps: int = 4000
    encoder_gradient: Literal["full", "paper"] = "full"
    lean: Literal["paper", "none"] = needs("paper", name=("ava2", "ava4", "ava5"))
    adversarial: Literal["saturating", "non_saturating"] = "saturating"
    kl_free_bits: float = 0.0  # nats of each latent dimension that cost nothing (Kingma 2016); 0: the papers' KL
    kl_capacity: float = 0.0  # nats at which the KL is held (Burgess 2018); 0: as low as it gets
    r1_weight: float = 0.0  # weight of R1, the critic's squared slope at real samples (Mescheder 2018)
    backbone: CriticBackbone = "savae"
    pipeline = ("encoder", "decoder")

    def __post_init__(self) -> None:
        check_numbers(self, ("latent_dim",), ("steps", "kl_free_bits", "kl_capacity", "r1_weight"))

    def adds(self, part: Literal["lean decoder", "judge encoder", "lean encoder"]) -> bool:
        return part in MEMBERS[self.name] and (self.lean == "paper" or not part.startswith("lean"))

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        networks: dict[str, Network] = {
            **make_autoencoder(self.backbone, spec.shape, self.latent_dim, width, norm, pools),
            "critic": make_critic(self.backbone, spec.shape, width, norm, pools),
        }
        check_slopes(networks["critic"], self.r1_weight)
        if self.adds("judge encoder"):
            networks["code_critic"] = CodeDiscriminator(self.latent_dim, CODE_UNITS)
        return networks

    def phases(self) -> tuple[Phase, ...]:
        z = {"z": (self.latent_dim,)}
        vae = Update("vae", ("encoder", "decoder"), (self.vae_loss,), noise=z)
        updates = [vae, Update("critic", ("critic",), (self.critic_loss,), noise=z, averaged=False, chance=CHANCE)]
        if self.adds("judge encoder"):
            judge = Update(
                "code_critic", ("code_critic",), (self.code_critic_loss,), noise=z, averaged=False, chance=CHANCE
            )
            updates.append(judge)
        recalibrate = Recalibration(("encoder", "decoder"), self.generated, vae)
        return (Phase("ava", self.steps, tuple(updates), "shared", recalibrate),)

    def vae_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """1/2 ||x - x'||^2 + KL + log(1 - d(x')) + log(1 - D(mu(x'))) (eq 12), all per sample.

        The last term is the encoder's alone: x' is detached, because the decoder has none of it (eq 6).
        """
        posterior, _ = nets.encoder(batch.x)
        z = posterior.sample(batch.noise["z"])
        x_hat = nets.decoder(z if self.encoder_gradient == "full" else z.detach())
        terms = {
            "rec": losses.half_squared_error(x_hat, batch.x),
            "kl": losses.kl_divergence(posterior, self.kl_free_bits, self.kl_capacity),
            "adv": self.generator_loss(nets.critic(x_hat)),
        }
        if self.adds("judge encoder"):
            posterior_hat, _ = nets.encoder(x_hat.detach())
            terms["code_adv"] = self.generator_loss(nets.code_critic(posterior_hat.mean))
        return terms

    def critic_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """-log d(x) - log(1 - d(x')) (eq 4), and what leans forward the decoder (eq 10)."""
        x_hat = self.generated(nets, batch)
        score, score_hat = nets.critic(batch.x), nets.critic(x_hat)
        terms = discriminator_loss(score, score_hat)
        if self.adds("lean decoder"):
            slope = x_hat * (1 - x_hat) if nets.decoder.output == "sigmoid" else 1.0  # a'_g
            terms["lean"] = lean((batch.x - x_hat) * slope, score_hat)
        if self.r1_weight:
            terms["r1"] = self.r1_weight * losses.r1_penalty(nets.critic, batch.x)
        return terms

    def code_critic_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """-log D(mu(x)) - log(1 - D(mu(x'))) (eq 11), and what leans forward the encoder (eq 16; mu is linear)."""
        posterior, _ = nets.encoder(batch.x)
        posterior_hat, _ = nets.encoder(nets.decoder(posterior.sample(batch.noise["z"])))
        score, score_hat = nets.code_critic(posterior.mean), nets.code_critic(posterior_hat.mean)
        terms = discriminator_loss(score, score_hat)
        if self.adds("lean encoder"):
            terms["lean"] = lean(posterior.mean - posterior_hat.mean, score_hat)
        return terms

    def generator_loss(self, score_hat: Tensor) -> Tensor:
        """E log(1 - d(x')), or -E log d(x')."""
        if self.adversarial == "saturating":
            return F.logsigmoid(-score_hat).mean()
        return losses.critic_loss("non_saturating", score_hat, +1)

    def generated(self, nets: SimpleNamespace, batch: Batch) -> Tensor:
        """x' = g(z); without a graph where encoder and decoder are frozen."""
        posterior, _ = nets.encoder(batch.x)
        return nets.decoder(posterior.sample(batch.noise["z"]))


def discriminator_loss(score: Tensor, score_hat: Tensor) -> Terms:
    """-log d(x) - log(1 - d(x')) of logits `[batch]`."""
    return {
        "real": losses.critic_loss("non_saturating", score, +1),
        "generated": losses.critic_loss("non_saturating", score_hat, -1),
    }


def lean(errors: Tensor, score_hat: Tensor) -> Tensor:
    """-E[sum_i errors_i d(x')]; its gradient is the last term of eq 10, a'_d(d_0) sum_i errors_i, a constant times
    that of d's one neuron. errors `[batch, ...]`, score_hat `[batch]`, the logit of d(x').
    """
    weight = full_precision(errors).flatten(1).sum(1).detach()
    return -(weight * score_hat.sigmoid()).mean()
