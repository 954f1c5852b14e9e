"""The engine on a few random samples, without files: the checks of a system train with it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor

from savae_dist.config.schema import OptimizerConfig
from savae_dist.data import RawBatch
from savae_dist.networks import Encoder, Network
from savae_dist.precision import autocast
from savae_dist.preprocess import DataSpec
from savae_dist.systems.phases import Batch, OptimizerStep, Phase, System
from savae_dist.training.batches import BatchBuilder, BatchSplit, PlannedStep, read_requests, training_plan
from savae_dist.training.engine import PreparedUpdate, run_phase
from savae_dist.training.noise import Shapes
from savae_dist.training.posteriors import encode

IMAGE = DataSpec("image", (1, 12, 10), 4, "unit")
SIGNAL = DataSpec("signal", (2, 37), 4, "none")
CPU = torch.device("cpu")


class Samples:
    """A fixed data set of `n` random samples, a third of them unlabelled; position p holds sample p mod n."""

    def __init__(
        self, spec: DataSpec, n: int = 50, unlabelled: bool = True, dtype: torch.dtype = torch.float32
    ) -> None:
        generator = torch.Generator().manual_seed(7)
        self.x = torch.rand(n, *spec.shape, generator=generator, dtype=dtype)
        self.y = torch.randint(0, spec.classes, (n,), generator=generator)
        if unlabelled:
            self.y[::3] = -1

    def raw(self, start: int, size: int, slots: range | np.ndarray) -> RawBatch:
        whole = (start + torch.arange(size)) % len(self.x)
        slot = torch.tensor(slots)
        mine = whole[slot]
        return RawBatch(self.x[mine], self.y[mine], mine, slot, int((self.y[whole] >= 0).sum()))

    def stream(self, plan: Iterable[PlannedStep], size: int) -> Iterator[RawBatch]:
        """What the plan reads with global batches of `size` samples."""
        return (self.raw(request.start, request.size, request.slots) for request in read_requests(plan, size))


@dataclass(frozen=True)
class Builder(BatchBuilder):
    """Draws noise in the dtype of the samples, because float64 layers accept no other."""

    dtype: torch.dtype = torch.float32

    def draws(self, seeds: Sequence[int], slots: Tensor, shapes: Shapes) -> dict[str, Tensor]:
        return {name: draws.to(self.dtype) for name, draws in super().draws(seeds, slots, shapes).items()}


class SmallRun:
    """A system trained on made-up samples: `run(phase name, steps)` trains its networks in place.

    split: of the global batch, over the processes of a launch. norm: of the networks. device: the CPU unless another is
    named, even where there are GPUs, because sums on CPUs are reproducible. prepared: further arguments of
    `PreparedUpdate`.
    """

    def __init__(
        self,
        system: System,
        spec: DataSpec = IMAGE,
        *,
        split: BatchSplit | None = None,
        norm: str = "batch",
        dtype: torch.dtype = torch.float32,
        device: torch.device = CPU,
        optimizers: dict[str, OptimizerConfig] | None = None,
        unlabelled: bool = True,
        **prepared: Any,
    ) -> None:
        PartialState(cpu=device.type == "cpu")
        torch.manual_seed(3)
        self.system, self.split = system, split or BatchSplit(8)
        self.networks: dict[str, Network] = system.build(spec, 4, norm, 2)
        for network in self.networks.values():
            network.to(device, dtype)
        self.phases = {phase.name: phase for phase in system.phases()}
        self.builder = Builder(self.split, device, lambda x: x, seed=11, dtype=dtype)
        self.data = Samples(spec, unlabelled=unlabelled, dtype=dtype)
        self.optimizers, self.prepared = optimizers or {}, prepared
        self.updates: dict[str, PreparedUpdate] = {}

    def prepare(self, name: str) -> dict[str, PreparedUpdate]:
        """The phase's updates, at their first step; also `self.updates`."""
        phase = self.phases[name]
        self.updates = {
            u.name: PreparedUpdate(
                u,
                phase,
                self.networks,
                self.optimizers.get(u.name, OptimizerConfig(**dict(u.optimizer))),
                **self.prepared,
            )
            for u in phase.updates
            if u.active
        }
        return self.updates

    def run(self, name: str, steps: int, first: int = 0) -> None:
        """Train iterations `first` to `steps` - 1 of a phase; `first` above 0 continues with the same updates."""
        phase = self.phases[name]
        if first == 0:
            self.prepare(name)
        starts = {name: update.config.start for name, update in self.updates.items()}
        self.follow(list(training_plan(phase, self.split, first=first, last=steps, origin=0, starts=starts)))

    def keep_posteriors(self, name: str) -> None:
        """Let the losses of a phase whose updates are prepared look up the posteriors of its frozen encoder."""
        encoder, size = self.networks[str(self.phases[name].posteriors)], self.split.size
        assert isinstance(encoder, Encoder)
        next(iter(self.updates.values())).enter()
        starts = range(self.split.rank * size, len(self.data.x), self.split.ranks * size)
        raw = (self.data.raw(start, n := min(size, len(self.data.x) - start), range(n)) for start in starts)
        kept = encode(encoder, raw, self.builder, len(self.data.x), autocast("fp32", self.builder.device))
        self.builder = replace(self.builder, posteriors=kept)

    def follow(self, plan: Sequence[PlannedStep]) -> None:
        """Take these steps with the updates that were prepared."""
        for _ in run_phase(plan, self.data.stream(plan, self.split.size), self.updates, self.builder):
            pass

    def take(self, planned: PlannedStep) -> None:
        """Take one step alone, and read its batch even if the plan has the step before read it."""
        self.follow([planned._replace(reads=self.split.slots())])

    def first_batch(self, step: OptimizerStep) -> Batch:
        """The samples at position 0 with the noise of that step."""
        return self.batch(PlannedStep(step, 0, 0, [], True))

    def batch(self, planned: PlannedStep) -> Batch:
        """The whole global batch of one process and accumulation step, as the engine makes it."""
        raw = self.data.raw(planned.position, self.split.size, range(self.split.size))
        plain = self.builder.batch(raw, planned.position)
        return replace(plain, noise=self.noise(planned.step, planned.position))

    def noise(self, step: OptimizerStep, position: int) -> dict[str, Tensor]:
        """The noise of a step for the whole global batch."""
        return self.builder.noise(step, position, torch.arange(self.split.size))

    def plan(self, phase: Phase, iteration: int = 0, origin: int = 0) -> list[PlannedStep]:
        """The optimiser steps of one iteration of a phase."""
        return list(training_plan(phase, self.split, first=iteration, last=iteration + 1, origin=origin))

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """A copy of each network's state dict, which is what is saved of it."""
        return {name: copy.deepcopy(network.state_dict()) for name, network in self.networks.items()}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """A copy of each network's parameters and buffers, those that are not saved included."""
        return {
            name: {key: t.detach().clone() for key, t in (*network.named_parameters(), *network.named_buffers())}
            for name, network in self.networks.items()
        }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether all tensors are equal, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference of any element."""
    return max((float((a[k].double() - b[k].double()).abs().max()) for k in a), default=0.0)
