"""The latent distribution of the encoders, and priors as functions of standard normal draws."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

# The modes of a mixture are petals that point to the origin (Makhzani 2015, figures 2 and 4, without numbers).
CENTRE, RADIAL, TANGENTIAL = 1.4, 0.5, 0.05
RADIUS, TURNS = 3.0, 2.0  # outer radius and number of turns of the swiss roll

LEAST, MOST = -30.0, 20.0  # log-variances are kept within these: exp overflows in float32 beyond 88


def full_precision(x: Tensor) -> Tensor:
    """At least float32: what a sum, a norm or a probability is computed in under mixed precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def bounded(log_variance: Tensor) -> Tensor:
    """An encoder's log-variances within [LEAST, MOST]: raw counts of some thousands would overflow in the first step.

    Within them they are unchanged to the bit. Beyond them the gradient passes as it is, so that the KL pulls them back.
    """
    values = log_variance.detach()
    return log_variance + (values.clamp(LEAST, MOST) - values)


class Posterior(NamedTuple):
    """Diagonal Gaussian q(z|x); both fields `[batch, K]`, never in half precision.

    A log-variance of -inf is a deterministic encoder's: every sample is the mean, and the KL to a density is infinite.
    """

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def point(cls, mean: Tensor) -> Posterior:
        """All of q(z|x) in its mean."""
        return cls(mean, torch.full_like(mean, -math.inf))

    def sample(self, eps: Tensor) -> Tensor:
        """z = mean + sigma * eps (Zemouri 2020, eq 1); eps `[batch, K]` from a standard normal."""
        return self.mean + torch.exp(0.5 * self.log_variance) * eps

    def kl(self) -> Tensor:
        """KL(q || N(0, I)) of each latent dimension in nats, `[batch, K]` (eq 4)."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)


def category(eps: Tensor, count: int) -> Tensor:
    """int64 `[batch]`: one of `count` equally likely categories of each standard normal draw eps `[batch]`."""
    return (torch.special.ndtr(eps) * count).long().clamp_max(count - 1)  # ndtr rounds to 1 far out


def one_hot(y: Tensor, count: int) -> Tensor:
    """float32 `[batch, count]`; y int64 `[batch]`, zeros where it is -1."""
    return (y.unsqueeze(1) == torch.arange(count, device=y.device)).float()


def mixture_of_gaussians(eps: Tensor, mode: Tensor, modes: int) -> Tensor:
    """z `[batch, K]` of mode `[batch]` of `modes` on a circle in the first two dimensions; N(0, 1) in the others.

    A mode at the angle a has its mean at CENTRE (cos a, sin a), deviation RADIAL along that and TANGENTIAL across.
    """
    angle = 2 * math.pi * mode / modes
    along, across = CENTRE + RADIAL * eps[:, 0], TANGENTIAL * eps[:, 1]
    cos, sin = angle.cos(), angle.sin()
    plane = torch.stack([along * cos - across * sin, along * sin + across * cos], 1)
    return torch.cat([plane, eps[:, 2:]], 1)


def swiss_roll(eps: Tensor, segment: Tensor, segments: int) -> Tensor:
    """z `[batch, K]`: a spiral in the first two dimensions, uniform over its area; N(0, 1) in the others.

    segment `[batch]`: which of `segments` equal parts of the spiral, counted from the centre; -1 is all of it.
    """
    part = torch.special.ndtr(eps[:, 0])
    along = torch.where(segment < 0, part, (segment + part) / segments).sqrt()
    angle = 2 * math.pi * TURNS * along
    return torch.cat([RADIUS * along.unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], 1), eps[:, 2:]], 1)
