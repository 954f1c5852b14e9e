"""How what a decoder makes differs from the samples, against closed forms; and for any split of the batch the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from savae_dist.systems import SAVAE
from savae_dist.systems.phases import Batch
from savae_dist.testing.small_run import SmallRun
from savae_dist.training.batches import BatchSplit
from savae_dist.training.comparison import Comparison, roughness

NONE = Batch(torch.zeros(0), torch.zeros(0), {}, torch.ones(()), torch.ones(()))


def compared(*slices: tuple[Tensor, list[Tensor]]) -> dict[str, float]:
    pictures = Comparison()
    for x, made in slices:
        pictures.add(replace(NONE, x=x), made)
    return {name: float(value) for name, value in pictures.compared().items()}


def test_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 1, 5, 6, generator=generator)
    x_hat = 0.5 + 0.1 * torch.rand(24, 1, 5, 6, generator=generator)  # as where it decodes two codes a sample
    variances = [one.double().var(0, correction=0).sum().item() for one in (x, x_hat)]
    rough = [(one[..., 1:] - one[..., :-1]).square().mean((1, 2, 3)).sqrt() for one in (x.double(), x_hat.double())]
    spread = (0.5 * sum(one.var(correction=0) for one in rough)) ** 0.5
    expected = {
        "variance": variances[1] / variances[0],
        "roughness_gap": float(abs(rough[0].mean() - rough[1].mean()) / spread),
    }
    assert compared((x, [x_hat[:12], x_hat[12:]])) == pytest.approx(expected)
    assert compared((x[:4], [x_hat[:7]]), (x[4:], [x_hat[7:]])) == pytest.approx(expected)
    assert expected["roughness_gap"] > 1


def test_what_is_alike_has_no_variance() -> None:
    x = torch.rand(8, 2, 9, generator=torch.Generator().manual_seed(0))
    assert compared((x, [x[:1].expand(8, 2, 9)]))["variance"] == pytest.approx(0, abs=1e-12)
    same = compared((x, [x]))
    assert (same["variance"], same["roughness_gap"]) == (pytest.approx(1), pytest.approx(0, abs=1e-6))
    assert compared((x, [])) == {}  # no decoder was called
    assert roughness(torch.ones(3, 1, 4)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_they_are_measured_when_losses_are_logged_and_change_nothing(accumulate: int) -> None:
    """And are the same however the batch is split: with accumulation here, over processes by the same sums."""
    system, split = SAVAE(latent_dim=3), BatchSplit(8, accumulate=accumulate)
    plain, measured, whole = (
        SmallRun(system, norm="group", dtype=torch.float64, split=one, shares_every=every)
        for one, every in ((split, 0), (split, 2), (BatchSplit(8), 2))
    )
    for run in (plain, measured, whole):
        run.run("decoder", 2)
    assert plain.updates["decoder"].pictures == {}
    assert measured.updates["critic"].pictures == {}
    found = {name: float(value) for name, value in measured.updates["decoder"].pictures.items()}
    assert found.keys() == {"variance", "roughness_gap"}
    assert found == pytest.approx({k: float(v) for k, v in whole.updates["decoder"].pictures.items()}, rel=1e-6)
    for name, tensors in plain.tensors().items():
        assert all(torch.equal(value, measured.tensors()[name][key]) for key, value in tensors.items())
