"""The trainer as a loop that can be stepped, beside other loops."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import tee
from typing import Any

from savae_dist.benchmarks.loaders import LANES
from savae_dist.benchmarks.setting import Setting
from savae_dist.config.compile import Compile
from savae_dist.data import Order, Reader
from savae_dist.precision import autocast
from savae_dist.preprocess import normalise
from savae_dist.run import posterior_cache
from savae_dist.run.training_data import TrainingData
from savae_dist.systems.phases import Phase
from savae_dist.training.batches import BatchBuilder, BatchSplit, alone, training_plan
from savae_dist.training.engine import PreparedUpdate, UpdateModule, run_phase
from savae_dist.training.own_time import Waiting
from savae_dist.training.strategies import Replicas

ENDLESS = sys.maxsize


@dataclass
class Loop:
    """A trainer that can be stepped: `iterate()` is one iteration; `waited()` is for how many seconds it stood still in
    all because its data were not there.
    """

    iterate: Callable[[], object]
    updates: dict[str, PreparedUpdate]
    waited: Callable[[], float]


def trainer(
    setting: Setting,
    phase: Phase,
    split: BatchSplit | None = None,
    reduce: bool = True,
    workers: int = 0,
    keep: bool = False,
    compile: Compile = "none",
) -> Loop:
    """The way a run goes: shards, reader, loader, builder, engine; without `reduce` each rank trains on its own.

    split: this rank's share of each batch; all of it if left out. keep: the posteriors of a frozen encoder are kept, as
    in a run whose phase reads each sample often enough (`posterior_cache`). compile: the run's key.
    """
    config, spec = setting.config, setting.shards.spec
    split = split or BatchSplit(config.data.batch_size)
    networks = setting.networks()
    active = [update for update in phase.updates if update.active]
    options: dict[str, Any] = {"precision": config.precision, "ddp": config.ddp, "compile": compile}
    updates = {u.name: PreparedUpdate(u, phase, networks, config.optimizers[u.name], **options) for u in active}
    for prepared in updates.values() if not reduce else ():
        assert isinstance(prepared.parallel, Replicas)
        arithmetic = autocast(config.precision, setting.device)
        prepared.parallel.forward = UpdateModule(prepared.update, networks, arithmetic)
        prepared.parallel.accelerator.free_memory()  # with DDP go the hooks that it put on the parameters
    order = Order(setting.shards.counts, config.seed, LANES, config.data.shuffle_window)
    builder = BatchBuilder(split, setting.device, lambda x: normalise(x, spec), config.seed)
    data = TrainingData(Reader(setting.shards, order, 0), builder, workers, pin=setting.device.type == "cuda")
    if keep:
        builder = replace(builder, posteriors=posterior_cache.kept(phase, config, data, networks, ENDLESS, alone))
    ahead, plan = tee(training_plan(phase, split, first=0, last=ENDLESS, origin=0))
    batches = Waiting(data.planned(ahead))
    steps = run_phase(plan, batches, updates, builder)
    return Loop(lambda: next(steps), updates, lambda: batches.seconds)
