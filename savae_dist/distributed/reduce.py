"""Sums and means over all ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate import PartialState
from torch import Tensor


def rank_sums(values: Tensor) -> Tensor:
    """The sum over all ranks, element by element."""
    if torch.distributed.is_initialized():
        values = values.to(PartialState().device)
        torch.distributed.all_reduce(values)
    return values


def rank_means(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """The means over all ranks, in one reduction; NaN if nothing counted. sums: name -> (sum, count) of this rank."""
    if not sums:
        return {}
    values = rank_sums(torch.stack(list(sums.values())).double()).cpu()
    return dict(zip(sums, (values[:, 0] / values[:, 1]).tolist(), strict=True))
