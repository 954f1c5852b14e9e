"""Schedules of the terms of a loss: a pure function of the iteration, so that there is no state to save."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from savae_dist.config.terms import ScheduleConfig

FACTOR = "_factor"  # ends the names of the curves of factors, `adv_factor`


def factor(schedule: ScheduleConfig, iteration: int) -> float:
    """Of a term's weight in iteration 0, 1, ... of a phase: 0 before `start`, then rising to 1 over `ramp`."""
    if iteration < schedule.start:
        return 0.0
    return min(1.0, (iteration - schedule.start + 1) / max(schedule.ramp, 1))


def weighted(terms: Mapping[str, Tensor], factors: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
    """The terms times their factors, without those that a schedule holds at 0: an infinite one times 0 would be NaN."""
    counted = {name: value for name, value in terms.items() if not left_out(factors.get(name, 1.0))}
    return {name: value * factors[name] if name in factors else value for name, value in counted.items()}


def left_out(factor: float | Tensor) -> bool:
    """Whether a term of this factor does not count at all; a tensor is not looked at, since that would wait for it."""
    return isinstance(factor, float) and factor == 0


def total(counted: Mapping[str, Tensor], terms: Mapping[str, Tensor], parameters: Iterable[nn.Parameter]) -> Tensor:
    """The loss, the sum of those terms that count.

    Where some are left out, what they alone train gets a gradient of zero, since DDP and ZeRO wait for one of every
    parameter.
    """
    kept = list(counted.values())
    if len(counted) < len(terms):
        kept.append(0.0 * torch.stack([parameter.sum() for parameter in parameters]).sum())
    return torch.stack(kept).sum()
