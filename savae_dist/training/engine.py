"""The only place that freezes, backpropagates, clips and steps.

`run_phase` walks through the turns of a phase; each is one call of a `PreparedUpdate`, whose forward pass is one
`UpdateModule`, so that DDP and DeepSpeed wrap exactly one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn

from savae_dist.config.schema import DdpConfig, OptimizerConfig, Precision
from savae_dist.latents import full_precision
from savae_dist.networks import Network
from savae_dist.precision import autocast, make_scaler
from savae_dist.systems.phases import Batch, Phase, Update
from savae_dist.training.batch_norm import BatchNorm
from savae_dist.training.batches import Feed, RawBatch, positions
from savae_dist.training.optim import WeightAverage, clip_gradients, clip_weights, learning_rate, make_optimizer
from savae_dist.training.strategies import Parallel, Partitions, Replicas


class UpdateModule(nn.Module):
    """The whole forward pass of an update."""

    nets: SimpleNamespace

    def __init__(self, update: Update, networks: Mapping[str, Network], arithmetic: torch.autocast) -> None:
        super().__init__()
        self.losses = update.losses
        self.trained = nn.ModuleDict({name: networks[name] for name in update.trains})
        self.arithmetic = arithmetic
        # Outside the module tree: frozen networks are hidden from the reducer, the optimizer and ZeRO.
        self.__dict__["nets"] = SimpleNamespace(**networks)

    def forward(self, batch: Batch, which: int = 0) -> dict[str, Tensor]:
        with self.arithmetic:
            terms = self.losses[which](self.nets, batch)
        return {name: full_precision(value) for name, value in terms.items()}


class PreparedUpdate:
    """An update with its optimiser, wrapped for the launch at hand.

    zero: DeepSpeed's ZeRO stage, 0 for whole replicas.
    """

    def __init__(
        self,
        update: Update,
        phase: Phase,
        networks: Mapping[str, Network],
        config: OptimizerConfig,
        *,
        precision: Precision = "fp32",
        compile: bool = False,
        ema: float = 0.0,
        zero: int = 0,
        ddp: DdpConfig | None = None,
    ) -> None:
        self.update, self.config, self.total = update, config, phase.steps
        device = PartialState().device
        in_play = {name for other in phase.updates for name in other.trains}
        self._states = _network_states(networks, set(update.trains), in_play)
        self.enter()  # before wrapping: DDP reduces what requires a gradient now
        module = UpdateModule(update, networks, autocast(precision, device))
        self.parameters = dict(module.trained.named_parameters())
        self.trained = module.trained
        if compile:
            module.compile()
        self.optimizer = make_optimizer(list(self.parameters.values()), config)
        self.optimizer.register_step_pre_hook(self._before_step)
        self.optimizer.register_step_post_hook(self._after_step)
        self.parallel: Parallel = (
            Partitions(module, self.optimizer, zero, ddp or DdpConfig())
            if zero
            else Replicas(module, self.optimizer, ddp or DdpConfig())
        )
        self.scaler = make_scaler(precision, device)
        averaged = update.trains if ema and update.averaged else ()
        self.averages = {name: WeightAverage(networks[name], ema) for name in averaged}
        self.meter = Meter()
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
        """One optimiser step of loss `which` on one global batch, of which `slices` are this rank's parts.

        One whose gradient is not finite changes nothing, on all ranks alike, and is counted.
        """
        self.enter()
        self.lr = learning_rate(self.config, iteration, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        buffers = list(self.trained.buffers())  # now, because wrapping an update may replace them
        before = [buffer.clone() for buffer in buffers]
        if self.parallel.unsettled:
            self._backward(which, slices[-1:])
            self.optimizer.zero_grad(set_to_none=True)
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)
            self.parallel.unsettled = False
        sums = self._backward(which, slices)
        self.parallel.step()
        self.optimizer.zero_grad(set_to_none=True)  # now, so that no gradient lies about while others train
        if self.scaler is not None:
            self.scaler.update()
        for buffer, old in zip(buffers, before, strict=True):
            buffer.copy_(torch.where(self.finite, buffer, old))
        for average in self.averages.values():
            average.update(self.finite.float())
        self.skipped += ~self.finite
        self.skipped_in_a_row = (self.skipped_in_a_row + 1) * ~self.finite
        self.meter.add({**sums, "gradient_norm": self.norm}, self.finite)

    def _backward(self, which: int, slices: list[Batch]) -> dict[str, Tensor]:
        """Accumulate the gradient of loss `which`; the terms, averaged over the slices."""
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(slices, 1):
            with self.parallel.part(last=number == len(slices)):
                terms = self.parallel.forward(batch, which)
                loss = torch.stack(list(terms.values())).sum() / len(slices)
                self.parallel.backward(loss if self.scaler is None else self.scaler.scale(loss))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(slices)
        return sums

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Look at this rank's gradients, clip them, and tell the optimiser whether to leave the step out."""
        gradients = [p.grad for p in optimizer.param_groups[0]["params"] if p.grad is not None]
        self.norm = self.parallel.norm(gradients)
        if self.scaler is not None:
            torch._foreach_add_(gradients, self.norm * 0)  # NaN for all scalers if the gradient of any rank overflowed
            self.scaler.unscale_(optimizer)
            self.norm = self.norm / self.scaler.scale(torch.ones_like(self.norm))
        self.finite = torch.isfinite(self.norm)
        clip_gradients(gradients, self.norm, self.config)
        # Fused optimisers look for this attribute and read it on the device.
        optimizer.found_inf = (~self.finite).float()  # type: ignore[attr-defined]

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        clip_weights(optimizer.param_groups[0]["params"], self.finite, self.config)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint keeps of it: tensors by parameter name, and plain values; every rank must call it."""
        values = {
            "optimizer": type(self.optimizer).__name__,
            "averaged": {name: average.updates for name, average in self.averages.items()},
            "skipped": [int(self.skipped), int(self.skipped_in_a_row)],
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
        }
        return self.parallel.state(self.parameters), values

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        unknown = {full.rsplit("/", 1)[0] for full in tensors} - self.parameters.keys()
        if unknown:
            raise ValueError(f"the optimiser state names {min(unknown)}, which this run does not train")
        self.parallel.load_state(self.parameters, tensors)
        for name, average in self.averages.items():
            average.updates = values["averaged"][name]
        self.skipped.fill_(values["skipped"][0])
        self.skipped_in_a_row.fill_(values["skipped"][1])
        if self.scaler is not None and values["scaler"] is not None:
            self.scaler.load_state_dict(values["scaler"])

    def close(self) -> None:
        """Let go of the networks, so that another phase may train them."""
        self.parallel.close()


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
