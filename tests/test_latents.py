"""The bound of an encoder's log-variances."""

from __future__ import annotations

import torch

from savae_dist.latents import LEAST, MOST, Posterior, bounded


def test_a_bound_that_is_not_reached_changes_nothing() -> None:
    x = torch.cat([torch.randn(1000) * 5, torch.tensor([0.0, LEAST, MOST, 1e-30])]).clamp(LEAST, MOST).requires_grad_()
    kept, plain = bounded(x), x.clone()
    assert torch.equal(kept, plain)
    gradients = [torch.autograd.grad(y.exp().sum(), x)[0] for y in (kept, plain)]
    assert torch.equal(*gradients)


def test_beyond_it_all_is_finite_and_the_kl_pulls_back() -> None:
    x = torch.tensor([-1e6, 1e6, 90.0], requires_grad=True)
    kl = Posterior(torch.zeros(3), bounded(x)).kl().sum()
    assert kl.isfinite()
    (gradient,) = torch.autograd.grad(kl, x)
    assert gradient.isfinite().all()
    assert gradient[0] < 0 < gradient[1]
    assert bounded(torch.tensor(float("nan"))).isnan()
