"""Small systems and data that several tests share."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from savae_dist.config.schema import OptimizerConfig
from savae_dist.networks import Network
from savae_dist.preprocess import DataSpec
from savae_dist.systems.phases import Phase, System
from savae_dist.training.batches import Feed, Slicing, read_plan
from savae_dist.training.engine import PreparedUpdate, run_phase

IMAGE = DataSpec("image", (1, 12, 10), 4, "unit")
SIGNAL = DataSpec("signal", (2, 37), 4, "none")
CPU = torch.device("cpu")


@dataclass
class Raw:
    x: Tensor
    y: Tensor
    slot: Tensor
    labelled: int


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

    def raw(self, start: int, size: int, slots: range) -> Raw:
        whole = (start + torch.arange(size)) % len(self.x)
        slot = torch.tensor(slots)
        mine = whole[slot]
        return Raw(self.x[mine], self.y[mine], slot, int((self.y[whole] >= 0).sum()))

    def stream(self, phase: Phase, first: int, last: int, slicing: Slicing, origin: int = 0) -> Iterator[Raw]:
        for start, slots in read_plan(phase, first, last, origin, slicing):
            yield self.raw(start, slicing.size, slots)


class Trainer:
    """The engine on one process without files: `run(phase name, steps)` trains in place."""

    def __init__(
        self,
        system: System,
        spec: DataSpec = IMAGE,
        *,
        slicing: Slicing | None = None,
        norm: str = "batch",
        dtype: torch.dtype = torch.float32,
        optimizers: dict[str, OptimizerConfig] | None = None,
        unlabelled: bool = True,
        **prepared: object,
    ) -> None:
        torch.manual_seed(3)
        self.system, self.slicing = system, slicing or Slicing(8)
        self.networks: dict[str, Network] = system.build(spec, 4, norm, 2)
        for network in self.networks.values():
            network.to(dtype)
        self.phases = {phase.name: phase for phase in system.phases()}
        self.feed = Feed(self.slicing, CPU, lambda x: x, seed=11)
        self.data = Samples(spec, unlabelled=unlabelled, dtype=dtype)
        self.optimizers, self.prepared = optimizers or {}, prepared
        self.updates: dict[str, PreparedUpdate] = {}

    def prepare(self, name: str) -> dict[str, PreparedUpdate]:
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
        phase = self.phases[name]
        if first == 0:
            self.prepare(name)
        raw = self.data.stream(phase, first, steps, self.slicing)
        for _ in run_phase(phase, self.updates, raw, self.feed, first=first, last=steps, origin=0):
            pass

    def weights(self) -> dict[str, dict[str, Tensor]]:
        return {name: copy.deepcopy(network.state_dict()) for name, network in self.networks.items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Equal to the bit, buffers included."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The largest difference of any element."""
    return max((float((a[k].double() - b[k].double()).abs().max()) for k in a), default=0.0)
