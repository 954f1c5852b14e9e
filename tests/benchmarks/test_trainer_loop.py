from __future__ import annotations

import torch
from helpers.benchmarks import small_setting

from savae_dist.benchmarks.trainer_loop import trainer
from savae_dist.networks import ConvEncoder
from savae_dist.training.engine import PreparedUpdate


def test_trainer_leaves_out_what_is_inactive(tmp_path, monkeypatch):
    names = []
    init = PreparedUpdate.__init__

    def named(self, update, *rest, **options):
        names.append(update.name)
        init(self, update, *rest, **options)

    monkeypatch.setattr(PreparedUpdate, "__init__", named)
    here = small_setting(tmp_path, "system.beta=0")
    trainer(here, here.config.system.phases()[1])
    assert names == ["decoder"]


def test_scaling_without_reduction_trains_the_same_samples_alone(tmp_path):
    """Unwrapped it steps as the wrapped one does on one process."""
    here = small_setting(tmp_path)
    for phase in here.config.system.phases():
        loops = [trainer(here, phase, reduce=reduce) for reduce in (True, False)]
        for loop in loops:
            for _ in range(3):
                loop.iterate()
        for name, update in loops[0].updates.items():
            other = loops[1].updates[name].parameters
            for key, parameter in update.parameters.items():
                torch.testing.assert_close(parameter, other[key], rtol=0, atol=0)


def test_kept_posteriors_train_the_same_weights(tmp_path, monkeypatch):
    here = small_setting(tmp_path)
    phase = here.config.system.phases()[1]
    loops = [trainer(here, phase, keep=keep) for keep in (False, True)]
    encoded = []
    forward = ConvEncoder.forward
    monkeypatch.setattr(ConvEncoder, "forward", lambda self, x: (encoded.append(len(x)), forward(self, x))[1])
    for loop, calls in zip(loops, (6, 0), strict=True):  # three iterations, of one critic's and one decoder's step each
        encoded.clear()
        for _ in range(3):
            loop.iterate()
        assert len(encoded) == calls
    for name, update in loops[0].updates.items():
        for key, parameter in update.parameters.items():
            torch.testing.assert_close(parameter, loops[1].updates[name].parameters[key], rtol=0, atol=0)
