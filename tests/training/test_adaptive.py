"""Adaptive weights: the ratio of gradients at the decoder's last layer, over the whole global batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.contract import make
from torch import Tensor, nn

from savae_dist.config.terms import AdaptiveConfig, ScheduleConfig
from savae_dist.testing.contract import check_resume, check_updates, difference
from savae_dist.testing.small_run import SmallRun
from savae_dist.training.adaptive import adaptive_factors
from savae_dist.training.batches import BatchSplit
from savae_dist.training.strategies import WholeWeights

TO_REC = {"adv": AdaptiveConfig("rec", 0.5)}


class Lines(nn.Module):
    """x^ = v w z; the layer of v is the last to run, though it is made first."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.last.weight.fill_(5.0)
            self.first.weight.fill_(2.0)

    def forward(self, z: Tensor) -> Tensor:
        return self.last(self.first(z))


@pytest.mark.parametrize(("most", "expected"), [(1e4, 0.5 * 12 / 90), (0.01, 0.01)])
def test_closed_form(most: float, expected: float) -> None:
    """By v the mean of 3 x^ has the gradient 3 w E[z] = 12, that of 1/2 (x^ - z)^2 (v w - 1) w E[z^2] = 90.

    The slices' gradients are averaged before their norms are taken: E[z] is that of both.
    """
    lines, slices = Lines(), [torch.tensor([[1.0]]), torch.tensor([[3.0]])]

    def forward(z: Tensor) -> dict[str, Tensor]:
        x_hat = lines(z)
        return {"line": 3 * x_hat.mean(), "square": 0.5 * (x_hat - z).square().mean(), "kl": z.sum()}

    norms = WholeWeights().norms_of_mean
    config = {"square": AdaptiveConfig("line", 0.5, most)}
    factors = adaptive_factors(config, lines, forward, slices, norms)  # type: ignore[arg-type]
    assert float(factors["square"]) == pytest.approx(expected, rel=1e-6)
    assert lines.last.weight.grad is None
    assert adaptive_factors({"adv": AdaptiveConfig("line")}, lines, forward, slices, norms) == {}  # type: ignore[arg-type]


def factors(system: str = "savae", **options: object) -> tuple[SmallRun, list[float]]:
    """A run of the decoder's phase, and the sum and count of the factor of `adv`."""
    run = SmallRun(make(system), **{"norm": "group", "dtype": torch.float64, "adaptive": TO_REC, **options})
    run.run("decoder", 2)
    return run, run.updates["decoder"].meter.drain()["adv_factor"].tolist()


def test_the_engine_applies_what_it_logs() -> None:
    """The weight of the system cancels out, and a schedule multiplies on top."""
    whole, (total, count) = factors()
    assert count == 2
    assert total > 0
    parts, accumulated = factors(split=BatchSplit(8, accumulate=2))
    assert accumulated == pytest.approx([total, count], rel=1e-6)
    distances = [
        float((whole.networks["decoder"].state_dict()[key] - value).abs().max())
        for key, value in parts.networks["decoder"].state_dict().items()
    ]
    assert max(distances) < 1e-8
    _, scheduled = factors(schedules={"adv": ScheduleConfig(start=5)})
    assert scheduled == [0.0, 2.0]


def test_measuring_leaves_batch_norms_alone() -> None:
    """A factor that is bounded at 1 trains what no factor trains, to the bit."""
    plain = SmallRun(make("savae"))
    bounded = SmallRun(make("savae"), adaptive={"adv": AdaptiveConfig("rec", 1e9, 1.0)})
    for run in (plain, bounded):
        run.run("decoder", 3)
    assert difference(plain.tensors(), bounded.tensors()) == ""


@pytest.mark.parametrize("name", ["savae", "ava5", "vae_wgan"])
def test_going_on_is_exact(name: str, tmp_path: Path) -> None:
    check_resume(make(name), tmp_path, adaptive=TO_REC)


def test_what_is_frozen_stays_frozen() -> None:
    check_updates(make("savae"), adaptive=TO_REC)
