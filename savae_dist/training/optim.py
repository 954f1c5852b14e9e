"""Optimisers, schedules, clipping and weight averages."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from savae_dist.config.schema import OptimizerConfig


def make_optimizer(parameters: Sequence[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Always fused: such a step is left out on the device itself where its `found_inf` is 1; the host isn't asked."""
    if config.name == "sgd":
        sgd = torch.optim.SGD(
            parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
        )
        reset_state(sgd)
        return sgd
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def reset_state(optimizer: torch.optim.Optimizer) -> None:
    """As if no step had been made; torch leaves momentum uninitialised if the very first one is left out."""
    optimizer.state.clear()
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """State tensors as `parameter/name`."""
    return {
        f"{name}/{key}": value.detach() for name, p in parameters.items() for key, value in optimizer.state[p].items()
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Inverse of `optimizer_state`."""
    for full, value in tensors.items():
        name, key = full.rsplit("/", 1)
        parameter = parameters[name]
        # In the parameter's own memory layout: fused optimisers walk through memory, not through indices.
        own = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
        optimizer.state[parameter][key] = own.to(parameter.device).copy_(value)


def learning_rate(config: OptimizerConfig, iteration: int, total: int) -> float:
    """Learning rate of iteration 0 .. total - 1 of a phase."""
    if iteration < config.warmup:
        return config.lr * (iteration + 1) / config.warmup
    if config.schedule == "cosine":
        progress = (iteration - config.warmup) / max(total - config.warmup, 1)
        return config.lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    if config.schedule == "step":
        return config.lr * config.decay_factor ** ((iteration - config.warmup) // config.decay_every)
    return config.lr


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """2-norm over all gradients, float32 scalar on their device."""
    return nn.utils.get_total_norm([gradient.float() for gradient in gradients])


def clip_gradients(parameters: Sequence[nn.Parameter], norm: Tensor, config: OptimizerConfig) -> None:
    """First by the norm (`norm` is that of the whole gradient), then by value."""
    if config.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, config.clip_norm, norm)
    if config.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, config.clip_value)


@torch.no_grad()
def clip_weights(parameters: Sequence[nn.Parameter], limit: float, applied: Tensor) -> None:
    """Each weight to [-limit, limit]. applied: boolean scalar; a step that was left out leaves the weights alone."""
    bound = torch.where(applied, limit, math.inf)
    for parameter in parameters:
        parameter.clamp_(-bound, bound)


N = TypeVar("N", bound=nn.Module)


class WeightAverage(Generic[N]):
    """Exponential moving average of a network's weights and floating-point buffers: a += (1 - d) (w - a).

    d = min(decay, (1 + n) / (10 + n)) at update n = 0, 1, ..., so that a short run is not an average of its start.
    """

    def __init__(self, network: N, decay: float) -> None:
        self.network, self._current = copy.deepcopy(network).eval(), network
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, applied: Tensor) -> None:
        """`applied` is 1, or 0 where the step was left out."""
        # Looked up now and not detached: wrapping a later update may give the network other memory, or other buffers.
        averages, currents = (
            [tensor for tensor in (*network.parameters(), *network.buffers()) if tensor.is_floating_point()]
            for network in (self.network, self._current)
        )
        difference = torch._foreach_sub(currents, averages)
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_mul_(difference, (1 - decay) * applied)
        torch._foreach_add_(averages, difference)
