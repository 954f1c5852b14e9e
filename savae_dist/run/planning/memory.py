"""What a training step needs of memory, and which `accumulate` fits, known from small steps before training begins.

After each operation of a step the tensors that are held are counted, on two samples and again on four. At every such
moment they are a + b n bytes for n samples, so their most is known for any n without trying it.
"""

from __future__ import annotations

import math
import os
import re
import resource
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from savae_dist.config.strategy import SHOWN
from savae_dist.data import Request
from savae_dist.distributed.environment import ranks_of_node, world_size
from savae_dist.networks import FeatureNetwork
from savae_dist.run.reporting.units import size
from savae_dist.run.run import Run, Updates
from savae_dist.systems.phases import OptimizerStep, Phase
from savae_dist.training.batch_norm import batch_norms
from savae_dist.training.batches import BatchSplit, PlannedStep
from savae_dist.training.engine import run_phase

FEW, MORE = 2, 4  # samples; a batch norm needs two
MARGIN = 0.9  # share of the memory for tensors: allocators and convolutions need some besides
PROCESS = Path("/proc/self/status")  # Linux's account of this process
CGROUP = Path("/sys/fs/cgroup/memory.max")  # holds a container's limit


class HeldBytes(TorchDispatchMode):
    """`after`: the bytes of the tensors that were made inside and are held, after each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        self.after: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # Results in the memory of an argument (views, operations in place) are not new.
        known = {storage.data_ptr() for storage in storages((args, kwargs))}
        for storage in storages(result):
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                self.held += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes()).atexit = False
        self.after.append(self.held)
        return result

    def _freed(self, size: int) -> None:
        self.held -= size


def storages(values: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


@dataclass(frozen=True)
class StepCost:
    """Bytes that the steps of an update hold beside the networks: `fixed` + `each` x samples, at every moment."""

    name: str
    fixed: np.ndarray
    each: np.ndarray

    @classmethod
    def between(cls, name: str, few: Sequence[int], more: Sequence[int]) -> StepCost:
        """From what is held with `FEW` and with `MORE` samples, after every operation."""
        if len(few) != len(more):  # the moments do not correspond, so only the highest ones are compared
            few, more = [max(few)], [max(more)]
        each = (np.array(more) - np.array(few)) / (MORE - FEW)
        return cls(name, np.array(few) - FEW * each, each)

    def moment(self, samples: int) -> int:
        """When it holds the most, with so many samples at once."""
        return int((self.fixed + samples * self.each).argmax())

    def bytes(self, samples: int) -> int:
        """The most that it holds, with so many samples at once."""
        return int((self.fixed + samples * self.each).max())


@dataclass(frozen=True)
class PhaseCost:
    """steps: of each optimiser step. saved: bytes of optimisers' states and averages in a checkpoint."""

    steps: list[StepCost]
    saved: int


def report(run: Run) -> list[str]:
    """Memory of a step and of a checkpoint, and the `accumulate` that fits; each network's share."""
    split, device = run.data.builder.split, run.data.builder.device
    parts = {name: tensor_bytes([network]) for name, network in run.networks.items()}
    lines = [f"networks    {', '.join(f'{name} {size(part)}' for name, part in parts.items())}"]
    if run.process.strategy != "ddp":
        return [*lines, f"step        not measured under {SHOWN[run.process.strategy]}"]
    # On a CPU the process itself counts, the libraries above all; on a GPU only what lies there.
    there = sum(parts.values()) if device.type == "cuda" else resident()
    phases = [phase_cost(run, phase) for phase in run.phases if run.steps(phase)]
    steps = [step for phase in phases for step in phase.steps]
    most = max(steps, key=lambda step: step.bytes(split.rows))
    kept = sum(tensor_bytes([n]) for n in run.networks.values() if not isinstance(n, FeatureNetwork))
    saved = kept + max(phase.saved for phase in phases)
    copied = saved if run.config.checkpoint_background else 0
    there += copied if device.type == "cpu" else 0

    def needed(accumulate: int) -> int:
        samples = replace(split, accumulate=accumulate).rows
        return there + max(step.bytes(samples) for step in steps) + (accumulate - 1) * samples * sample_bytes(run)

    moment = most.moment(split.rows)
    here = f"data.batch_size={split.size} accumulate={split.accumulate}"
    return [
        *lines,
        f"step        {size(needed(split.accumulate))} with {here}, the most in {most.name}:",
        f"            {size(there)} before it, {size(most.fixed[moment])} for any batch, "
        f"{size(most.each[moment])} a sample",
        *fitting(split, needed, memory_of(device), any(batch_norms(n) for n in run.networks.values())),
        f"checkpoint  {size(saved)}{', and as much memory of rank 0 for the copy that is written' * bool(copied)}",
    ]


def fitting(split: BatchSplit, needed: Callable[[int], int], memory: int, batch_norm: bool) -> list[str]:
    """Whether the step fits into so many bytes, and if not, the smallest `accumulate` with which it does."""
    room = f"{size(memory)} for each process"
    if needed(split.accumulate) <= MARGIN * memory:
        return [f"            fits into {room}"]
    share = split.size // split.ranks
    least = 2 if batch_norm else 1  # samples at once
    parts = (n for n in range(split.accumulate, share // least + 1) if share % n == 0)
    found = next((n for n in parts if needed(n) <= MARGIN * memory), None)
    if found is None:
        return [f"            DOES NOT FIT into {room}: lower data.batch_size or networks.width"]
    advice = f"data.batch_size={split.size} accumulate={found} needs {size(needed(found))}"
    return [f"            DOES NOT FIT into {room}: {advice}"]


def phase_cost(run: Run, phase: Phase) -> PhaseCost:
    """Take each optimiser step of an iteration thrice, the first time for the optimisers' states; changes weights."""
    steps, held = [], HeldBytes()
    with held:
        updates = run.updates_of(phase, compile="none")
        active = [step for step in phase.optimizer_steps() if step.update.active and not step.repeat]
        for step in active:
            take(run, phase, updates, step, FEW)
        for step in active:
            timelines = []
            for samples in (FEW, MORE):
                held.after.clear()
                take(run, phase, updates, step, samples)
                timelines.append([*held.after])
            steps.append(StepCost.between(f"{phase.name}/{step.update.name}", *timelines))
    saved = sum(value.nbytes for update in updates.values() for value in update.state()[0].values())
    averages = [average.network for update in updates.values() for average in update.averages.values()]
    for update in updates.values():
        update.close()
    return PhaseCost(steps, saved + tensor_bytes(averages))


def take(run: Run, phase: Phase, updates: Updates, step: OptimizerStep, samples: int) -> None:
    """One optimiser step on the first samples of the data, which begin anew where there are too few."""
    planned = PlannedStep(step, 0, 0, [range(samples)], ends_iteration=True)
    raw = (run.data.reader[Request(0, samples, slots)] for slots in planned.reads)
    for _ in run_phase([planned], raw, updates, run.data.builder.during(phase.name)):
        pass


def tensor_bytes(networks: Iterable[nn.Module]) -> int:
    return sum(t.nbytes for network in networks for t in (*network.parameters(), *network.buffers()))


def sample_bytes(run: Run) -> int:
    """Of a sample as the networks see it; the parts that wait for their turn in a step are held too."""
    return 4 * math.prod(run.data.shards.spec.shape)


def resident() -> int:
    """The most that this process has held so far.

    On Linux `getrusage` would count what the process that started this one had held, since it is kept over exec.
    """
    if PROCESS.is_file():
        return 1024 * int(re.findall(r"^VmHWM:\s+(\d+) kB", PROCESS.read_text(), re.MULTILINE)[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_of(device: torch.device) -> int:
    """Bytes for each process: its GPU's, or an equal share of this machine's or container's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP.read_text().strip() if CGROUP.is_file() else ""
    return min(whole, int(limit) if limit.isdecimal() else whole) // ranks_of_node(world_size())
