"""A critic that sees every p-th sample of a signal side by side, since vibrations and voices repeat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from savae_dist.latents import full_precision
from savae_dist.networks.base import Critic
from savae_dist.networks.blocks import act, initialise
from savae_dist.networks.staged import Staged

PERIODS = (2, 3, 5, 7, 11)  # Kong's: primes, so that no two of them see the same samples side by side
KERNEL, STRIDES = 5, (3, 3, 3, 1)  # length and strides of the convolutions, all along a column


def folded(x: Tensor, period: int) -> Tensor:
    """Signals `[batch, channels, length]` as rows of `period` samples, `[batch, channels, rows, period]`.

    Column c holds the samples c, c + period, c + 2 period ... A length that is no multiple of the period is first made
    one by reflection: what follows the last sample are the samples before it, the latest first.
    """
    missing = -x.shape[-1] % period
    if missing:  # not torch's padding, whose gradient on a GPU is not the same each time
        x = torch.cat([x, x[..., -missing - 1 : -1].flip(-1)], -1)
    return x.unflatten(-1, (-1, period))


def in_turn(x: Tensor, *convs: nn.Module) -> Tensor:
    """One stage for activation checkpointing: by itself a convolution with LeakyReLU keeps no more than its input."""
    for convolve in convs:
        x = act(convolve(x))
    return x


class ColumnCritic(Staged):
    """Critic of signals folded by one period, `[batch, channels, rows, period]`; no column has a part in another's."""

    def __init__(self, channels: int, width: int, spectral_norm: bool) -> None:
        super().__init__()
        sizes = (channels, width, 2 * width, 4 * width, 4 * width)
        self.convs = nn.ModuleList(
            nn.Conv2d(sizes[i], sizes[i + 1], (KERNEL, 1), (stride, 1), (KERNEL // 2, 0))
            for i, stride in enumerate(STRIDES)
        )
        self.score = nn.Conv2d(sizes[-1], 1, (3, 1), padding=(1, 0))
        initialise(self, self.score)
        if spectral_norm:
            for layer in (*self.convs, self.score):
                nn.utils.parametrizations.spectral_norm(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of pieces of the columns, `[batch, pieces, period]`."""
        x = self.through(in_turn, x, *self.convs)
        return full_precision(self.score(x).squeeze(1))


class PeriodCritic(Critic):
    """The mean of the scores of one critic for each period, by which it folds the signal.

    The multi-period discriminator of HiFi-GAN (Kong 2020), narrower, and with one score: there each part has a loss.
    """

    model_type = "period_critic"

    def __init__(
        self, shape: Sequence[int], width: int = 16, spectral_norm: bool = False, periods: Sequence[int] = PERIODS
    ) -> None:
        super().__init__()
        if len(shape) != 2:
            raise ValueError(f"a critic of periods is for signals, [channels, length], not for {list(shape)}")
        channels, length = shape
        if length < max(periods):
            raise ValueError(
                f"a critic of periods of up to {max(periods)} samples needs windows as long, not of {length}"
            )
        self.periods = tuple(periods)
        self.critics = nn.ModuleList(ColumnCritic(channels, width, spectral_norm) for _ in self.periods)

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.critics, self.periods, strict=True)
        return torch.stack([critic(folded(x, period)).mean((1, 2)) for critic, period in pairs]).mean(0)
