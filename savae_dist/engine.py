"""The only place that freezes, backpropagates, clips and steps.

`run_phase` walks through the turns of a phase; each is one call of a `PreparedUpdate`, whose forward pass is one
`UpdateModule`, so that DDP and DeepSpeed wrap exactly one call.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from savae_dist.feed import Feed, RawBatch, positions
from savae_dist.networks import Network
from savae_dist.optim import (
    OptimizerConfig,
    WeightAverage,
    clip_gradients,
    clip_weights,
    gradient_norm,
    learning_rate,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
)
from savae_dist.phases import Batch, Phase, Recalibration, Turn, Update

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


class UpdateModule(nn.Module):
    """The whole forward pass of an update."""

    nets: SimpleNamespace

    def __init__(self, update: Update, networks: Mapping[str, Network]) -> None:
        super().__init__()
        self.losses = update.losses
        self.trained = nn.ModuleDict({name: networks[name] for name in update.trains})
        # Outside the module tree: frozen networks are hidden from the reducer, the optimizer and ZeRO.
        self.__dict__["nets"] = SimpleNamespace(**networks)

    def forward(self, batch: Batch, which: int = 0) -> dict[str, Tensor]:
        return self.losses[which](self.nets, batch)


def make_accelerator(precision: str) -> Accelerator:
    """One per update: each has its own fp16 scaler, and DeepSpeed steps the engine that its Accelerator prepared."""
    # Buffers are not broadcast: rank 0's running statistics are the run's (see broadcast_buffers).
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    mixed_precision = {"fp32": "no"}.get(precision, precision)
    return Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[ddp], cpu=not torch.cuda.is_available())


class PreparedUpdate:
    """An update with its optimiser, wrapped for the launch at hand."""

    def __init__(
        self,
        update: Update,
        phase: Phase,
        networks: Mapping[str, Network],
        config: OptimizerConfig,
        *,
        precision: str = "fp32",
        compile: bool = False,
        ema: float = 0.0,
    ) -> None:
        self.update, self.config, self.total = update, config, phase.steps
        self.accelerator = make_accelerator(precision)
        in_play = {name for other in phase.updates for name in other.trains}
        self._states = _network_states(networks, set(update.trains), in_play)
        self.enter()  # before wrapping: DDP reduces what requires a gradient now
        module = UpdateModule(update, networks)
        self.parameters = dict(module.trained.named_parameters())
        self.buffers = list(module.trained.buffers())
        if compile:
            module.compile()
        with warnings.catch_warnings():  # newer releases of torch rename it, older ones know no other name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            self.module = self.accelerator.prepare_model(module)
        self.optimizer = make_optimizer(list(self.parameters.values()), config)
        averaged = update.trains if ema and update.averaged else ()
        self.averages = {name: WeightAverage(networks[name], ema) for name in averaged}
        self.meter = Meter()
        device = self.accelerator.device
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped_in_a_row = torch.zeros((), dtype=torch.int64, device=device)

    def enter(self) -> None:
        """Freeze everything but this update's networks, and set every network's mode."""
        for parameter, trained in self._states.parameters:
            if parameter.requires_grad is not trained:
                parameter.requires_grad_(trained)
        for module, training in self._states.modules:
            if module.training is not training:
                module.training = training
        for norm, track in self._states.norms:
            norm.track_running_stats = track

    def step(self, which: int, slices: list[Batch], iteration: int) -> None:
        """One optimiser step of loss `which` on one global batch, of which `slices` are this rank's parts."""
        self.enter()
        self.lr = learning_rate(self.config, iteration, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        before = [buffer.clone() for buffer in self.buffers]
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(slices, 1):
            # Reduced over the ranks once, in the last backward pass.
            with nullcontext() if number == len(slices) else self.accelerator.no_sync(self.module):
                terms = self.module(batch, which)
                self.accelerator.backward(torch.stack(list(terms.values())).sum() / len(slices))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(slices)
        self._apply(sums, before)

    def _apply(self, sums: dict[str, Tensor], before: list[Tensor]) -> None:
        """Clip and step; a step whose gradient is not finite changes nothing, on all ranks alike, and is counted."""
        scaler = self.accelerator.scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = gradient_norm(gradients)
        finite = torch.isfinite(norm)
        clip_gradients(gradients, norm, self.config)
        # Fused optimisers look for this attribute and read it on the device.
        self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        if scaler is not None:
            scaler.update()
        self.optimizer.zero_grad(set_to_none=True)  # now, so that no gradient lies about while others train
        clip_weights(list(self.parameters.values()), finite, self.config)
        for buffer, old in zip(self.buffers, before, strict=True):
            buffer.copy_(torch.where(finite, buffer, old))
        for average in self.averages.values():
            average.update(finite.float())
        self.skipped += ~finite
        self.skipped_in_a_row = (self.skipped_in_a_row + 1) * ~finite
        self.meter.add({**sums, "gradient_norm": norm}, finite)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint keeps of it: tensors by parameter name, and plain values."""
        tensors, values = optimizer_state(self.optimizer, self.parameters)
        values["averaged"] = {name: average.updates for name, average in self.averages.items()}
        values["skipped"] = [int(self.skipped), int(self.skipped_in_a_row)]
        values["scaler"] = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
        return tensors, values

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        load_optimizer_state(self.optimizer, self.parameters, tensors)
        for name, average in self.averages.items():
            average.updates = values["averaged"][name]
        self.skipped.fill_(values["skipped"][0])
        self.skipped_in_a_row.fill_(values["skipped"][1])
        if self.accelerator.scaler is not None and values["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(values["scaler"])


@dataclass(frozen=True)
class _States:
    parameters: list[tuple[nn.Parameter, bool]]  # (parameter, requires gradient)
    modules: list[tuple[nn.Module, bool]]  # (module, training)
    norms: list[tuple[BatchNorm, bool]]  # (batch norm, track running statistics)


def _network_states(networks: Mapping[str, Network], trained: set[str], in_play: set[str]) -> _States:
    """What each network must look like during an update that trains `trained` in a phase that trains `in_play`.

    A network of another update of the phase is in eval mode, but its batch norms use the batch and leave their
    running statistics alone: it gives what it gives while it trains, and keeps every buffer.
    """
    parameters = [(p, name in trained) for name, network in networks.items() for p in network.parameters()]
    states = _States(parameters, [], [])
    for name, network in networks.items():
        for module in network.modules():
            if isinstance(module, BatchNorm):
                states.modules.append((module, name in in_play))
                states.norms.append((module, name in trained or name not in in_play))
            else:
                states.modules.append((module, name in trained))
    return states


class Meter:
    """Sums of scalars on the device since the last `drain`; steps that were left out do not count."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], counts: Tensor) -> None:
        for name, value in values.items():
            entry = torch.stack([torch.where(counts, value.float(), 0.0), counts.float()])
            self.sums[name] = self.sums[name] + entry if name in self.sums else entry

    def drain(self) -> dict[str, Tensor]:
        """Name -> (sum, count) `[2]`."""
        sums, self.sums = self.sums, {}
        return sums


def run_phase(
    phase: Phase,
    updates: Mapping[str, PreparedUpdate],
    raw: Iterator[RawBatch],
    feed: Feed,
    *,
    first: int,
    last: int,
    origin: int,
) -> Iterator[int]:
    """Train iterations `first` to `last`; yields the number of finished iterations after each."""
    for iteration in range(first, last):
        slices: dict[int, list[RawBatch]] = {}
        for turn, start in positions(phase, iteration, origin, feed.slicing.size):
            if start not in slices:
                slices = {start: [next(raw) for _ in feed.slicing.slots()]}
                variation = feed.variation(start)
            noise = feed.noise(turn, start)
            batches = [feed.batch(part, noise, variation) for part in slices[start]]
            updates[turn.update.name].step(turn.which, batches, iteration)
        yield iteration + 1


@torch.no_grad()
def recalibrate(
    plan: Recalibration, networks: Mapping[str, Network], raw: Iterable[tuple[int, RawBatch]], feed: Feed
) -> None:
    """Recompute batch-norm statistics as averages over whole global batches.

    raw: (position, global batch) pairs, each global batch on one rank only, so that the statistics do not depend on
    the number of ranks. All ranks end with the same statistics.
    """
    norms = [m for name in plan.networks for m in networks[name].modules() if isinstance(m, BatchNorm)]
    if not norms:
        return
    for network in networks.values():
        network.eval()
    for norm in norms:
        norm.train()
        norm.track_running_stats = True
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
