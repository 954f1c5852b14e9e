"""The small parts of which networks are made: convolutions, norms, residual blocks, and how they start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

SLOPE = 0.2  # negative slope of every LeakyReLU

Norm = Literal["batch", "group", "none"]
Output = Literal["sigmoid", "linear"]  # last layer of a decoder: sigmoid for images in [0, 1], linear for signals


def act(x: Tensor) -> Tensor:
    """LeakyReLU in place: what feeds it, a convolution, a linear layer or a norm, needs its output no more."""
    return nn.functional.leaky_relu_(x, SLOPE)


def conv(dims: int, channels_in: int, channels_out: int) -> nn.Module:
    """3-wide convolution of stride 1 that keeps the size, for signals (dims 1) or images (dims 2)."""
    return (SignalConv, nn.Conv2d)[dims - 1](channels_in, channels_out, 3, padding=1)


class SignalConv(nn.Conv1d):
    """nn.Conv1d over `[batch, channels, length]`, computed in channels-last order, which only conv2d has.

    On a CPU two to three times as fast at the few channels and long windows of signals.
    """

    def forward(self, x: Tensor) -> Tensor:
        x, weight = (t.unsqueeze(2).contiguous(memory_format=torch.channels_last) for t in (x, self.weight))
        return nn.functional.conv2d(x, weight, self.bias, padding=(0, *self.padding)).squeeze(2)


def conv_norm_act(x: Tensor, convolve: nn.Module, normalise: nn.Module) -> Tensor:
    """A stage: convolution (strided or transposed, too), norm, LeakyReLU."""
    return act(normalise(convolve(x)))


def norm(kind: Norm, channels: int, dims: int) -> nn.Module:
    """Normalisation over `[batch, channels]` (dims 0), `[.., length]` (1) or `[.., height, width]` (2)."""
    if kind == "batch":
        return (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[dims](channels)
    if kind == "group":  # independent of the rest of the batch, so the same on any number of ranks
        return nn.GroupNorm(8 if channels % 8 == 0 else 1, channels)
    return nn.Identity()


def output_for(shape: Sequence[int]) -> Output:
    """The function at the end of a decoder of such samples."""
    return "sigmoid" if is_image(shape) else "linear"


def is_image(shape: Sequence[int]) -> bool:
    """(channels, height, width), values in [0, 1]; a signal is (channels, length)."""
    return len(shape) == 3


def crop(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x `[batch, channels, ...]` without what its axes have more than those of `shape`, at their ends."""
    return x[(slice(None), slice(None), *(slice(size) for size in shape[1:]))]


class Residual(nn.Module):
    """x + second(LeakyReLU(first(x))): same width, identity skip, no norm; second layer starts at a tenth."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        return self.second(act(self.first(x))).add_(x)


def initialise(network: nn.Module, *small: nn.Module) -> None:
    """Kaiming weights, zero biases; residual blocks' second layers and `small` are scaled by 0.1."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        seconds = (m.second for m in network.modules() if isinstance(m, Residual))
        for layer in (*seconds, *small):
            layer.get_parameter("weight").mul_(0.1)
