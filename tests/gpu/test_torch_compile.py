"""Compiled updates: torch has silently computed wrong second derivatives before, as the gradient penalty needs them."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from savae_dist.config.compile import Compile
from savae_dist.config.schema import OptimizerConfig
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import SmallRun
from savae_dist.training.engine import UpdateModule

pytestmark = pytest.mark.gpu

SYSTEM = SAVAE(latent_dim=3, critic_regulariser="gradient_penalty", critic_update="joint")
COMPILERS = ("gcc", "cc", "clang")
# Largest differences, relative and absolute: compiled sums round differently, and kinks amplify that. If the gradient
# of the penalty is lost, weights of the critic change by 4e-2.
ROUNDING = {"rtol": 5e-3, "atol": 1e-4}
SGD = {name: OptimizerConfig("sgd", lr=0.05, clip_norm=0.5) for name in ("critic", "decoder")}
STEPS = 4  # a CUDA graph is warmed up in the first, recorded in the second, and replayed from the third on


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="inductor needs a C compiler, and none is here")
@pytest.mark.parametrize("how", ["update", "graphs"])
def test_the_gradient_penalty_is_that_of_eager(
    how: Compile, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, the norms of their gradients, and weights. On a CPU the graphs run as they were traced, in seconds."""
    if device.type == "cpu":
        monkeypatch.setattr(UpdateModule, "compile", lambda self, **_: nn.Module.compile(self, backend="aot_eager"))
    eager, compiled = (SmallRun(SYSTEM, device=device, optimizers=SGD, compile=one) for one in ("none", how))
    for run in (eager, compiled):
        run.run("decoder", STEPS)
    assert all(one.parallel.forward._compiled_call_impl is not None for one in compiled.updates.values())
    assert not any(one.capture.breaks for one in compiled.updates.values())
    for name, update in eager.updates.items():
        expected, found = update.meter.drain(), compiled.updates[name].meter.drain()
        assert expected.keys() == found.keys()
        assert name != "critic" or any("penalty" in term for term in expected)
        for term, sums in expected.items():
            torch.testing.assert_close(found[term], sums, **ROUNDING, msg=f"{name}: {term}")
    for name, network in eager.networks.items():
        for key, value in network.state_dict().items():
            other = compiled.networks[name].state_dict()[key]
            torch.testing.assert_close(other, value, **ROUNDING, msg=f"{name}.{key}")
