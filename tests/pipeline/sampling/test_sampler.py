"""Mixtures fitted to codes: their density against torch's, what is chosen, and that they are no memory of samples."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

from savae_dist.pipeline.sampling.sampler import COMPONENTS, WHOLE, Sampler, fit, load_sampler


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sampler(full: bool) -> Sampler:
    """Two components for all samples, one for class 3."""
    factor = torch.rand(3, 2, 2, generator=random()).tril() + torch.eye(2) if full else torch.tensor([[1.0, 0.5]] * 3)
    mean = torch.tensor([[-4.0, 0.0], [4.0, 1.0], [0.0, 9.0]])
    return Sampler(torch.tensor([WHOLE, WHOLE, 3]), torch.tensor([0.25, 0.75, 1.0]), mean, factor)


def by_torch(one: Sampler) -> MixtureSameFamily:
    """The mixture of all samples."""
    mean, factor = one.mean[:2], one.factor[:2]
    parts = MultivariateNormal(mean, scale_tril=factor) if factor.dim() == 3 else Independent(Normal(mean, factor), 1)
    return MixtureSameFamily(Categorical(one.weight[:2]), parts)


@pytest.mark.parametrize("full", [False, True])
def test_density_is_that_of_torch(full: bool) -> None:
    z = 4 * torch.randn(50, 2, generator=random())
    torch.testing.assert_close(sampler(full).log_density(z), by_torch(sampler(full)).log_prob(z))


@pytest.mark.parametrize("full", [False, True])
def test_draws_have_the_mixture_s_moments(full: bool) -> None:
    """Within five standard errors of 40,000 draws; a temperature shrinks what is within a component, not the means."""
    one, n = sampler(full), 40_000
    z, cold = (one.draw(n, WHOLE, random(1), temperature) for temperature in (1.0, 0.0))
    expected = by_torch(one)
    torch.testing.assert_close(z.mean(0), expected.mean, atol=5 * float(expected.stddev.max()) / math.sqrt(n), rtol=0)
    torch.testing.assert_close(z.var(0), expected.variance, atol=0, rtol=5 * math.sqrt(2 / n))
    assert {tuple(row) for row in cold.tolist()} == {(-4.0, 0.0), (4.0, 1.0)}
    assert float((cold[:, 0] > 0).float().mean()) == pytest.approx(0.75, abs=0.01)
    assert (one.draw(5, 3, random(), 0.0) == one.mean[2]).all()
    assert one.labels == [3]


def ring(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Codes on eight spots of a circle, which are far from N(0, I), and the class of each: its half of the circle."""
    spot = torch.randint(8, (n,), generator=random(seed))
    angle = spot * math.pi / 4
    z = 3 * torch.stack([angle.cos(), angle.sin()], 1) + 0.1 * torch.randn(n, 2, generator=random(seed + 1))
    return z, (spot >= 4).long()


def classes(z: Tensor, y: Tensor) -> dict[int, Tensor]:
    return {label: z[y == label] for label in y.unique().tolist()}


def test_what_is_chosen_comes_close_to_the_truth() -> None:
    """Its density of new codes is within .1 nats of that of the distribution they come from, N(0, I)'s is far off."""
    z, y = ring(3000)
    fitted = fit(z, classes(z, y))
    new, _ = ring(2000, seed=9)
    angle = torch.arange(8) * math.pi / 4
    truth = Independent(Normal(3 * torch.stack([angle.cos(), angle.sin()], 1), torch.tensor(0.1)), 1)
    best = float(MixtureSameFamily(Categorical(torch.ones(8) / 8), truth).log_prob(new).mean())
    assert float(fitted.sampler.log_density(new).mean()) > best - 0.1
    assert fitted.held_out > fitted.normal + 3
    assert fitted.components in COMPONENTS
    drawn = fitted.sampler.draw(1000, 0, random())  # of the upper half
    assert (torch.cdist(drawn, truth.mean[:4]).min(1).values < 0.6).float().mean() > 0.98


def test_codes_that_fill_the_prior_are_drawn_from_it() -> None:
    """No mixture is likelier than the truth by more than chance: three of four standard normal sets keep N(0, I)."""
    sets = [torch.randn(400, 5, generator=random(seed)) for seed in range(4)]
    assert [fit(z, {}).components for z in sets].count(0) >= 3


def test_draws_are_no_copies() -> None:
    """They are as far from the codes that were fitted as other codes of the same distribution are."""
    z, _ = ring(2000)
    drawn = fit(z, {}).sampler.draw(1000, WHOLE, random())
    new, _ = ring(1000, seed=5)
    ours, theirs = (torch.cdist(codes, z).min(1).values.median() for codes in (drawn, new))
    assert 0.7 * theirs < ours < 2 * theirs


@pytest.mark.parametrize(("n", "dimensions"), [(2, 3), (30, 40), (300, 600)])
def test_few_samples_in_many_dimensions(n: int, dimensions: int) -> None:
    fitted = fit(torch.randn(n, dimensions, generator=random()), {})
    z = fitted.sampler.draw(4, WHOLE, random())
    assert z.shape == (4, dimensions)
    assert z.isfinite().all()
    assert fitted.sampler.factor.dim() == 2


def test_codes_that_are_all_alike() -> None:
    fitted = fit(torch.ones(50, 3), {0: torch.ones(20, 3)})
    torch.testing.assert_close(fitted.sampler.draw(9, 0, random()), torch.ones(9, 3), atol=0.01, rtol=0)


def test_the_same_codes_give_the_same_sampler() -> None:
    a, b = (fit(z, classes(z, y)).sampler.tensors() for z, y in [ring(500)] * 2)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("full", [False, True])
def test_a_file(full: bool, tmp_path: Path) -> None:
    one = sampler(full)
    save_file(one.tensors(), tmp_path / "sampler.safetensors")
    loaded = load_sampler(tmp_path / "sampler.safetensors")
    assert all(torch.equal(value, loaded.tensors()[name]) for name, value in one.tensors().items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": torch.zeros(3)}, "not label, weight"),
        ({"factor": torch.zeros(3, 4)}, "cannot have factors"),
        ({"weight": torch.tensor([0.5, 0.5, 0.0])}, "a weight above 0"),
        ({"label": torch.zeros(2, dtype=torch.int64)}, "a label and a weight"),
        ({"mean": torch.full((3, 2), math.nan)}, "finite"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_file_that_is_none(change: dict[str, Tensor], said: str, tmp_path: Path) -> None:
    save_file({**sampler(False).tensors(), **change}, tmp_path / "sampler.safetensors")
    with pytest.raises(ValueError, match=said):
        load_sampler(tmp_path / "sampler.safetensors")
