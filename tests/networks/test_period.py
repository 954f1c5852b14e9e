"""The critic of periods beside the same sums written for each column alone, and who sees whom."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from savae_dist.networks import Network, PeriodCritic
from savae_dist.networks.blocks import SLOPE
from savae_dist.networks.period import PERIODS, ColumnCritic, folded
from savae_dist.systems import SAVAE, losses


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_columns(part: ColumnCritic, x: Tensor, period: int) -> Tensor:
    """The mean score of a signal whose length is a multiple of the period, by convolutions of every p-th sample."""
    scores = []
    for column in range(period):
        h = x[..., column::period]
        for layer, stride in zip(part.convs, (3, 3, 3, 1), strict=True):
            h = F.leaky_relu(F.conv1d(h, layer.weight[..., 0], layer.bias, stride, padding=2), SLOPE)
        scores.append(F.conv1d(h, part.score.weight[..., 0], part.score.bias, padding=1)[:, 0])
    return torch.stack(scores).mean((0, 2))


def test_a_fold_is_a_reshape_and_a_rest_is_reflected() -> None:
    x = torch.arange(12.0).reshape(1, 1, 12)
    assert torch.equal(folded(x, 3), x.reshape(1, 1, 4, 3))
    assert folded(x[..., :10], 4).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7]
    for length in range(11, 40):
        x = noise(2, 3, length)
        for period in PERIODS:
            expected = F.pad(x, (0, -length % period), "reflect").reshape(2, 3, -1, period)
            assert torch.equal(folded(x, period), expected)


def test_the_score_is_the_mean_over_columns_and_periods() -> None:
    torch.manual_seed(0)
    critic, x = PeriodCritic((2, 210), width=3, periods=(2, 3, 7)).double(), noise(4, 2, 210)
    expected = torch.stack([by_columns(part, x, p) for part, p in zip(critic.critics, (2, 3, 7), strict=True)])
    torch.testing.assert_close(critic(x), expected.mean(0))


def test_a_column_sees_its_own_samples_alone() -> None:
    torch.manual_seed(0)
    part, period = ColumnCritic(1, 4, spectral_norm=False).double(), 5
    for column in range(period):
        x = noise(1, 1, 200).requires_grad_()
        (slope,) = torch.autograd.grad(part(folded(x, period))[..., column].sum(), x)
        own = torch.arange(200) % period == column
        assert slope[0, 0, ~own].abs().max() == 0
        assert (slope[0, 0, own] != 0).all()


def test_columns_may_change_places() -> None:
    """The period's score is a mean over columns: where a period begins makes no difference to it."""
    torch.manual_seed(0)
    critic, x = PeriodCritic((1, 210), width=3, periods=(7,)).double(), noise(3, 1, 210)
    changed = folded(x, 7)[..., torch.tensor([3, 6, 0, 1, 5, 2, 4])].flatten(2)
    torch.testing.assert_close(critic(changed), critic(x))
    assert (PeriodCritic((1, 210), width=3, periods=(3,)).double()(changed) != critic(x)).all()


@pytest.mark.parametrize("length", [11, 37, 1000, 1024])
def test_any_length_with_each_normalisation(length: int, tmp_path: Path) -> None:
    critic, x = PeriodCritic((2, length), width=4, spectral_norm=length == 37).eval(), noise(3, 2, length).float()
    assert critic(x).shape == (3,)
    with torch.autocast("cpu", torch.bfloat16):
        assert critic(x).dtype == torch.float32
    critic.save_pretrained(tmp_path)
    torch.testing.assert_close(Network.from_pretrained(tmp_path)(x), critic(x))


def test_penalties_on_its_slope_reach_every_weight() -> None:
    """A second derivative; that of the gradient penalty beside finite differences of it."""
    torch.manual_seed(0)
    critic, x, x_hat = PeriodCritic((1, 37), width=2).double(), noise(4, 1, 37), noise(4, 1, 37, seed=1)
    mix = torch.rand(4, dtype=torch.float64)
    penalty = losses.gradient_penalty(critic, x, x_hat, mix)
    weights = {name: p for name, p in critic.named_parameters() if name.endswith("weight")}
    slopes = dict(zip(weights, torch.autograd.grad(penalty, [*weights.values()]), strict=True))
    for name, slope in slopes.items():
        assert slope.abs().max() > 0, name
    for name in ("critics.0.convs.1.weight", "critics.4.score.weight"):
        weight, place = weights[name], (0, 1, 2, 0)
        values = []
        for change in (1e-5, -1e-5):
            with torch.no_grad():
                weight[place] += change
                values.append(losses.gradient_penalty(critic, x, x_hat, mix).item())
                weight[place] -= change
        assert (values[0] - values[1]) / 2e-5 == pytest.approx(slopes[name][place].item(), rel=1e-5, abs=1e-12)
    assert losses.r1_penalty(critic, x).requires_grad


def test_what_it_does_not_take() -> None:
    with pytest.raises(ValueError, match="is for signals"):
        PeriodCritic((1, 12, 10))
    with pytest.raises(ValueError, match="periods of up to 11 samples needs windows as long, not of 10"):
        PeriodCritic((1, 10))
    assert not [m for m in PeriodCritic((1, 64)).modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert isinstance(SAVAE(critic="period").make_critic((1, 64), 4, 2), PeriodCritic)
