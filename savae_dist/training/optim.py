"""Optimisers, schedules, clipping and weight averages."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from savae_dist.config.schema import OptimizerConfig
from savae_dist.latents import full_precision

STEP = "step"  # the one state of torch's optimisers that is a count and not shaped like the parameter


def make_optimizer(parameters: Sequence[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimiser, always fused: where `found_inf` is 1, it skips a step on the device without asking the host."""
    if config.name == "sgd":
        sgd = torch.optim.SGD(
            parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
        )
        reset_state(sgd)
        return sgd
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(parameters, config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True)


def reset_state(optimizer: torch.optim.Optimizer) -> None:
    """Reset to before the first step, with zero momentum: torch leaves it uninitialised if that step is skipped."""
    optimizer.state.clear()
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("momentum") else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def optimizer_state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The state tensors, each named `parameter/name`."""
    return {
        f"{name}/{key}": value.detach() for name, p in parameters.items() for key, value in optimizer.state[p].items()
    }


def check_state(
    shapes: Mapping[str, torch.Size],
    tensors: Mapping[str, Tensor],
    config: OptimizerConfig,
    stateless: Sequence[str] | None,
) -> None:
    """ValueError unless the tensors are the optimiser's whole state, named and shaped as `optimizer_state` gives them.

    shapes: of the parameters, whole. stateless: those without a state; None: not known, as in older checkpoints.
    """
    keys = ("momentum_buffer",) * bool(config.momentum) if config.name == "sgd" else (STEP, "exp_avg", "exp_avg_sq")
    there = {full.rsplit("/", 1)[0] for full in tensors}
    expected = {name for name in shapes if name not in (stateless or ())} if keys else set()
    if stateless is None and there:
        expected &= there
    needed = {f"{name}/{key}" for name in expected for key in keys}
    for full in sorted(needed ^ tensors.keys()):
        if full in needed:
            raise ValueError(f"the optimiser state lacks {full}")
        raise ValueError(f"the optimiser state names {full}, which this run does not train")
    for full, value in tensors.items():
        name, key = full.rsplit("/", 1)
        shape = torch.Size() if key == STEP else shapes[name]
        if value.shape != shape:
            raise ValueError(f"the optimiser state {full} is {list(value.shape)}, not {list(shape)}")


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Inverse of `optimizer_state`."""
    for full, value in tensors.items():
        name, key = full.rsplit("/", 1)
        parameter = parameters[name]
        # In the memory layout of the parameter: fused optimisers go through memory in order, whatever the strides.
        own = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
        optimizer.state[parameter][key] = own.to(parameter.device).copy_(value)


def learning_rate(config: OptimizerConfig, iteration: int, total: int) -> float:
    """Learning rate of iteration 0 .. total - 1 of a phase; its schedule begins where the update does."""
    iteration, total = iteration - config.start, total - config.start
    if iteration < config.warmup:
        return config.lr * (iteration + 1) / config.warmup
    if config.schedule == "cosine":
        progress = (iteration - config.warmup) / max(total - config.warmup, 1)
        return config.lr * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    if config.schedule == "step":
        return config.lr * config.decay_factor ** ((iteration - config.warmup) // config.decay_every)
    return config.lr


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """2-norm over all gradients, a scalar on their device, at least float32."""
    return nn.utils.get_total_norm([full_precision(gradient) for gradient in gradients])


def clip_gradients(parameters: Sequence[nn.Parameter], norm: Tensor, config: OptimizerConfig) -> None:
    """Clip by norm first (`norm`: of the whole gradient), then by value."""
    if config.clip_norm is not None:
        nn.utils.clip_grads_with_norm_(parameters, config.clip_norm, norm)
    if config.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, config.clip_value)


@torch.no_grad()
def clip_weights(parameters: Sequence[nn.Parameter], limit: float, applied: Tensor) -> None:
    """Clamp each weight to [-limit, limit]. applied: boolean scalar; a skipped step leaves the weights unchanged."""
    bound = torch.where(applied, limit, math.inf)
    for parameter in parameters:
        parameter.clamp_(-bound, bound)


N = TypeVar("N", bound=nn.Module)


class WeightAverage(Generic[N]):
    """Exponential moving average of a network's weights and floating-point buffers: a += (1 - d) (w - a).

    d = min(decay, (1 + n) / (10 + n)) at update n = 0, 1, ..., so that the initial weights do not
    dominate the average of a short run.
    """

    def __init__(self, network: N, decay: float) -> None:
        self.network, self._current = copy.deepcopy(network).eval(), network
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, applied: Tensor) -> None:
        """applied: 1, or 0 if the step was skipped."""
        # Looked up at each call: wrapping a later update may give the network other memory, or other buffers.
        averages, currents = (
            [tensor for tensor in (*network.parameters(), *network.buffers()) if tensor.is_floating_point()]
            for network in (self.network, self._current)
        )
        difference = torch._foreach_sub(currents, averages)
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_mul_(difference, (1 - decay) * applied)
        torch._foreach_add_(averages, difference)
