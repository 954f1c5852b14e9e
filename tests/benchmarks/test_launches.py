"""A lean step: launches beside the hand-written loop, transfers of a batch, and no wait between two logs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.benchmarks import MOST_LAUNCHES, noise_of_a_step, small_setting
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from savae_dist.benchmarks import bare_loop
from savae_dist.benchmarks.launches import Launches, launches, operators
from savae_dist.benchmarks.trainer_loop import trainer
from savae_dist.data import RawBatch
from savae_dist.systems import SAVAE
from savae_dist.training.batches import BatchBuilder, BatchSplit, training_plan


def test_operators_count_where_a_device_would_launch() -> None:
    layer, x = nn.Linear(3, 2), torch.ones(4, 3)

    def step() -> None:
        y = layer(x)  # one product, without what `linear` is made of
        y.t().flatten()[1:]  # a copy, since the transposed cannot be flattened in place; no view
        torch.empty(3)  # no computation
        torch._foreach_add([x, x], 1.0)  # one launch for all
        float(y.detach().sum())

    assert operators(step, 2) == {"addmm": 2, "clone": 2, "_foreach_add": 2, "sum": 2, "_local_scalar_dense": 2}
    assert launches(step, 2) == Launches(5, 1, 1)


@pytest.mark.parametrize("phase", ["vec", "decoder"])
def test_a_step_is_lean(phase: str, tmp_path: Path) -> None:
    """At most 1.15 times what the same step needs by hand, and nothing waits; buffers are not copied one by one."""
    here = small_setting(tmp_path)
    (chosen,) = (one for one in here.config.system.phases() if one.name == phase)
    steps = [bare_loop.WRITTEN[phase](here, bare_loop.Preloaded(here)), trainer(here, chosen).iterate]
    for step in steps:
        step()
    bare, ours = (launches(step, 2) for step in steps)
    optimiser_steps = sum(len(update.losses) for update in chosen.updates)
    drawn = noise_of_a_step(chosen, here, lambda step: launches(step, 1).kernels)
    assert ours.kernels + drawn * optimiser_steps <= MOST_LAUNCHES * bare.kernels
    assert ours.waits == 0
    assert ours.copies <= bare.copies + 2 * optimiser_steps


@pytest.mark.parametrize("update", ["vec", "decoder"])
def test_steps_share_what_is_drawn_ahead(update: str) -> None:
    """The noise of a step is that which it draws alone, whatever else is drawn with it."""
    phase = SAVAE(latent_dim=3).phases()[("vec", "decoder").index(update)]
    builder = BatchBuilder(BatchSplit(8, rank=1, ranks=2, accumulate=2), torch.device("cpu"), lambda x: x, 5)
    plan = list(training_plan(phase, builder.split, first=3, last=40, origin=0))
    found = list(builder.with_noise(plan))
    assert [planned for planned, _ in found] == plan
    for planned, slices in found:
        for slots, noise in zip(builder.split.slots(), slices, strict=True):
            alone = builder.noise(planned.step, planned.position, torch.tensor(slots))
            assert noise.keys() == alone.keys()
            assert all(torch.equal(noise[name], alone[name]) for name in alone)


class Transfers(TorchDispatchMode):
    """Counts operators that take a tensor on the CPU and give one on `meta`, which stands for a GPU here."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = func(*args, **(kwargs or {}))
        devices = [{one.device.type for one in tree_leaves(each) if isinstance(one, Tensor)} for each in (args, given)]
        self.count += devices == [{"cpu"}, {"meta"}]
        return given


def test_a_batch_is_one_transfer() -> None:
    device = torch.device("meta")
    builder = BatchBuilder(BatchSplit(4), device, lambda x: x.float() / 255, 0)
    raw = RawBatch(torch.zeros(4, 3, 3, dtype=torch.uint8), torch.arange(4), torch.arange(4), torch.arange(4), 3)
    builder.batch(raw)  # the factors of counts of samples are sent once
    with Transfers() as transfers:
        batch = builder.batch(raw.together(pin=False), position=0)
    assert transfers.count == 1
    assert (batch.x.device, batch.y.device, batch.label_weight.device) == (device, device, device)


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_batch_in_one_piece_is_the_same_batch(kind: torch.dtype) -> None:
    x, y = (100 * torch.rand(5, 3, 3)).to(kind), torch.tensor([0, -1, 2, 1, 3])
    raw = RawBatch(x, y, torch.arange(10, 15), torch.arange(5), 4)
    whole = raw.together(pin=False)
    assert whole.whole is not None
    assert whole.whole.nbytes == x.nbytes + 3 * y.nbytes
    for name in ("x", "y", "id", "slot"):
        assert torch.equal(vars(whole)[name], vars(raw)[name])
        assert vars(whole)[name].dtype == vars(raw)[name].dtype
