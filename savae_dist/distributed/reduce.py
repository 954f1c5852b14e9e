"""Sums and means over all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from accelerate import PartialState
from torch import Tensor


def rank_sums(values: Tensor) -> Tensor:
    """The sum over all ranks, element by element."""
    if torch.distributed.is_initialized():
        values = values.to(PartialState().device)
        torch.distributed.all_reduce(values)
    return values


def means_and_rows(sums: Mapping[str, Tensor], own: Sequence[float]) -> tuple[dict[str, float], list[list[float]]]:
    """The means over all ranks, and the `own` numbers of every rank, in rank order; all in one reduction.

    sums: name -> (sum, count) of this rank; a mean is NaN if nothing counted.
    Each rank has a row in which all others have zeros, so the sum over the ranks holds everybody's row.
    """
    if not sums and not own:
        return {}, []
    ranks, rank = 1, 0
    if torch.distributed.is_initialized():
        ranks, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    rows = torch.zeros(ranks, len(own), dtype=torch.float64)
    rows[rank] = torch.tensor(own, dtype=torch.float64)
    pairs = torch.stack(list(sums.values())).double() if sums else rows.new_zeros(0, 2)
    values = rank_sums(torch.cat([pairs.flatten(), rows.to(pairs.device).flatten()])).cpu()
    pairs, rows = values[: 2 * len(sums)].reshape(-1, 2), values[2 * len(sums) :].reshape(ranks, -1)
    means = dict(zip(sums, (pairs[:, 0] / pairs[:, 1]).tolist(), strict=True))
    return means, rows.tolist()
