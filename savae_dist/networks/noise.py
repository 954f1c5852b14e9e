"""Noise within a decoder, for what a code cannot know: where in a window something happens, and with which phase."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from savae_dist.latents import full_precision

FINENESS = 10.0  # deviation of the frequencies by which a code draws: codes 0.3 apart draw as good as independently


class StageNoise(nn.Module):
    """Adds noise to features `[batch, channels, *size]`: one value a position, times a scale that each channel learns.

    After StyleGAN's noise (Karras 2019). The scales start at 0, so that a decoder starts as it would without. The
    values are sums of a sample's `draws` with fixed weights, and not drawn one by one as there: standard normal draws
    give standard normal values, of which any two are correlated by chance, by about 1 / sqrt(draws).
    number: of the stage, since each has weights of its own.
    """

    weights: Tensor

    def __init__(self, channels: int, size: Sequence[int], draws: int, number: int) -> None:
        super().__init__()
        self.size = tuple(size)
        self.scale = nn.Parameter(torch.zeros(channels))
        weights = torch.empty(draws, math.prod(size))
        if not weights.is_meta:
            drawn = np.random.default_rng(number).standard_normal(tuple(weights.shape))
            weights.copy_(torch.from_numpy(drawn / np.linalg.norm(drawn, axis=0)))
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, x: Tensor, draws: Tensor) -> Tensor:
        """x `[batch, channels, *size]`, draws `[batch, draws]`."""
        values = (draws.to(self.weights.dtype) @ self.weights).unflatten(1, (1, *self.size))
        return x + self.scale.view(-1, *[1] * len(self.size)) * values


class CodeDraws(nn.Module):
    """Codes z `[batch, latent_dim]` to draws `[batch, draws]` for `StageNoise`, where none are given.

    The same code always draws the same; others draw as good as independently, and no random state is used. Each draw is
    the cosine of a fixed sum of the code (random Fourier features, Rahimi and Recht 2007), with variance 1 over codes.
    """

    frequencies: Tensor
    shifts: Tensor

    def __init__(self, latent_dim: int, draws: int) -> None:
        super().__init__()
        frequencies, shifts = torch.empty(latent_dim, draws), torch.empty(draws)
        if not shifts.is_meta:
            random = np.random.default_rng(0)
            drawn = FINENESS * random.standard_normal((latent_dim, draws)), random.uniform(0, 2 * math.pi, draws)
            for values, exact in zip((frequencies, shifts), drawn, strict=True):
                values.copy_(torch.from_numpy(exact).bfloat16())  # the same in every precision
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("shifts", shifts, persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        # No matrix product: in half precision or TF32 it would draw something else.
        angles = (full_precision(z).unsqueeze(2) * full_precision(self.frequencies)).sum(1) + full_precision(
            self.shifts
        )
        return math.sqrt(2) * angles.cos()
