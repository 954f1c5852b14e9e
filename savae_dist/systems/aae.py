"""Adversarial autoencoders (Makhzani 2015; Patni's proposal), unsupervised, supervised and semi-supervised.

For each batch: the reconstruction phase trains encoder and decoder; the regularisation phase trains a discriminator to
tell codes from samples of the prior, then the encoder to deceive it; the semi-supervised phase trains the encoder to
classify the labelled samples. The encoder is deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from savae_dist.config.effect import needs
from savae_dist.latents import full_precision, one_hot
from savae_dist.networks import (
    AllConvDecoder,
    AllConvEncoder,
    CodeDiscriminator,
    ConvCodeEncoder,
    ConvDecoder,
    LabelPart,
    MLPDecoder,
    MLPEncoder,
    Network,
    Prior,
)
from savae_dist.networks.blocks import Norm, output_for
from savae_dist.networks.codes import LabelUse, PriorKind
from savae_dist.preprocess import DataSpec
from savae_dist.systems import losses
from savae_dist.systems.phases import Batch, Phase, Recalibration, Update, check_classes, check_numbers

Terms = dict[str, Tensor]

PAPER_HIDDEN, PAPER_WIDTH = 1000, 16  # units of the fully connected layers at networks.width=16

# Member of the family -> the values that its `label_to` may have.
MEMBERS = {
    "aae_unsupervised": ("nothing",),
    "aae_supervised": ("decoder", "discriminator"),
    "aae_semi_supervised": ("code",),
}
PRIOR_LABELS: dict[str, LabelUse] = {
    "nothing": "none",
    "decoder": "told",
    "discriminator": "mode",
    "code": "inferred",
}


CITATION = """@article{makhzani2015adversarial,
  title   = {Adversarial Autoencoders},
  author  = {Makhzani, Alireza and Shlens, Jonathon and Jaitly, Navdeep and Goodfellow, Ian and Frey, Brendan},
  journal = {arXiv:1511.05644},
  year    = {2015}
}"""


@dataclass(frozen=True)
class AAE:
    """Hyperparameters of the family; `SYSTEMS` has the members with their own defaults.

    label_to: where labels go. `decoder`: it is told y, so that z keeps the style (Makhzani, section 4);
    `discriminator`: it is told y, or that there is none, and each class has its mode of the prior, the unlabelled all
    of them (section 2.3; Patni's text mixes the two); `code`: the encoder infers y beside z (section 5).
    code_norm: batch norm of the code, and in Makhzani's encoder of its layers as well. Without it all samples may start
    in one cluster, where the softmax has no gradient left to move them.
    """

    summary: ClassVar[str] = "adversarial autoencoders"
    paper: ClassVar[str] = "Makhzani 2015"
    citation: ClassVar[str] = CITATION

    name: Literal["aae_unsupervised", "aae_supervised", "aae_semi_supervised"] = "aae_unsupervised"
    label_to: Literal["nothing", "decoder", "discriminator", "code"] = "nothing"
    latent_dim: int = 8  # dimensions of z, the style
    clusters: int = 0  # > 0: the code has a label part of so many clusters (section 6)
    code_norm: bool = False
    steps: int = 4000
    prior: PriorKind = "gaussian"
    prior_scale: float = 1.0  # Makhzani's unsupervised Gaussian has 5
    # Modes of a mixture or a swiss roll; if labels choose among them, there is one per class.
    prior_modes: int = needs(10, prior=("mixture", "swiss_roll"), label_to=("nothing", "decoder", "code"))
    backbone: Literal["mlp", "conv", "savae"] = "mlp"  # Makhzani's, Patni's all-convolutional, Zemouri's
    reconstruction: Literal["mse", "bce"] = "mse"
    pipeline = ("encoder", "classifier", "decoder", "prior")

    def __post_init__(self) -> None:
        if self.label_to not in MEMBERS[self.name]:
            known = " or ".join(MEMBERS[self.name])
            raise ValueError(f"system.label_to={self.label_to}: the labels of {self.name} go to {known}")
        check_numbers(self, ("latent_dim", "prior_modes"), ("steps", "prior_scale"))
        if not self.prior_scale:
            raise ValueError("system.prior_scale must be positive, not 0")
        if self.clusters and (self.clusters < 2 or self.label_to != "nothing"):
            raise ValueError(
                f"system.clusters={self.clusters}: 0 or at least 2, and for aae_unsupervised only; "
                "elsewhere labels say what the clusters are"
            )
        if self.prior == "gaussian" and self.label_to == "discriminator":
            raise ValueError("system.prior=gaussian has no modes for the classes: take mixture or swiss_roll")
        if self.prior != "gaussian" and self.latent_dim < 2:
            raise ValueError(f"system.latent_dim must be at least 2 for system.prior={self.prior}")

    @property
    def infers(self) -> bool:
        """Whether the encoder gives a label part."""
        return self.label_to == "code" or self.clusters > 0

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        """Encoder, decoder, prior, a discriminator for each part of the code, and what reads the class from labels."""
        self.check(spec, norm)
        hidden, prior = hidden_units(width), self.prior_of(spec.classes)
        inferred = prior.entries if self.infers else 0
        networks = self.autoencoder(spec, inferred, prior.latent_dim, hidden, width, norm, pools)
        networks["prior"] = prior
        networks["discriminator"] = CodeDiscriminator(self.latent_dim + self.label_slots(spec.classes), hidden)
        if self.infers:
            networks["label_discriminator"] = CodeDiscriminator(inferred, hidden)
        if self.infers and spec.classes:
            networks["classifier"] = LabelPart(self.latent_dim, inferred, spec.classes, self.clusters > 0)
        return networks

    def check(self, spec: DataSpec, norm: Norm) -> None:
        """ValueError for data or norms that the options cannot work with."""
        if self.label_to != "nothing":
            check_classes(self.name, spec)
        if self.code_norm and norm != "batch":
            raise ValueError(f"system.code_norm is a batch norm, and networks.norm={norm}: take one or the other")
        if self.reconstruction == "bce" and spec.kind != "image":
            raise ValueError("system.reconstruction=bce is for images in [0, 1]: take mse for signals")

    def prior_of(self, classes: int) -> Prior:
        """p(z) and how a label enters the code: a mode for each class, or a label part of classes or clusters."""
        use: LabelUse = "inferred" if self.infers else PRIOR_LABELS[self.label_to]
        modes = classes if use == "mode" else self.prior_modes
        entries = (self.clusters or classes) if use in ("told", "inferred") else 0
        return Prior(self.latent_dim, self.prior, self.prior_scale, modes, use, entries)

    def label_slots(self, classes: int) -> int:
        """What the discriminator sees beside z: a slot for each class and a last one that says "no label"."""
        return classes + 1 if self.label_to == "discriminator" else 0

    def autoencoder(
        self, spec: DataSpec, labels: int, code_dim: int, hidden: int, width: int, norm: Norm, pools: int
    ) -> dict[str, Network]:
        shape, z = spec.shape, self.latent_dim
        output = output_for(shape)
        if self.backbone == "mlp":
            return {
                "encoder": MLPEncoder(shape, z, labels, hidden, self.code_norm),
                "decoder": MLPDecoder(shape, code_dim, hidden, output),
            }
        if self.backbone == "conv":
            return {
                "encoder": AllConvEncoder(shape, z, labels, width, norm, self.code_norm),
                "decoder": AllConvDecoder(shape, code_dim, width, norm, output),
            }
        return {
            "encoder": ConvCodeEncoder(shape, z, labels, width, pools, self.code_norm),
            "decoder": ConvDecoder(shape, code_dim, width, pools, norm, output),
        }

    def phases(self) -> tuple[Phase, ...]:
        draws = {"prior": (self.latent_dim + 2,)}  # Prior.draws
        label_discriminator = ("label_discriminator",) if self.infers else ()
        # One average is kept of the encoder, though several updates train it.
        reconstruction = Update("reconstruction", ("encoder", "decoder"), (self.reconstruction_loss,))
        updates = [
            reconstruction,
            Update(
                "discriminator",
                ("discriminator", *label_discriminator),
                (self.discriminator_loss,),
                noise=draws,
                averaged=False,
                chance=self.discriminator_chance(),
            ),
            Update("generator", ("encoder",), (self.generator_loss,), averaged=False),
        ]
        if self.label_to == "code":
            updates.append(Update("label", ("encoder",), (self.label_loss,), averaged=False))
        recalibration = Recalibration(("encoder", "decoder"), self.reconstruction_loss, reconstruction)
        return (Phase("aae", self.steps, tuple(updates), "shared", recalibration),)

    def reconstruction_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """The decoder gets the code as it is, and y where it is told that."""
        posterior, _ = nets.encoder(batch.x)
        code = nets.prior.complete(posterior.mean, batch.y)
        if self.reconstruction == "bce":
            logits = full_precision(nets.decoder.logits(code))
            return {"rec": F.binary_cross_entropy_with_logits(logits, batch.x)}
        return {"rec": F.mse_loss(nets.decoder(code), batch.x)}

    def discriminator_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """-E log D(prior) - E log(1 - D(code)), for the style and for the label part, each by its own discriminator."""
        eps = batch.noise["prior"]
        z, labels = self.code_parts(nets, batch)
        terms = self.discriminator_terms(
            "style", nets.discriminator, self.judged(nets.prior.style(eps, batch.y), batch, nets), z
        )
        if self.infers:
            terms |= self.discriminator_terms("label", nets.label_discriminator, nets.prior.label_part(eps), labels)
        return terms

    def discriminator_chance(self) -> dict[str, float]:
        parts, chance = ("style", "label") if self.infers else ("style",), losses.chance_loss("non_saturating")
        return {f"{part}_{kind}": value for part in parts for kind, value in chance.items()}

    @staticmethod
    def discriminator_terms(name: str, discriminator: Network, prior: Tensor, code: Tensor) -> Terms:
        """One call of the discriminator on both: faster than two, and equal to rounding."""
        real, generated = discriminator(torch.cat([prior, code])).chunk(2)
        return {
            f"{name}_real": losses.critic_loss("non_saturating", real, +1),
            f"{name}_generated": losses.critic_loss("non_saturating", generated, -1),
        }

    def generator_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """-E log D(code), non-saturating: the encoder makes codes that pass for samples of the prior."""
        z, labels = self.code_parts(nets, batch)
        terms = {"style": losses.critic_loss("non_saturating", nets.discriminator(z), +1)}
        if self.infers:
            terms["label"] = losses.critic_loss("non_saturating", nets.label_discriminator(labels), +1)
        return terms

    def label_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """Cross-entropy of q(y|x) over the labelled samples."""
        _, logits = nets.encoder.parts(batch.x)
        return {"cat": losses.label_cross_entropy(logits, batch.y, batch.label_weight)}

    def code_parts(self, nets: SimpleNamespace, batch: Batch) -> tuple[Tensor, Tensor]:
        """The style as its discriminator takes it, and the label part."""
        code = nets.encoder(batch.x)[0].mean
        return self.judged(code[:, : self.latent_dim], batch, nets), code[:, self.latent_dim :]

    def judged(self, z: Tensor, batch: Batch, nets: SimpleNamespace) -> Tensor:
        """With y behind it where the discriminator is told that; the last slot says that there is none."""
        if self.label_to != "discriminator":
            return z
        classes = nets.prior.modes
        return torch.cat([z, one_hot(torch.where(batch.y < 0, classes, batch.y), classes + 1)], 1)


def hidden_units(width: int) -> int:
    """Makhzani's 1,000 units of the fully connected networks at networks.width=16, and in proportion to it."""
    return max(PAPER_HIDDEN * width // PAPER_WIDTH, 4)
