"""A critic that sees what a signal's spectrum does over time, since the phase of a waveform says nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from savae_dist.latents import full_precision
from savae_dist.networks.base import Critic
from savae_dist.networks.conv import ConvCritic

WINDOWS = (64, 256)  # samples in a window of each resolution
FLOOR = 1e-8  # least power before the logarithm is taken


def power_frames(x: Tensor, window: int) -> Tensor:
    """Power density of the frames of signals `[batch, channels, length]`, `[batch, channels, frames, frequencies]`.

    Hann windows of at most the length that overlap by half; without DC; white noise of variance 1 has 1 everywhere.
    """
    x = full_precision(x)
    size = min(window, x.shape[-1])
    hann = torch.hann_window(size, dtype=x.dtype, device=x.device)
    frames = x.unfold(-1, size, max(size // 2, 1)) * hann
    return torch.fft.rfft(frames)[..., 1:].abs().square() / hann.square().sum()


def frames_of(length: int, window: int) -> tuple[int, int]:
    """(frames, frequencies) of `power_frames`."""
    size = min(window, length)
    return (length - size) // max(size // 2, 1) + 1, size // 2


class SpectrogramCritic(Critic):
    """The mean of the scores of one critic of images for each resolution, whose pixels are log powers.

    After the multi-resolution spectrogram discriminator of UnivNet (Jang 2021), with Zemouri's critic as each part.
    """

    model_type = "spectrogram_critic"

    def __init__(
        self, shape: Sequence[int], width: int = 16, spectral_norm: bool = False, windows: Sequence[int] = WINDOWS
    ) -> None:
        super().__init__()
        if len(shape) != 2:
            raise ValueError(f"a critic of spectrograms is for signals, [channels, length], not for {list(shape)}")
        channels, length = shape
        self.windows = tuple(windows)
        sizes = (frames_of(length, window) for window in self.windows)
        self.critics = nn.ModuleList(ConvCritic((channels, *size), width, 2, spectral_norm) for size in sizes)

    def forward(self, x: Tensor) -> Tensor:
        scores = [
            critic(torch.log(power_frames(x, window) + FLOOR) / math.log(10))
            for critic, window in zip(self.critics, self.windows, strict=True)
        ]
        return torch.stack(scores).mean(0)
