"""A small comparison: narrow networks, batches of four, 40 images of 8x8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from savae_dist.benchmarks.setting import PAPER, Setting, Step, in_numbers
from savae_dist.data import Shards, pack
from savae_dist.load_config import load
from savae_dist.systems.phases import Phase
from savae_dist.training.batches import STEPS_AHEAD, BatchBuilder, BatchSplit, training_plan

MOST_LAUNCHES = 1.15  # times those of the hand-written loop


def noise_shards(folder: Path) -> Path:
    """40 images of 8x8 in three classes."""
    rng = np.random.default_rng(1)
    pack(rng.integers(0, 256, (40, 8, 8), np.uint8), np.arange(40) % 3, folder)
    return folder


def small_setting(folder: Path, *values: str) -> Setting:
    """At a constant learning rate, as the bare loop has it."""
    small = ["networks.width=2", "data.batch_size=4", "optimizers.vec.schedule=constant"]
    config = in_numbers(load([*PAPER, *small, *values]))
    return Setting(config, Shards.open(noise_shards(folder / "shards")), torch.device("cpu"))


def noise_of_a_step(phase: Phase, here: Setting, launched: Callable[[Step], float]) -> float:
    """The launches by which the noise of an optimiser step is drawn, done for `STEPS_AHEAD` of them at once."""
    builder = BatchBuilder(BatchSplit(4), here.device, lambda x: x, 0)
    plan = training_plan(phase, builder.split, first=0, last=STEPS_AHEAD, origin=0)
    return launched(lambda: next(builder.with_noise(plan))) / STEPS_AHEAD
