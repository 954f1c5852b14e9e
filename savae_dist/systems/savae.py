"""Semi-supervised adversarial variational autoencoder (Zemouri 2020).

Phase 1 (Algorithm 1) trains encoder and classifier, together the variational encoder classifier (VEC).
Phase 2 (Algorithm 2) freezes both and trains the decoder against a critic, with the encoder's own features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from savae_dist.config.counts import Auto
from savae_dist.config.effect import needs
from savae_dist.latents import Posterior
from savae_dist.networks import (
    ConvCritic,
    ConvDecoder,
    ConvEncoder,
    Critic,
    DenseClassifier,
    Network,
    PeriodCritic,
    SpectrogramCritic,
)
from savae_dist.networks.blocks import Norm, output_for
from savae_dist.networks.conv import FEATURE_STAGES, FeatureTap
from savae_dist.networks.upsample import Upsampling
from savae_dist.preprocess import DataSpec
from savae_dist.systems import losses
from savae_dist.systems.losses import AdversarialForm, LatentForm, Reduction
from savae_dist.systems.phases import (
    Batch,
    BatchUse,
    Loss,
    Phase,
    Recalibration,
    Update,
    check_classes,
    check_numbers,
    code_size,
)

Terms = dict[str, Tensor]
LatentInput = Literal["sample", "mean"]


CITATION = """@article{zemouri2020semi,
  title   = {Semi-Supervised Adversarial Variational Autoencoder},
  author  = {Zemouri, Ryad},
  journal = {Machine Learning and Knowledge Extraction},
  volume  = {2},
  number  = {3},
  pages   = {361--378},
  year    = {2020},
  doi     = {10.3390/make2030020}
}"""


@dataclass(frozen=True)
class SAVAE:
    """Hyperparameters of SAVAE; where the paper leaves a choice, the comment names its options.

    The paper's weight of the KL is 1. Summed over latent dimensions that collapses the code: KL >= I(Z;Y) and
    CE >= H(Y) - I(Z;Y), so their sum is never below H(Y), which a constant encoder attains.
    """

    summary: ClassVar[str] = "semi-supervised adversarial VAE, the system of this trainer"
    paper: ClassVar[str] = "Zemouri 2020"
    citation: ClassVar[str] = CITATION

    name: Literal["savae"] = "savae"
    latent_dim: int | Auto = 2  # K; the paper compares 2 and 100; auto: by the samples (`config.auto`)
    vec_steps: int = 2000
    decoder_steps: int = 2000

    # Phase 1, eq 6
    kl_weight: float = 0.01
    kl_reduction: Reduction = "sum"  # or mean over latent dimensions, under which a weight of 1 trains
    kl_free_bits: float = 0.0  # nats of each latent dimension that cost nothing (Kingma 2016); 0: the papers' KL
    kl_capacity: float = 0.0  # nats at which the KL is held (Burgess 2018); 0: as low as it gets
    # > 0 adds a small decoder trained with the VEC, so that z keeps what the label does not need (not in the paper).
    reconstruction_weight: float = 0.0
    label_smoothing: float = 0.0  # share of a label's probability that is spread over all classes (not in the paper)
    # The loss of unlabelled samples: the KL alone, which teaches no classes, or one more term (these three are ours).
    unlabelled: Literal["kl", "pseudo_label", "entropy", "consistency"] = "kl"
    unlabelled_weight: float = needs(1.0, unlabelled=("pseudo_label", "entropy", "consistency"))

    # Phase 2, eq 8
    alpha: tuple[float, ...] = (1.0, 0.1, 0.01)  # eq 9, one per encoder stage
    beta: float = 0.01  # adversarial
    gamma: float = 0.1  # latent
    feature_reduction: Reduction = "mean"  # how eq 9 reduces the elements of a feature
    # Eq 9 compares elements, as in the paper, or Gram matrices (Gatys 2016), which do not depend on the phase.
    feature_form: Literal["elements", "gram"] = "elements"
    feature_tap: FeatureTap = "act"  # the tensor F_i: after LeakyReLU, after the convolution, or after the pool
    # For signals (ours): compare power spectra at several resolutions (Yamamoto 2020), and spectra of envelopes.
    spectral_weight: float = 0.0
    spectral_windows: tuple[int, ...] = (64, 128, 512)
    envelope_weight: float = 0.0
    upsample: Upsampling = "nearest"  # how the decoder doubles sizes, or by a low-pass (Karras 2021, Lee 2023)
    decoder_noise: int = 0  # numbers of which noise within the decoder is made (Karras 2019; 64, say); 0: none
    decoder_input: LatentInput = "sample"  # Z that is decoded
    latent_input: LatentInput = "sample"  # Z and Z^ that are classified in eq 11
    latent_form: LatentForm = "probabilities"  # Class() in eq 11: after the softmax, or the logits before it
    adversarial: AdversarialForm = "match_real"  # eq 10
    batches: BatchUse = "fresh"
    # What it scores: the samples, their spectra over time, or every p-th sample side by side (Kong 2020).
    critic: Literal["waveform", "spectrogram", "period"] = "waveform"
    critic_steps: int = 1  # n_dis
    critic_update: Literal["separate", "joint"] = (
        "separate"  # two steps, on real and on generated samples; or one step on their mean
    )
    # +- this; Hou uses 10
    critic_label: float = needs(1.0, adversarial=("match_real", "lsgan", "hinge"))
    critic_regulariser: Literal["none", "gradient_penalty", "r1", "spectral_norm"] = "none"
    penalty_weight: float = needs(10.0, critic_regulariser=("gradient_penalty", "r1"))
    pipeline = ("encoder", "classifier", "decoder")

    def __post_init__(self) -> None:
        weights = ("kl_weight", "reconstruction_weight", "beta", "gamma", "unlabelled_weight", "penalty_weight")
        nats, steps = ("kl_free_bits", "kl_capacity"), ("vec_steps", "decoder_steps")
        spectra = ("spectral_weight", "envelope_weight")
        check_numbers(self, ("latent_dim", "critic_steps"), (*steps, *weights, *nats, *spectra, "decoder_noise"))
        if not self.spectral_windows or min(self.spectral_windows) < 4:
            raise ValueError(f"system.spectral_windows needs lengths of 4 samples or more, not {self.spectral_windows}")
        if len(self.alpha) != FEATURE_STAGES or not all(0 <= a < math.inf for a in self.alpha):
            raise ValueError(f"system.alpha needs {FEATURE_STAGES} weights >= 0, one per feature, not {self.alpha}")
        weighed = any(self.alpha) or self.beta or self.gamma or self.spectral_weight or self.envelope_weight
        if self.decoder_steps and not weighed:
            raise ValueError("system.alpha, system.beta and system.gamma are all zero: the decoder would have no loss")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"system.label_smoothing must lie in [0, 1), not {self.label_smoothing}")
        if self.critic_label <= 0:
            raise ValueError(f"system.critic_label must be positive, not {self.critic_label}")

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        """The networks of section 3.2."""
        check_classes(self.name, spec)
        if spec.kind != "signal" and (self.spectral_weight or self.envelope_weight or self.critic != "waveform"):
            raise ValueError(
                "system.spectral_weight, envelope_weight and critic=spectrogram or period are for signals, not images"
            )
        if self.upsample != "nearest" and not pools:
            raise ValueError(
                f"system.upsample={self.upsample} needs networks.pools of 1 or more: with 0 no size doubles"
            )
        k = code_size(self.latent_dim)
        output = output_for(spec.shape)
        networks: dict[str, Network] = {
            "encoder": ConvEncoder(spec.shape, k, width, pools, self.feature_tap),
            "classifier": DenseClassifier(k, spec.classes, norm_kind=norm),
            "decoder": ConvDecoder(spec.shape, k, width, pools, norm, output, self.upsample, self.decoder_noise),
            "critic": self.make_critic(spec.shape, width, pools),
        }
        if self.reconstruction_weight:
            small = max(width // 2, 4)
            networks["content"] = ConvDecoder(spec.shape, k, small, pools, norm, output)
        return networks

    def make_critic(self, shape: Sequence[int], width: int, pools: int) -> Critic:
        normed = self.critic_regulariser == "spectral_norm"
        if self.critic == "spectrogram":
            return SpectrogramCritic(shape, width, normed)
        if self.critic == "period":
            return PeriodCritic(shape, width, normed)
        return ConvCritic(shape, width, pools, normed)

    def phases(self) -> tuple[Phase, ...]:
        z = (0 if self.latent_dim == "auto" else self.latent_dim,)
        stages = {"stages": (self.decoder_noise,)} if self.decoder_noise else {}
        content = ("content",) if self.reconstruction_weight else ()
        draws = {"z": z, "again": z} if self.unlabelled == "consistency" else {"z": z}
        vec = Update("vec", ("encoder", "classifier", *content), (self.vec_loss,), noise=draws)
        critic = Update(
            "critic",
            ("critic",),
            self.critic_losses(),
            repeats=self.critic_steps,
            noise={"z": z, "mix": (), **stages},
            active=self.beta > 0,  # nobody looks at it otherwise
            averaged=False,
            optimizer={"lr": 1e-4},
            chance=losses.chance_loss(self.adversarial, self.critic_label, 0.5 if self.critic_update == "joint" else 1),
        )
        decoder = Update("decoder", ("decoder",), (self.decoder_loss,), noise={"z": z, "z_hat": z, **stages})
        return (
            Phase("vec", self.vec_steps, (vec,), recalibrate=Recalibration(("classifier",), self.vec_loss, vec)),
            Phase(
                "decoder",
                self.decoder_steps,
                (critic, decoder),
                self.batches,
                Recalibration(("decoder",), self.generated, decoder),
                posteriors="encoder",
            ),
        )

    def vec_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """Algorithm 1: L_kl + L_cat (eq 6), L_kl over all samples and L_cat over the labelled ones."""
        posterior, _ = nets.encoder(batch.x)
        draws = [posterior.sample(eps) for eps in batch.noise.values()]
        z, logits = draws[0], nets.classifier(torch.cat(draws)).split(len(batch.x))
        terms = {
            "kl": self.kl_weight * self.kl(posterior),
            "cat": losses.label_cross_entropy(logits[0], batch.y, batch.label_weight, self.label_smoothing),
        }
        if self.unlabelled != "kl" and self.unlabelled_weight:
            asked = losses.unlabelled_loss(self.unlabelled, logits, batch.y, batch.unlabelled_weight)
            terms[self.unlabelled] = self.unlabelled_weight * asked
        if self.reconstruction_weight:
            terms["content"] = self.reconstruction_weight * F.mse_loss(nets.content(z), batch.x)
        return terms

    def kl(self, posterior: Posterior) -> Tensor:
        return losses.kl_divergence(posterior, self.kl_free_bits, self.kl_capacity, self.kl_reduction)

    def critic_losses(self) -> tuple[Loss, ...]:
        if self.critic_update == "joint":
            return (self.critic_joint_loss,)
        return (self.critic_real_loss, self.critic_generated_loss)

    def critic_real_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """Algorithm 2, 1a: the critic towards +label on real samples."""
        terms = {"real": losses.critic_loss(self.adversarial, nets.critic(batch.x), +1, self.critic_label)}
        return terms | self.r1(nets, batch)

    def critic_generated_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """Algorithm 2, 1b: the critic towards -label on Dec(Enc(X))."""
        x_hat = self.generated(nets, batch)
        terms = {"generated": losses.critic_loss(self.adversarial, nets.critic(x_hat), -1, self.critic_label)}
        return terms | self.penalty(nets, batch, x_hat)

    def critic_joint_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """Both at once, in one call of the critic; two calls would give the same to rounding."""
        x_hat = self.generated(nets, batch)
        real, generated = nets.critic(torch.cat([batch.x, x_hat])).chunk(2)
        terms = {
            "real": 0.5 * losses.critic_loss(self.adversarial, real, +1, self.critic_label),
            "generated": 0.5 * losses.critic_loss(self.adversarial, generated, -1, self.critic_label),
        }
        return terms | self.penalty(nets, batch, x_hat) | self.r1(nets, batch)

    def penalty(self, nets: SimpleNamespace, batch: Batch, x_hat: Tensor) -> Terms:
        if self.critic_regulariser != "gradient_penalty":
            return {}
        mix = torch.special.ndtr(batch.noise["mix"])  # uniform in [0, 1]
        return {"penalty": self.penalty_weight * losses.gradient_penalty(nets.critic, batch.x, x_hat, mix)}

    def r1(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        if self.critic_regulariser != "r1":
            return {}
        return {"r1": self.penalty_weight * losses.r1_penalty(nets.critic, batch.x)}

    def generated(self, nets: SimpleNamespace, batch: Batch) -> Tensor:
        """Dec(Enc(X)) without a graph: encoder and decoder are frozen while the critic learns."""
        posterior = nets.encoder(batch.x)[0] if batch.posterior is None else batch.posterior
        return self.decoded(nets, batch, posterior)

    def decoder_loss(self, nets: SimpleNamespace, batch: Batch) -> Terms:
        """Algorithm 2, 2: L_rec + beta L_adv + gamma L_latent (eq 8); terms of weight zero are not computed."""
        if batch.posterior is None:
            posterior, features = nets.encoder(batch.x)
        else:
            posterior, features = batch.posterior, nets.encoder.stages(batch.x)
        x_hat = self.decoded(nets, batch, posterior)
        features_hat, rest = nets.encoder.features(x_hat)

        if self.feature_form == "gram":
            features, features_hat = ([losses.gram(f) for f in each] for each in (features, features_hat))
        terms = {"rec": losses.feature_loss(features, features_hat, self.alpha, self.feature_reduction)}
        if self.spectral_weight:
            terms["spectral"] = self.spectral_weight * losses.spectral_loss(batch.x, x_hat, self.spectral_windows)
        if self.envelope_weight:
            rhythms, whole = (losses.envelope(batch.x), losses.envelope(x_hat)), (batch.x.shape[-1],)
            terms["envelope"] = self.envelope_weight * losses.spectral_loss(*rhythms, whole)
        if self.beta:
            adversarial = losses.adversarial_loss(
                self.adversarial, nets.critic(x_hat), lambda: nets.critic(batch.x), self.critic_label
            )
            terms["adv"] = self.beta * adversarial
        if self.gamma:
            posterior_hat = nets.encoder.posterior(rest)
            logits = nets.classifier(self.latent(self.latent_input, posterior, batch.noise["z"]))
            logits_hat = nets.classifier(self.latent(self.latent_input, posterior_hat, batch.noise["z_hat"]))
            terms["latent"] = self.gamma * losses.latent_loss(logits, logits_hat, self.latent_form)
        return terms

    def decoded(self, nets: SimpleNamespace, batch: Batch, posterior: Posterior) -> Tensor:
        return nets.decoder(self.latent(self.decoder_input, posterior, batch.noise["z"]), batch.noise.get("stages"))

    @staticmethod
    def latent(kind: LatentInput, posterior: Posterior, eps: Tensor) -> Tensor:
        return posterior.sample(eps) if kind == "sample" else posterior.mean
