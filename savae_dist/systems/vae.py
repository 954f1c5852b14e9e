"""Variational autoencoder (Kingma 2014), as Zemouri 2020 (eq 2-4) and Hou 2019 (eq 1-3) compare with it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar, Literal

from torch import Tensor

from savae_dist.config.counts import Auto
from savae_dist.networks import Backbone, Network, make_autoencoder
from savae_dist.networks.blocks import Norm
from savae_dist.preprocess import DataSpec
from savae_dist.systems import losses
from savae_dist.systems.phases import Batch, Phase, Recalibration, Update, check_numbers, code_size

CITATION = """@inproceedings{kingma2014auto,
  title     = {Auto-Encoding Variational Bayes},
  author    = {Kingma, Diederik P. and Welling, Max},
  booktitle = {International Conference on Learning Representations},
  year      = {2014}
}"""


@dataclass(frozen=True)
class VAE:
    """Hyperparameters of the VAE; at weight 1 the loss is the negative evidence lower bound in nats.

    likelihood: of images in [0, 1], `bernoulli` on the decoder's logits, or `gaussian` of variance 1 around its output
    (Nguyen 2023, eq 1, but for a constant); signals are always Gaussian.
    """

    summary: ClassVar[str] = "the plain VAE"
    paper: ClassVar[str] = "Kingma 2014, Hou 2019 eq 1-3"
    citation: ClassVar[str] = CITATION

    name: Literal["vae"] = "vae"
    latent_dim: int | Auto = 2  # auto: by the samples (`config.auto`)
    steps: int = 4000
    kl_weight: float = 1.0
    kl_free_bits: float = 0.0  # nats of each latent dimension that cost nothing (Kingma 2016); 0: the papers' KL
    kl_capacity: float = 0.0  # nats at which the KL is held (Burgess 2018); 0: as low as it gets
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    backbone: Backbone = "savae"  # the family of encoder and decoder
    pipeline = ("encoder", "decoder")

    def __post_init__(self) -> None:
        check_numbers(self, ("latent_dim",), ("steps", "kl_weight", "kl_free_bits", "kl_capacity"))

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        return make_autoencoder(self.backbone, spec.shape, code_size(self.latent_dim), width, norm, pools)

    def phases(self) -> tuple[Phase, ...]:
        z = (0 if self.latent_dim == "auto" else self.latent_dim,)
        vae = Update("vae", ("encoder", "decoder"), (self.vae_loss,), noise={"z": z})
        return (Phase("vae", self.steps, (vae,), recalibrate=Recalibration(vae.trains, self.vae_loss, vae)),)

    def vae_loss(self, nets: SimpleNamespace, batch: Batch) -> dict[str, Tensor]:
        """L_rec + L_kl (Hou eq 3)."""
        posterior, _ = nets.encoder(batch.x)
        z = posterior.sample(batch.noise["z"])
        if self.likelihood == "bernoulli" and nets.decoder.output == "sigmoid":
            terms = {"rec": losses.bernoulli_likelihood(nets.decoder.logits(z), batch.x)}
        else:
            terms = {"rec": losses.gaussian_likelihood(nets.decoder(z), batch.x)}
        if self.kl_weight:
            terms["kl"] = self.kl_weight * losses.kl_divergence(posterior, self.kl_free_bits, self.kl_capacity)
        return terms
