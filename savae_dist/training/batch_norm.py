"""Batch-norm statistics: recalibrated when a phase ends, and kept equal on all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from savae_dist.data import RawBatch
from savae_dist.networks import Network
from savae_dist.systems.phases import OptimizerStep, Recalibration
from savae_dist.training.batches import BatchBuilder, Together, alone

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


@torch.no_grad()
def recalibrate(
    plan: Recalibration,
    networks: Mapping[str, Network],
    raw: Iterable[tuple[int, RawBatch]],
    builder: BatchBuilder,
    together: Together = alone,
) -> None:
    """Recompute batch-norm statistics as averages over whole global batches, equal on all ranks.

    raw: (position, global batch) pairs, each global batch on one rank only, so that the statistics do not depend on
    the number of ranks.
    """
    norms = [norm for name in plan.networks for norm in batch_norms(networks[name])]
    if not norms:
        return
    sums = [torch.zeros_like(statistic, dtype=torch.float64) for statistic in _statistics(norms)]
    count = torch.zeros(1, dtype=torch.float64, device=builder.device)
    nets, step = SimpleNamespace(**networks), OptimizerStep(plan.update, 0, 0, 0)

    def record() -> None:
        for position, part in raw:
            for norm in norms:
                norm.reset_running_stats()
            plan.forward(nets, replace(builder.batch(part), noise=builder.noise(step, position, part.slot)))
            assert all(norm.num_batches_tracked for norm in norms), f"{plan.forward} misses some of {plan.networks}"
            for total, statistic in zip(sums, _statistics(norms), strict=True):
                total += statistic
            count.add_(1)

    with _recording_one_batch(norms, networks):
        together(record)
    if torch.distributed.is_initialized():
        for tensor in (*sums, count):
            torch.distributed.all_reduce(tensor)
    for total, statistic in zip(sums, _statistics(norms), strict=True):
        statistic.copy_(total / count)


@contextmanager
def _recording_one_batch(norms: Sequence[BatchNorm], networks: Mapping[str, Network]) -> Iterator[None]:
    """Put all networks in eval mode except `norms`, whose running statistics become those of the last batch alone."""
    for network in networks.values():
        network.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.track_running_stats = True
        norm.momentum = 1.0
    # No synchronised statistics here: ranks have different batches, and may differ in how many.
    synchronised = [norm for norm in norms if isinstance(norm, nn.SyncBatchNorm)]
    if synchronised and torch.distributed.is_initialized():
        alone, _ = torch.distributed.new_subgroups(1)
        for norm in synchronised:
            norm.process_group = alone
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    for norm in synchronised:
        norm.process_group = None


def _statistics(norms: Iterable[BatchNorm]) -> Iterator[Tensor]:
    """The running mean and variance of each norm."""
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        yield norm.running_mean
        yield norm.running_var


def broadcast_buffers(networks: Mapping[str, Network]) -> None:
    """Copy rank 0's buffers, such as running statistics, to all ranks."""
    if torch.distributed.is_initialized():
        for network in networks.values():
            for buffer in network.buffers():
                torch.distributed.broadcast(buffer, 0)
