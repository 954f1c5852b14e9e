"""`--plan`: what a run needs of memory, network and storage before it is paid for, and how fast it would be.

A step's time on n processes is predicted as compute + communication, and data where they are read in the same process;
worker processes read meanwhile, so the slower of both counts. Compute is a + b x samples, timed here on two batches.
A ring sums gradients: each process sends 2 (n - 1) / n of their bytes (Patarasuk and Yuan 2009), and nothing is taken
to overlap with the backward pass. Reading is timed here, once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from savae_dist.config.schema import DdpConfig
from savae_dist.data import RawBatch, Request
from savae_dist.distributed.environment import world_size
from savae_dist.errors import ConfigError
from savae_dist.networks import FeatureNetwork
from savae_dist.pages.page import duration
from savae_dist.run.planning import memory
from savae_dist.run.reporting.units import size
from savae_dist.run.run import Run, Updates
from savae_dist.systems.phases import Phase
from savae_dist.training.batches import BatchSplit, PlannedStep
from savae_dist.training.engine import run_phase

PROCESSES = (1, 2, 8, 64)
SUMMED = {"fp32": 4, "bf16": 2}  # bytes of an element of a gradient while it is summed
VOTE = 8  # bytes by which the processes agree before each iteration whether to stop (`distributed.signals`)
MOST_TIMED = 128  # samples of the larger batch whose step is timed
TIMES = 3  # timed repetitions, of which the median is taken
REMEDY = {
    "compute": "more processes, or a smaller networks.width",
    "communication": "a larger data.batch_size, ddp.reduce_dtype=bf16, a faster network, or fewer processes",
    "data": "data.workers, data.cache, or storage that is nearer",
}


@dataclass(frozen=True)
class Speed:
    """What an iteration of a phase costs.

    fixed, each: seconds for every accumulation step, and for every sample of a batch. reduced: bytes that are summed
    over the processes. read: seconds to read a sample. batches: how many an iteration reads. workers: processes that
    read meanwhile; 0: the training process reads.
    """

    fixed: float
    each: float
    reduced: int
    read: float
    batches: int
    workers: int

    def parts(self, batch: int, accumulate: int, processes: int, bandwidth: float) -> dict[str, float]:
        """Seconds for each thing that an iteration does; bandwidth: bytes per second between two processes."""
        rows = batch / processes
        return {
            "compute": accumulate * self.fixed + rows * self.each,
            "communication": 2 * (processes - 1) / processes * self.reduced / bandwidth,
            "data": self.batches * rows * self.read / max(self.workers, 1),
        }

    def rate(self, batch: int, accumulate: int, processes: int, bandwidth: float) -> float:
        """Samples per second."""
        return batch / self.seconds(self.parts(batch, accumulate, processes, bandwidth))

    def seconds(self, parts: Mapping[str, float]) -> float:
        trained = parts["compute"] + parts["communication"]
        return max(trained, parts["data"]) if self.workers else trained + parts["data"]


def reduced(phase: Phase, counts: Mapping[str, int], ddp: DdpConfig) -> int:
    """Bytes that the processes sum in an iteration: the gradients of every optimiser step, and the vote.

    counts: the number of each network's parameters. Besides come a few numbers at each log, and the statistics of
    networks.norm=sync_batch.
    """
    steps = [step.update for step in phase.optimizer_steps() if step.update.active]
    return VOTE + SUMMED[ddp.reduce_dtype] * sum(counts[name] for update in steps for name in update.trains)


def report(run: Run, gigabits: float) -> str:
    """The plan as lines; gigabits: per second, between two processes. ConfigError where there are several processes."""
    if world_size() > 1 or run.process.strategy != "ddp":
        raise ConfigError("--plan tells of any number of processes from one: start it without a launch file")
    counts = parameter_counts(run)
    shares = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    lines = [f"parameters  {sum(counts.values()):,}: {shares}"]
    lines += needs(run, [memory.phase_cost(run, phase) for phase in run.phases if run.steps(phase)])
    stored = stored_bytes(run)
    for phase, speed in speeds(run):
        steps = sum(step.update.active for step in phase.optimizer_steps())
        lines += ["", f"{phase.name}: {run.steps(phase):,} iterations of {steps} optimiser steps"]
        lines += [f"reduced     {speed.reduced:,} bytes an iteration, where there are several processes"]
        lines += predicted(run.data.builder.split, speed, stored, gigabits, run.steps(phase))
    about = f"from {run.data.builder.device.type} times of this process and {gigabits:g} Gbit/s between two"
    limits = "reading and summing are taken not to overlap with compute, and validation and saving come on top"
    return "\n".join([*lines, "", f"Predicted {about}; {limits}."])


def parameter_counts(run: Run) -> dict[str, int]:
    """Of each network."""
    return {name: sum(p.numel() for p in network.parameters()) for name, network in run.networks.items()}


def speeds(run: Run) -> list[tuple[Phase, Speed]]:
    """What an iteration of each phase costs, measured in this process."""
    counts, read, workers = parameter_counts(run), reading(run), run.config.data.workers
    found = []
    for phase in run.phases:
        if run.steps(phase):
            amount = reduced(phase, counts, run.config.ddp)
            found.append((phase, Speed(*timed(run, phase), amount, read, phase.batches_per_iteration, workers)))
    return found


def needs(run: Run, costs: Iterable[memory.PhaseCost]) -> list[str]:
    """Memory of each process, and of a checkpoint."""
    costs, split = list(costs), run.data.builder.split
    networks = memory.tensor_bytes(run.networks.values())
    most = max((step for cost in costs for step in cost.steps), key=lambda step: step.bytes(split.rows))
    moment, waiting = most.moment(split.rows), (split.accumulate - 1) * split.rows * memory.sample_bytes(run)
    saved = memory.tensor_bytes(n for n in run.networks.values() if not isinstance(n, FeatureNetwork))
    return [
        f"memory      {size(networks + most.bytes(split.rows) + waiting)} of tensors in each process, {split.rows} "
        f"samples at once: networks {size(networks)}, then the most in {most.name}:",
        f"            {size(most.fixed[moment])} of gradients and optimisers, {size(most.each[moment])} of activations "
        "a sample; the libraries need some besides",
        f"checkpoint  {size(saved + max(cost.saved for cost in costs))}",
    ]


def predicted(split: BatchSplit, speed: Speed, stored: float, gigabits: float, iterations: int) -> list[str]:
    """A line for each number of processes among which the batch can be shared, and what to do about the limits."""
    lines, limits = [], dict[str, str]()
    for processes in PROCESSES:
        if split.size % (processes * split.accumulate):
            lines.append(f"{processes:3} x        data.batch_size={split.size} cannot be shared among so many")
            continue
        parts = speed.parts(split.size, split.accumulate, processes, gigabits * 1e9 / 8)
        whole, limit = speed.seconds(parts), max(parts, key=lambda name: parts[name])
        shares = ", ".join(f"{name} {1e3 * part:.1f}" for name, part in parts.items())
        lines.append(
            f"{processes:3} x        {duration(iterations * whole)}: {split.size / whole:,.0f} samples/s, "
            f"{1e3 * whole:.1f} ms ({shares}), reads {size(speed.batches * split.size * stored / whole)}/s; "
            f"limit: {limit}"
        )
        limits[limit] = f"limit       {limit}: {REMEDY[limit]}"
    return [*lines, *limits.values()]


def timed(run: Run, phase: Phase) -> tuple[float, float]:
    """Seconds of an iteration: a constant part, and a part for each sample of the batch."""
    more = min(run.data.builder.split.rows, MOST_TIMED)
    few = max(more // 4, min(more, memory.FEW))
    updates = run.updates_of(phase, compile="none")
    try:
        small, large = (iteration(run, phase, updates, rows) for rows in (few, more))
    finally:
        for update in updates.values():
            update.close()
    each = max((large - small) / (more - few), 0.0) if more > few else large / more
    return max(large - more * each, 0.0), each


def iteration(run: Run, phase: Phase, updates: Updates, rows: int) -> float:
    """Median seconds of an iteration on batches of so many samples, without the time to read them."""
    steps = [step for step in phase.optimizer_steps() if step.update.active]
    planned = [PlannedStep(step, 0, 0, [range(rows)], step is steps[-1]) for step in steps]
    batch = first(run, rows)
    times = []
    for _ in range(1 + TIMES):
        start = time.perf_counter()
        for _ in run_phase(planned, iter([batch] * len(steps)), updates, run.data.builder.during(phase.name)):
            pass
        float(next(iter(updates.values())).norm)  # waits until the device is done
        times.append(time.perf_counter() - start)
    return median(times[1:])


def first(run: Run, rows: int) -> RawBatch:
    return run.data.reader[Request(0, rows, range(rows))]


def reading(run: Run) -> float:
    """Seconds to read a sample in this process, from files that the system has cached."""
    rows, times = run.data.builder.split.size, []
    for _ in range(1 + TIMES):
        start = time.perf_counter()
        first(run, rows)
        times.append(time.perf_counter() - start)
    return median(times[1:]) / rows


def stored_bytes(run: Run) -> float:
    """Mean bytes of a sample in storage."""
    return sum(shard["bytes"] for shard in run.data.shards.index["shards"]) / max(run.data.shards.size, 1)
