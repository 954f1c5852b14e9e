"""Batch norms: over all processes' samples, recalibrated when a phase ends, and the same on all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from savae_dist.networks import Network
from savae_dist.systems.phases import Recalibration, Turn
from savae_dist.training.batches import Feed, RawBatch

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


@torch.no_grad()
def recalibrate(
    plan: Recalibration, networks: Mapping[str, Network], raw: Iterable[tuple[int, RawBatch]], feed: Feed
) -> None:
    """Recompute batch-norm statistics as averages over whole global batches.

    raw: (position, global batch) pairs, each global batch on one rank only, so that the statistics do not depend on
    the number of ranks. All ranks end with the same statistics.
    """
    norms = [norm for name in plan.networks for norm in batch_norms(networks[name])]
    if not norms:
        return
    for network in networks.values():
        network.eval()
    for norm in norms:
        norm.train()
        norm.track_running_stats = True
    synchronised = [norm for norm in norms if isinstance(norm, nn.SyncBatchNorm)]
    if synchronised and torch.distributed.is_initialized():
        alone, _ = torch.distributed.new_subgroups(1)
        for norm in synchronised:
            norm.process_group = alone  # ranks have different batches here, and not equally many
    momenta = [norm.momentum for norm in norms]
    sums = [torch.zeros_like(b, dtype=torch.float64) for norm in norms for b in _statistics(norm)]
    count = torch.zeros(1, dtype=torch.float64, device=feed.device)
    nets, turn = SimpleNamespace(**networks), Turn(plan.update, 0, 0, 0)
    for position, part in raw:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = 1.0  # the running statistics become those of this batch
        plan.forward(nets, feed.batch(part, feed.noise(turn, position)))
        assert all(norm.num_batches_tracked for norm in norms), f"{plan.forward} does not run all of {plan.networks}"
        for total, value in zip(sums, (b for norm in norms for b in _statistics(norm)), strict=True):
            total += value
        count += 1
    for tensor in (*sums, count):
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(tensor)
    means = iter(total / count for total in sums)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for buffer in _statistics(norm):
            buffer.copy_(next(means))
        norm.eval()
    for norm in synchronised:
        norm.process_group = None


def _statistics(norm: BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def broadcast_buffers(networks: Mapping[str, Network]) -> None:
    """Rank 0's running statistics to all ranks: before a validation, and when a phase ends."""
    if torch.distributed.is_initialized():
        for network in networks.values():
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, 0)
