"""The latent distribution of the encoders."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """At least float32: what a sum, a norm or a probability is computed in under mixed precision."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class Posterior(NamedTuple):
    """Diagonal Gaussian q(z|x); both fields `[batch, K]`, never in half precision."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, eps: Tensor) -> Tensor:
        """z = mean + sigma * eps (Zemouri 2020, eq 1); eps `[batch, K]` from a standard normal."""
        return self.mean + torch.exp(0.5 * self.log_variance) * eps

    def kl(self) -> Tensor:
        """KL(q || N(0, I)) of each latent dimension in nats, `[batch, K]` (eq 4)."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance)
