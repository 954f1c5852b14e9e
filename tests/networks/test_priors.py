"""Priors against their closed forms, and the label part of a code."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch

from savae_dist.latents import (
    CENTRE,
    RADIAL,
    RADIUS,
    TANGENTIAL,
    TURNS,
    Posterior,
    category,
    mixture_of_gaussians,
    one_hot,
    swiss_roll,
)
from savae_dist.networks import LabelPart, Prior

N = 40_000


def draws(dim: int, n: int = N, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_point_is_its_own_sample_and_infinitely_far_from_a_density():
    point = Posterior.point(torch.tensor([[1.0, -2.0]]))
    assert torch.equal(point.sample(torch.tensor([[3.0, 1e30]])), point.mean)
    assert point.kl().isinf().all()


def test_categories_are_equally_likely_and_in_the_order_of_the_draws():
    chosen = category(draws(1)[:, 0], 7)
    assert scipy.stats.chisquare(chosen.bincount(minlength=7)).pvalue > 1e-3
    edges = torch.special.ndtri(torch.arange(1, 7) / 7)  # between two edges lies one category
    assert category(edges - 1e-3, 7).tolist() == list(range(6))
    assert category(edges + 1e-3, 7).tolist() == list(range(1, 7))
    assert category(torch.tensor([-40.0, 40.0, math.inf]), 7).tolist() == [0, 6, 6]


def test_one_hot_is_zero_without_a_label():
    assert one_hot(torch.tensor([2, -1, 0]), 3).tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("mode", [0, 3, 4])
def test_modes_have_their_mean_and_covariance(mode: int):
    z = mixture_of_gaussians(draws(4), torch.full((N,), mode), 5)
    angle = 2 * math.pi * mode / 5
    along = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    across = torch.stack([-along[1], along[0]])
    covariance = RADIAL**2 * along.outer(along) + TANGENTIAL**2 * across.outer(across)
    mean = torch.zeros(4, dtype=torch.float64)
    mean[:2] = CENTRE * along
    expected = torch.eye(4, dtype=torch.float64)
    expected[:2, :2] = covariance
    torch.testing.assert_close(z.mean(0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(z.T.cov(), expected, atol=0.03, rtol=0)


def test_the_mixture_as_a_whole():
    """Centred; in the plane the covariance is (CENTRE^2 + RADIAL^2 + TANGENTIAL^2) / 2 I by symmetry."""
    z = Prior(3, "mixture", scale=2.0, modes=10).double().style(draws(5))
    variance = 4 * (CENTRE**2 + RADIAL**2 + TANGENTIAL**2) / 2
    torch.testing.assert_close(z.mean(0), torch.zeros(3, dtype=torch.float64), atol=0.05, rtol=0)
    expected = torch.tensor([variance, variance, 4.0], dtype=torch.float64).diag()
    torch.testing.assert_close(z.T.cov(), expected, atol=0.1, rtol=0)


def test_the_swiss_roll_lies_on_its_spiral():
    z = swiss_roll(draws(3), torch.full((N,), -1), 5)
    along = z[:, :2].norm(dim=1) / RADIUS
    assert along.max() < 1
    angle = 2 * math.pi * TURNS * along
    torch.testing.assert_close(z[:, 0], RADIUS * along * angle.cos())
    torch.testing.assert_close(z[:, 1], RADIUS * along * angle.sin())
    assert scipy.stats.kstest(along.square().numpy(), "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(z[:, 2].numpy(), "norm").pvalue > 1e-3


def test_segments_of_the_swiss_roll_follow_each_other():
    segment = torch.arange(N) % 5
    along = (swiss_roll(draws(2), segment, 5).norm(dim=1) / RADIUS).square()
    assert torch.equal((along * 5).floor().long(), segment)


def test_a_gaussian_prior_has_its_deviation():
    prior = Prior(3, scale=5.0)
    torch.testing.assert_close(prior.style(draws(prior.draws)), 5 * draws(prior.draws)[:, :3])


@pytest.mark.parametrize("kind", ["mixture", "swiss_roll"])
def test_labels_choose_the_mode_and_the_unlabelled_have_all(kind: str):
    prior = Prior(2, kind, modes=4, labels="mode")
    eps, y = draws(prior.draws, 4000), torch.arange(4000) % 5 - 1  # -1 .. 3
    z = prior.style(eps, y)
    for label in range(4):
        assert torch.equal(z[y == label], prior.style(eps[y == label], torch.full((800,), label)))
    assert torch.equal(z[y < 0], Prior(2, kind, modes=4).style(eps[y < 0]))  # no label: the whole prior
    assert torch.equal(prior(eps, y), z)
    where = torch.atan2(z[:, 1], z[:, 0]) if kind == "mixture" else z.norm(dim=1)
    assert where[y == 1].std() < where[y < 0].std() / 2


def test_a_code_is_style_then_label_part():
    prior = Prior(3, labels="inferred", entries=4)
    eps = draws(prior.draws, 1000)
    code = prior(eps)
    assert torch.equal(code[:, :3], eps[:, :3])
    assert torch.equal(code[:, 3:].argmax(1), category(eps[:, -1], 4))
    assert torch.equal(code[:, 3:].sum(1), torch.ones(1000, dtype=torch.float64))
    assert scipy.stats.chisquare(code[:, 3:].sum(0)).pvalue > 1e-3
    y = torch.arange(1000) % 4
    assert torch.equal(prior(eps, y)[:, 3:].argmax(1), y)
    style = torch.full((1000, 3), 0.5, dtype=torch.float64)
    assert torch.equal(prior(eps, y, style)[:, :3], style)
    assert torch.equal(prior.complete(code, y), code)  # the encoder gives its own label part


def test_a_told_label_stands_behind_the_code():
    prior = Prior(2, labels="told", entries=3)
    z = torch.randn(3, 2)
    assert prior.complete(z, torch.tensor([1, -1, 2]))[:, 2:].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert prior.complete(z)[:, 2:].tolist() == [[0, 0, 0]] * 3
    assert prior.latent_dim == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"style_dim": 1, "kind": "mixture"}, "two dimensions"),
        ({"style_dim": 2, "labels": "told"}, "label part of 0"),
        ({"style_dim": 2, "entries": 3}, "label part of 3"),
        ({"style_dim": 2, "labels": "mode"}, "no modes"),
    ],
)
def test_impossible_priors_are_refused(arguments: dict, words: str):
    with pytest.raises(ValueError, match=words):
        Prior(**arguments)


def test_the_label_part_reads_classes_and_clusters():
    code = torch.tensor([[9.0, 0.2, 0.5, 0.3], [9.0, 0.0, 0.0, 1.0]])
    labels = LabelPart(1, 3, 3)
    torch.testing.assert_close(labels(code)[0].softmax(0), code[0, 1:])
    assert labels(code).isfinite().all()
    clusters = LabelPart(1, 3, 4, clusters=True)
    clusters.class_of.copy_(torch.tensor([2, 0, 2]))
    logits = clusters(code)
    assert logits.argmax(1).tolist() == [0, 2]  # of the likeliest cluster, though 0.2 + 0.3 are no less than 0.5
    torch.testing.assert_close(logits[0, [0, 2]].exp(), torch.tensor([0.5, 0.3]))
    assert logits.exp()[:, [1, 3]].max() < 1e-20  # no cluster has these classes
    assert clusters.entries_of(2).tolist() == [0, 2]


@pytest.mark.parametrize("network", [Prior(3, "mixture", 2.0, 5, "inferred", 4), LabelPart(3, 6, 4, clusters=True)])
def test_networks_without_weights_are_saved_like_others(network, tmp_path):
    if isinstance(network, LabelPart):
        network.class_of.copy_(torch.tensor([3, 3, 1, 0, 2, 1]))
    network.save_pretrained(tmp_path)
    loaded = type(network).from_pretrained(tmp_path)
    x = torch.rand(8, 9)
    code = x[:, : network.draws] if isinstance(network, Prior) else x
    assert torch.equal(loaded(code), network(code))
