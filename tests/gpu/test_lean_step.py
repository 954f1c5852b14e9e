"""A step on a GPU: one copy per batch, no waiting, and few more kernels than in the bare loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.benchmarks import MOST_LAUNCHES, noise_of_a_step, small_setting

from savae_dist.benchmarks import bare_loop
from savae_dist.benchmarks.launches import Given, given, launches
from savae_dist.benchmarks.setting import Step
from savae_dist.benchmarks.timing import WARM_UP
from savae_dist.benchmarks.trainer_loop import trainer
from savae_dist.data import RawBatch
from savae_dist.preprocess import DataSpec
from savae_dist.testing.small_run import Samples
from savae_dist.training.batches import BatchBuilder, BatchSplit

pytestmark = pytest.mark.gpu

SIZE = 32
LARGE = Samples(DataSpec("image", (1, 64, 64), 4, "unit"), n=10 * SIZE)
BUSY = 10_000_000  # clock cycles, some 5 ms


def counted(step: Step, iterations: int, device: torch.device) -> Given:
    """On a CPU operators are counted instead of kernels, and there are no transfers."""
    if device.type == "cuda":
        return given(step, iterations)
    operators = launches(step, iterations)
    return Given(operators.kernels, 0.0, operators.waits)


def sent(number: int, device: torch.device) -> RawBatch:
    """A batch as the loader gives it for this device."""
    return LARGE.raw(number * SIZE, SIZE, range(SIZE)).together(pin=device.type == "cuda")


def test_a_batch_is_one_copy_from_pinned_memory(device: torch.device) -> None:
    builder, raw = BatchBuilder(BatchSplit(SIZE), device, lambda x: x, 0), sent(0, device)
    assert raw.whole is not None
    assert raw.whole.is_pinned() == (device.type == "cuda")
    builder.batch(raw)  # the factors of counts of samples are sent once
    found = counted(lambda: builder.batch(raw), 4, device)
    assert found.transfers == (1 if device.type == "cuda" else 0)
    assert found.waits == 0


def test_batches_arrive_intact_though_their_memory_is_used_again(device: torch.device) -> None:
    """The device is busy: the host frees each batch before its copy begins."""
    builder = BatchBuilder(BatchSplit(SIZE), device, lambda x: x, 0)
    found = []
    for number in range(10):
        if device.type == "cuda":
            torch.cuda._sleep(BUSY)
        found.append(builder.batch(sent(number, device)))
    for number, batch in enumerate(found):
        raw = LARGE.raw(number * SIZE, SIZE, range(SIZE))
        assert torch.equal(batch.x.cpu(), raw.x)
        assert torch.equal(batch.y.cpu(), raw.y)


@pytest.mark.parametrize("phase", ["vec", "decoder"])
def test_a_step_is_lean(phase: str, device: torch.device, tmp_path: Path) -> None:
    """The bound of tests/benchmarks/test_launches.py, with kernels in place of operators."""
    here = replace(small_setting(tmp_path), device=device)
    (chosen,) = (one for one in here.config.system.phases() if one.name == phase)
    steps = [bare_loop.WRITTEN[phase](here, bare_loop.Preloaded(here)), trainer(here, chosen).iterate]
    for step in steps:
        for _ in range(WARM_UP):
            step()
    bare, ours = (counted(step, 4, device) for step in steps)
    drawn = noise_of_a_step(chosen, here, lambda step: counted(step, 1, device).kernels)
    assert bare.kernels > 0
    assert ours.kernels + drawn * len(chosen.optimizer_steps()) <= MOST_LAUNCHES * bare.kernels
    assert ours.transfers <= bare.transfers + chosen.batches_per_iteration
    assert ours.waits == 0
