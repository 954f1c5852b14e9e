"""Both phases of SAVAE as one would write them by hand: what the trainer is compared with."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from savae_dist.benchmarks.setting import Setting, Step
from savae_dist.data import Order, Reader, Request, Shards
from savae_dist.errors import ConfigError
from savae_dist.networks import Network
from savae_dist.preprocess import normalise

PRELOADED = 4096  # samples that the loops hold in memory


class Preloaded:
    """Batches without a loader: float samples that lie on the device, in a shuffled order."""

    def __init__(self, setting: Setting) -> None:
        raw = samples(setting.shards)
        self.x = normalise(raw[0], setting.shards.spec).to(setting.device)
        self.y = raw[1].to(setting.device)
        self.size = min(setting.config.data.batch_size, len(self.y))
        self.latent_dim = setting.config.system.latent_dim
        self.left = self.x.new_empty(0, dtype=torch.int64)

    def batch(self) -> tuple[Tensor, Tensor]:
        if len(self.left) < self.size:
            self.left = torch.randperm(len(self.y), device=self.y.device)
        here, self.left = self.left[: self.size], self.left[self.size :]
        return self.x.index_select(0, here), self.y.index_select(0, here)

    def noise(self) -> Tensor:
        return torch.randn(self.size, self.latent_dim, device=self.x.device)


def samples(shards: Shards) -> tuple[Tensor, Tensor]:
    """The first `PRELOADED` samples as stored, and their labels."""
    n = min(PRELOADED, shards.size)
    raw = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, n, range(n))]
    return raw.x, raw.y


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step by hand: the loop must not use the engine, because it is the reference for its numbers and speed."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def adam(setting: Setting, update: str, *networks: Network) -> torch.optim.Optimizer:
    parameters = [p for network in networks for p in network.parameters()]
    return torch.optim.Adam(parameters, setting.config.optimizers[update].lr, fused=True)


def written_vec(setting: Setting, data: Preloaded) -> Step:
    """Algorithm 1 by hand."""
    nets: dict[str, Any] = setting.networks()
    encoder, classifier = nets["encoder"].train(), nets["classifier"].train()
    optimizer, weight = adam(setting, "vec", encoder, classifier), setting.config.system.kl_weight

    def step() -> None:
        x, y = data.batch()
        posterior, _ = encoder(x)
        logits = classifier(posterior.sample(data.noise()))
        kl = posterior.kl().sum(1).mean()
        descend(weight * kl + F.cross_entropy(logits, y, ignore_index=-1), optimizer)

    return step


def written_decoder(setting: Setting, data: Preloaded) -> Step:
    """Algorithm 2 by hand, with every exact saving but the cache of posteriors."""
    nets: dict[str, Any] = setting.networks()
    system = setting.config.system
    encoder, classifier, decoder, critic = (nets[name] for name in ("encoder", "classifier", "decoder", "critic"))
    encoder.eval().requires_grad_(False)
    classifier.eval().requires_grad_(False)
    learn_critic, learn_decoder = adam(setting, "critic", critic), adam(setting, "decoder", decoder)

    def critic_steps() -> None:
        critic.requires_grad_(True)
        x, _ = data.batch()
        descend((1 - critic(x)).square().mean(), learn_critic)
        x, _ = data.batch()
        with torch.no_grad():
            x_hat = decoder(encoder(x)[0].sample(data.noise()))
        descend((-1 - critic(x_hat)).square().mean(), learn_critic)
        critic.requires_grad_(False)

    def step() -> None:
        if system.beta:
            critic_steps()
        x, _ = data.batch()
        posterior, features = encoder(x)  # no graph: nothing here wants a gradient
        z = posterior.sample(data.noise())
        x_hat = decoder(z)
        features_hat, rest = encoder.features(x_hat)
        loss = torch.stack([a * F.mse_loss(h, f) for a, h, f in zip(system.alpha, features_hat, features)]).sum()
        if system.beta:
            loss = loss + system.beta * (critic(x) - critic(x_hat)).square().mean()
        if system.gamma:
            z_hat = encoder.posterior(rest).sample(data.noise())
            difference = classifier(z).softmax(1) - classifier(z_hat).softmax(1)
            loss = loss + system.gamma * difference.square().sum(1).mean()
        descend(loss, learn_decoder)

    return step


WRITTEN: dict[str, Callable[[Setting, Preloaded], Step]] = {"vec": written_vec, "decoder": written_decoder}


def imported(folder: Path, setting: Setting, phase: str, scratch: Path) -> dict[str, Step]:
    """The loops `Phase1` and `Phase2` of `raw_torch.py` in `folder`, in both memory formats."""
    if not (folder / "raw_torch.py").is_file():
        raise ConfigError(f"--hand-written {folder} holds no raw_torch.py; name the folder that does")
    if setting.shards.spec.shape != (1, 28, 28) or setting.device.type != "cpu":
        raise ConfigError("--hand-written takes 28x28 grey images on a CPU; give such shards, and hide the GPU")
    sys.path[:] = dict.fromkeys([str(folder), *sys.path])  # its files import each other by bare names
    from nets import Plan
    from raw_torch import STAGES, Phase1, Phase2

    x, y = (t.numpy() for t in samples(setting.shards))
    where = str(scratch / "samples.npz")
    np.savez(where, x_train=x, y_train=y.clip(0), x_test=x[:1], y_test=y[:1].clip(0))
    config, system = setting.config, setting.config.system
    common = Plan(config.networks.width, system.latent_dim, setting.shards.spec.classes), config.data.batch_size
    uncached = tuple(stage for stage in STAGES if stage != "cache")
    loops: dict[str, Step] = {}
    for layout, last in (("NCHW", False), ("NHWC", True)):
        if phase == "vec":
            loops[f"Phase1 {layout}"] = Phase1(*common, channels_last=last, where=where).step
            continue
        for name, stages in ((layout, uncached), (f"{layout} cache", STAGES)):
            loop = Phase2(*common, stages, system.beta, system.gamma, channels_last=last, where=where)
            loops[f"Phase2 {name}"] = loop.step
    return loops
