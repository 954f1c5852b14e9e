"""Every loss against its closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from savae_dist.latents import Posterior
from savae_dist.systems import losses


@pytest.fixture
def posterior() -> Posterior:
    generator = torch.Generator().manual_seed(0)
    return Posterior(torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator))


def test_kl_is_that_of_torch_distributions(posterior: Posterior) -> None:
    q = Normal(posterior.mean, torch.exp(0.5 * posterior.log_variance))
    expected = kl_divergence(q, Normal(torch.zeros(3), torch.ones(3)))
    torch.testing.assert_close(losses.kl_divergence(posterior), expected.sum(1).mean())
    torch.testing.assert_close(losses.kl_divergence(posterior, reduction="mean"), expected.mean())


def test_free_bits_and_capacity_of_each_sample(posterior: Posterior) -> None:
    q = Normal(posterior.mean, torch.exp(0.5 * posterior.log_variance))
    kl = kl_divergence(q, Normal(torch.zeros(3), torch.ones(3))).double().tolist()
    assert min(map(min, kl)) < 0.5 < max(map(max, kl))
    freed = sum(max(0.5, one) for row in kl for one in row) / 5
    assert losses.kl_divergence(posterior, free_bits=0.5).item() == pytest.approx(freed)
    assert losses.kl_divergence(posterior, 0.5, reduction="mean").item() == pytest.approx(freed / 3)
    held = sum(abs(sum(row) - 2.0) for row in kl) / 5
    assert losses.kl_divergence(posterior, capacity=2.0).item() == pytest.approx(held)
    parts = [Posterior(posterior.mean[i : i + 1], posterior.log_variance[i : i + 1]) for i in range(5)]
    for options in ({"free_bits": 0.5}, {"capacity": 2.0}):
        split = sum(losses.kl_divergence(part, **options) for part in parts) / 5
        torch.testing.assert_close(split, losses.kl_divergence(posterior, **options))


def test_free_bits_and_capacity_turn_the_gradient_off_and_around() -> None:
    mean = torch.tensor([[0.1, 3.0]], requires_grad=True)
    posterior = Posterior(mean, torch.zeros(1, 2))
    (slope,) = torch.autograd.grad(losses.kl_divergence(posterior, free_bits=0.5), mean)
    torch.testing.assert_close(slope, torch.tensor([[0.0, 3.0]]))
    for capacity, sign in ((1.0, 1.0), (9.0, -1.0)):  # KL = 4.505
        (slope,) = torch.autograd.grad(losses.kl_divergence(posterior, capacity=capacity), mean)
        torch.testing.assert_close(slope, sign * mean.detach())


def test_sample_has_the_mean_and_deviation_of_the_posterior() -> None:
    posterior = Posterior(torch.tensor([[2.0, -1.0]]), torch.tensor([[math.log(9.0), math.log(0.25)]]))
    torch.testing.assert_close(posterior.sample(torch.tensor([[1.0, -2.0]])), torch.tensor([[5.0, -2.0]]))


def test_cross_entropy_is_the_mean_over_the_labelled() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    y = torch.tensor([0, -1, 3, -1, 2, 2])
    rows = [i for i, label in enumerate(y.tolist()) if label >= 0]
    expected = -np.mean([torch.log_softmax(logits[i], 0)[y[i]].item() for i in rows])
    assert losses.label_cross_entropy(logits, y).item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_of_no_label_is_zero_with_zero_gradient() -> None:
    logits = torch.full((3, 4), float("inf"), requires_grad=True)
    loss = losses.label_cross_entropy(torch.nan_to_num(logits, posinf=1e4), torch.full((3,), -1))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(torch.nan_to_num(logits.grad), torch.zeros(3, 4))


def test_smoothed_cross_entropy_is_torch_s_over_the_labelled() -> None:
    """And (1 - s) times the plain one plus s times the mean over all classes, which is its definition."""
    logits, y = torch.randn(8, 4, dtype=torch.float64), torch.tensor([1, -1, 0, -1, 0, 2, 3, -1])
    labelled = y >= 0
    expected = F.cross_entropy(logits[labelled], y[labelled], label_smoothing=0.2)
    torch.testing.assert_close(losses.label_cross_entropy(logits, y, smoothing=0.2), expected)
    uniform = -logits[labelled].log_softmax(1).mean()
    torch.testing.assert_close(expected, 0.8 * losses.label_cross_entropy(logits, y) + 0.2 * uniform)


def test_cross_entropy_slices_add_up_to_the_global_mean() -> None:
    """Two slices of unequal label counts, weighted as the engine weights them, average to the mean of the whole."""
    logits, y = torch.randn(8, 4), torch.tensor([1, -1, -1, -1, 0, 2, 3, -1])
    weight = torch.tensor(2 / 4)  # two slices, four labelled samples
    parts = [losses.label_cross_entropy(logits[s], y[s], weight) for s in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(sum(parts) / 2, losses.label_cross_entropy(logits, y))


@pytest.mark.parametrize("form", losses.UnlabelledForm.__args__)
def test_unlabelled_losses_are_means_over_the_unlabelled(form: str) -> None:
    generator = torch.Generator().manual_seed(1)
    one, two = (5 * torch.randn(8, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    one[0] = torch.tensor([8.0, 3.0, 4.5])  # nearly sure
    one[4] = torch.tensor([0.1, 0.2, 0.3])  # not sure at all
    y = torch.tensor([-1, 2, -1, 0, -1, -1, 1, -1])
    one.requires_grad_(True)
    found = losses.unlabelled_loss(form, (one, two), y, torch.tensor(1 / 5))
    each = []
    for row in (0, 2, 4, 5, 7):
        p, q = (np.exp(v[row].detach().numpy()) / np.exp(v[row].detach().numpy()).sum() for v in (one, two))
        terms = {
            "pseudo_label": -np.log(p.max()) * (p.max() >= 0.95),
            "entropy": -(p * np.log(p)).sum(),
            "consistency": ((p - q) ** 2).sum(),
        }
        each.append(terms[form])
    assert found.item() == pytest.approx(np.mean(each))
    assert found.item() > 0
    found.backward()
    assert not one.grad[y >= 0].any()
    assert one.grad[0].any()
    halves = [
        losses.unlabelled_loss(form, (one[s], two[s]), y[s], torch.tensor(2 / 5)) for s in (slice(4), slice(4, 8))
    ]
    torch.testing.assert_close(sum(halves) / 2, found)
    assert losses.unlabelled_loss(form, (one, two), y.clamp_min(0), torch.tensor(0.0)).item() == 0


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_feature_loss(reduction: str) -> None:
    a, b = [torch.rand(2, 3, 4, 4), torch.rand(2, 5, 7)], [torch.rand(2, 3, 4, 4), torch.rand(2, 5, 7)]
    reduce = np.mean if reduction == "mean" else np.sum
    expected = sum(
        w * np.mean([reduce(((p[n] - q[n]) ** 2).numpy()) for n in range(2)])
        for w, p, q in zip((0.5, 0.1), a, b, strict=True)
    )
    assert losses.feature_loss(a, b, (0.5, 0.1), reduction).item() == pytest.approx(expected, rel=1e-5)


def test_feature_loss_skips_what_weighs_nothing() -> None:
    a = [torch.ones(1, 2), torch.full((1, 2), float("nan"))]
    assert losses.feature_loss(a, [torch.zeros(1, 2), torch.zeros(1, 2)], (1.0, 0.0)).item() == 1


def test_latent_loss_is_the_brier_like_distance_of_probabilities() -> None:
    a, b = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]])), torch.log(torch.tensor([[1.0, 1e-30], [0.1, 0.9]]))
    assert losses.latent_loss(a, b).item() == pytest.approx((0.5 + 2 * 0.64) / 2, rel=1e-5)
    assert losses.latent_loss(a, b + 1).item() == pytest.approx((0.5 + 2 * 0.64) / 2, rel=1e-5)


def test_latent_loss_of_logits_sees_what_the_softmax_does_not() -> None:
    a, b = torch.tensor([[1.0, 2.0], [0.0, 4.0]]), torch.tensor([[2.0, 3.0], [0.0, 1.0]])
    assert losses.latent_loss(a, b, "logits").item() == pytest.approx((2 + 9) / 2)


SCORES = torch.tensor([-2.0, 0.5, 3.0])


@pytest.mark.parametrize(
    ("form", "sign", "label", "expected"),
    [
        ("match_real", +1, 1, np.mean([9, 0.25, 4])),
        ("match_real", -1, 1, np.mean([1, 2.25, 16])),
        ("match_real", +1, 10, np.mean([144, 90.25, 49])),
        ("lsgan", -1, 10, np.mean([64, 110.25, 169])),
        ("wasserstein", +1, 1, -0.5),
        ("wasserstein", -1, 1, 0.5),
        ("hinge", +1, 1, np.mean([3, 0.5, 0])),
        ("hinge", -1, 2, np.mean([0, 2.5, 5])),
        ("non_saturating", +1, 1, np.mean(np.log1p(np.exp([2, -0.5, -3])))),
        ("non_saturating", -1, 1, np.mean(np.log1p(np.exp([-2, 0.5, 3])))),
    ],
)
def test_critic_loss(form: str, sign: int, label: float, expected: float) -> None:
    assert losses.critic_loss(form, SCORES, sign, label).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("match_real", np.mean([9, 0.25, 4])),
        ("lsgan", np.mean([16, 2.25, 1])),
        ("wasserstein", -0.5),
        ("hinge", -0.5),
        ("non_saturating", np.mean(np.log1p(np.exp([2, -0.5, -3])))),
    ],
)
def test_adversarial_loss(form: str, expected: float) -> None:
    real = torch.tensor([1.0, 1.0, 1.0]) if form == "match_real" else None
    label = 2.0
    loss = losses.adversarial_loss(form, SCORES, lambda: real, label)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_match_real_does_not_move_the_real_scores() -> None:
    real = torch.ones(3, requires_grad=True)
    scores = SCORES.clone().requires_grad_()
    losses.adversarial_loss("match_real", scores, lambda: real, 1.0).backward()
    assert real.grad is None
    torch.testing.assert_close(scores.grad, 2 * (SCORES - 1) / 3)


def test_gradient_penalty_of_a_linear_critic() -> None:
    """Slope w everywhere: (||w|| - 1)^2, and its gradient 2 (||w|| - 1) w / ||w|| reaches the critic."""
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    x, x_hat, mix = torch.rand(5, 2), torch.rand(5, 2), torch.rand(5)
    penalty = losses.gradient_penalty(lambda u: u @ w, x, x_hat, mix)
    penalty.backward()
    assert penalty.item() == pytest.approx(16)
    torch.testing.assert_close(w.grad, 2 * 4 * w.detach() / 5)


def test_r1_is_half_the_squared_slope_at_real_samples() -> None:
    """Of w u: 1/2 ||w||^2, whose gradient w reaches the critic; of 1/2 ||u||^2: 1/2 E||x||^2."""
    w, x = torch.tensor([3.0, 4.0], requires_grad=True), torch.rand(5, 2)
    penalty = losses.r1_penalty(lambda u: u @ w, x)
    penalty.backward()
    assert penalty.item() == pytest.approx(12.5)
    torch.testing.assert_close(w.grad, w.detach())
    rising = losses.r1_penalty(lambda u: 0.5 * u.square().sum(1), x)
    torch.testing.assert_close(rising, 0.5 * x.square().sum(1).mean())


def test_half_precision_is_raised_before_it_is_squared() -> None:
    score = torch.tensor([300.0], dtype=torch.float16)
    assert losses.critic_loss("match_real", score, -1).item() == pytest.approx(301.0**2)


def test_the_likelihoods_are_torch_s() -> None:
    """-log p(x|z) in nats, summed over elements, mean over the batch (Hou eq 1), grey values as Bernoulli means."""
    torch.manual_seed(0)
    logits, x = torch.randn(5, 2, 3, 4, dtype=torch.float64), torch.rand(5, 2, 3, 4, dtype=torch.float64)
    bernoulli = torch.distributions.Bernoulli(logits=logits, validate_args=False).log_prob(x)
    normal = torch.distributions.Normal(logits, torch.ones_like(logits)).log_prob(x)
    for likelihood, expected in ((losses.bernoulli_likelihood, bernoulli), (losses.gaussian_likelihood, normal)):
        torch.testing.assert_close(likelihood(logits, x), -expected.flatten(1).sum(1).mean())


def test_the_loss_of_a_tap_is_hou_s_equation_5() -> None:
    torch.manual_seed(0)
    phi, phi_hat = ({"a": torch.randn(5, 2, 3, 4), "b": torch.randn(5, 7, 6)} for _ in range(2))
    a = ((phi["a"] - phi_hat["a"]) ** 2).sum((1, 2, 3)).mean() / (2 * 2 * 3 * 4)
    b = ((phi["b"] - phi_hat["b"]) ** 2).sum((1, 2)).mean() / (2 * 7 * 6)
    torch.testing.assert_close(losses.tap_losses(phi, phi_hat, ("b", "a")), torch.stack([b, a]))
