from __future__ import annotations

import pytest
import torch
from helpers.benchmarks import small_setting

from savae_dist.benchmarks import bare_loop
from savae_dist.benchmarks.loaders import LANES
from savae_dist.benchmarks.setting import Setting
from savae_dist.benchmarks.trainer_loop import trainer
from savae_dist.data import Order, Reader, Request
from savae_dist.preprocess import normalise
from savae_dist.training.batches import BatchBuilder, BatchSplit, training_plan


@pytest.mark.parametrize("phase", ["vec", "decoder"])
@pytest.mark.parametrize("weights", [(0.01, 0.1), (0.0, 0.1), (0.5, 0.0), (0.0, 0.0)])
def test_the_hand_written_loop_does_what_the_trainer_does(phase, weights, tmp_path, monkeypatch):
    """Fed with the trainer's batches and noise, it ends with the same weights: the two may be compared."""
    here = small_setting(tmp_path, f"system.beta={weights[0]}", f"system.gamma={weights[1]}")
    made = []
    networks = Setting.networks
    monkeypatch.setattr(Setting, "networks", lambda self: made.append(networks(self)) or made[-1])
    (chosen,) = (p for p in here.config.system.phases() if p.name == phase)
    trained, iterations = trainer(here, chosen).iterate, 3
    written = bare_loop.WRITTEN[phase](here, Replay(here, chosen, iterations))
    for _ in range(iterations):
        trained()
        written()
    fresh = networks(here)
    for name in fresh:
        ours, theirs, start = (dict(nets[name].named_parameters()) for nets in (*made, fresh))
        for key in start:
            torch.testing.assert_close(ours[key], theirs[key], msg=f"{name}.{key}")
        trains = {n for u in chosen.updates if u.active for n in u.trains}
        assert (name in trains) == any(not torch.equal(ours[key], start[key]) for key in start)


class Replay(bare_loop.Preloaded):
    """What the trainer's builder gives, in the order in which it is asked for."""

    def __init__(self, here: Setting, phase, iterations: int) -> None:
        size, config = here.config.data.batch_size, here.config
        split = BatchSplit(size)
        builder = BatchBuilder(split, here.device, lambda x: normalise(x, here.shards.spec), config.seed)
        order = Order(here.shards.counts, config.seed, LANES, config.data.shuffle_window)
        reader = Reader(here.shards, order, 0)
        self.batches, self.draws = [], []
        for planned in training_plan(phase, split, first=0, last=iterations, origin=0):
            step, raw = planned.step, reader[Request(planned.position, size, range(size))]
            batch, noise = builder.batch(raw), builder.noise(step, planned.position, raw.slot)
            self.batches.append((batch.x, batch.y))
            if step.update.losses[step.loss_index].__name__ != "critic_real_loss":
                names = ["z", "z_hat"] if step.update.name == "decoder" and config.system.gamma else ["z"]
                self.draws += [noise[name] for name in names]

    def batch(self):
        return self.batches.pop(0)

    def noise(self):
        return self.draws.pop(0)


def test_preloaded_batches_go_through_all_samples(tmp_path):
    data = bare_loop.Preloaded(small_setting(tmp_path))
    epoch = torch.cat([data.batch()[0] for _ in range(10)])
    assert sorted(x.sum().item() for x in epoch) == sorted(x.sum().item() for x in data.x)
    assert data.batch()[0].shape == (4, 1, 8, 8)
    assert data.noise().shape == (4, 2)
