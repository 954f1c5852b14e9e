"""`check_system` on a system with a second critic of its own, and on what breaks each rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from savae_dist.networks import NETWORKS, Critic, Network, make_autoencoder, make_critic
from savae_dist.networks.blocks import Norm
from savae_dist.preprocess import DataSpec
from savae_dist.systems import losses
from savae_dist.systems.phases import Batch, Phase, Update
from savae_dist.testing import IMAGE, SIGNAL, check_system

Fault = Literal["none", "writes", "draws", "unused", "sums", "forgets", "plain", "vector", "misspelt", "stray"]


class SpectrumCritic(Critic):
    """Scores the amplitudes of a sample's frequencies."""

    model_type = "test_spectrum_critic"

    def __init__(self, shape: Sequence[int], unused: bool = False) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.seen: Tensor
        self.score = nn.Linear(math.prod(shape[:-1]) * (shape[-1] // 2 + 1), 1, bias=False)
        if unused:
            self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(torch.fft.rfft(x).abs().flatten(1)).squeeze(1)


NETWORKS[SpectrumCritic.model_type] = SpectrumCritic


@dataclass(frozen=True)
class TwoCritics:
    """A VAE whose decoder faces two critics, with a fault to choose."""

    name: str = "two_critics"
    latent_dim: int = 3
    fault: Fault = "none"
    pipeline = ("encoder", "decoder")

    def build(self, spec: DataSpec, width: int, norm: Norm, pools: int) -> dict[str, Network]:
        spectrum = SpectrumCritic(spec.shape, unused=self.fault == "unused")
        return {
            **make_autoencoder("savae", spec.shape, self.latent_dim, width, norm, pools),
            "critic": make_critic("savae", spec.shape, width, norm, pools),
            "spectrum": spectrum if self.fault != "plain" else nn.Linear(2, 2),
        }

    def phases(self) -> tuple[Phase, ...]:
        z = {"z": (self.latent_dim,)}
        third = "spectrun" if self.fault == "misspelt" else "spectrum"
        vae = Update("vae", ("encoder", "decoder"), (self.vae_loss,), noise=z)
        critics = Update("critics", ("critic", third), (self.critics_loss,), noise=z, averaged=False)
        return (Phase("both", 10, (vae, critics), "shared"),)

    def vae_loss(self, nets: SimpleNamespace, batch: Batch) -> dict[str, Tensor]:
        posterior, _ = nets.encoder(batch.x)
        eps = torch.randn_like(posterior.mean) if self.fault == "draws" else batch.noise["z"]
        x_hat = nets.decoder(posterior.sample(eps))
        if self.fault == "writes":
            nets.spectrum.seen.add_(1)
        each = (x_hat - batch.x).square().flatten(1).sum(1)
        return {
            "rec": each if self.fault == "vector" else each.sum() if self.fault == "sums" else each.mean(),
            "kl": losses.kl_divergence(posterior),
            "adv": -nets.critic(x_hat).mean() - nets.spectrum(x_hat).mean(),
        }

    def critics_loss(self, nets: SimpleNamespace, batch: Batch) -> dict[str, Tensor]:
        x_hat = nets.decoder(batch.noise["z"])
        terms = {}
        for name in ("critic", "spectrum"):
            real, generated = getattr(nets, name)(torch.cat([batch.x, x_hat])).chunk(2)
            terms[f"{name}_real"] = losses.critic_loss("non_saturating", real, +1)
            terms[f"{name}_generated"] = losses.critic_loss("non_saturating", generated, -1)
        if self.fault == "forgets":
            nets.spectrum.seen.add_(1)
            terms["weight"] = nets.spectrum.seen * nets.spectrum.score.weight.square().sum()
        if self.fault == "stray":
            nets.decoder.last.weight.grad = torch.zeros_like(nets.decoder.last.weight)
        return terms


@pytest.mark.distributed
@pytest.mark.parametrize("spec", [IMAGE, SIGNAL], ids=["image", "signal"])
def test_a_system_that_keeps_the_rules_passes(spec: DataSpec) -> None:
    assert check_system(TwoCritics(), spec) is None


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            "writes",
            "phase 'both', update 'vae', loss 1: it changes spectrum.seen without naming 'spectrum' in `trains`",
        ),
        ("unused", "phase 'both', update 'critics': spectrum.unused.weight learns nothing: use it in a loss"),
        ("draws", "depends on the global random state: a loss draws numbers of its own; declare them as the update's"),
        ("forgets", "is another after a resumption: keep all that changes in training in parameters and in buffers"),
        ("plain", "network 'spectrum' is a torch Linear, not a savae_dist.networks.Network"),
        ("misspelt", "update 'critics' trains 'spectrun', and build makes encoder, decoder, critic, spectrum"),
        ("stray", "phase 'both', update 'critics', loss 1: it leaves a gradient behind in decoder"),
        pytest.param("sums", "differs by", marks=pytest.mark.distributed),
    ],
)
def test_a_broken_rule_is_named(fault: Fault, sentence: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check_system(TwoCritics(fault=fault))
    assert sentence in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_idle_parameters_are_those_that_learn_nothing() -> None:
    broken = replace(TwoCritics(), fault="unused")
    idle = {"spectrum.unused.weight", "spectrum.unused.bias"}
    with pytest.raises(AssertionError, match=r"spectrum\.score\.weight is called idle, and learns"):
        check_system(broken, idle={*idle, "spectrum.score.weight"})
