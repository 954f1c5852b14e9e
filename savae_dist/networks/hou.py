"""Hou 2019, section 3.2: encoder, decoder and critic, for images and signals in the same class.

The channel numbers stand in a figure only; here, as in DFC-VAE (Hou 2017), they are w, 2w, 4w, 8w with w = `width`,
32 there. The paper's images are 64x64 and have four `stages`. Any size works: halvings round up, the decoder crops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from savae_dist.latents import Posterior, bounded, full_precision
from savae_dist.networks.base import Critic, Decoder, Encoder
from savae_dist.networks.blocks import Norm, Output, Residual, act, conv, conv_norm_act, crop, initialise, norm

STAGES = 4
MOST_STAGES = 32  # after which any axis is down to 1


def stage_widths(width: int, stages: int) -> tuple[int, ...]:
    if not 1 <= stages <= MOST_STAGES:
        raise ValueError(f"stages must lie between 1 and {MOST_STAGES}, not {stages}")
    return tuple(width * 2 ** min(stage, STAGES - 1) for stage in range(stages))


def halved(shape: Sequence[int], stages: int) -> tuple[int, ...]:
    """(height, width) or (length,) after `stages` halvings that round up."""
    return tuple(math.ceil(n / 2**stages) for n in shape[1:])


def plain_conv(
    dims: int, channels_in: int, channels_out: int, kernel: int | tuple[int, ...], stride: int = 1, bias: bool = True
) -> nn.Module:
    """Convolution without padding over `dims` axes."""
    return (nn.Conv1d, nn.Conv2d)[dims - 1](channels_in, channels_out, kernel, stride, bias=bias)  # type: ignore[arg-type]


class Halving(nn.Module):
    """4-wide convolution of stride 2 with zero padding 1, one more at the end of an odd axis: n becomes ceil(n / 2)."""

    def __init__(self, dims: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = plain_conv(dims, channels_in, channels_out, 4, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        padding = [p for n in reversed(x.shape[2:]) for p in (1, 1 + n % 2)]
        return self.conv(F.pad(x, padding))


class Doubling(nn.Module):
    """Nearest upsampling by 2, then a 3-wide convolution whose padding repeats the border."""

    def __init__(self, dims: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = plain_conv(dims, channels_in, channels_out, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.conv(F.pad(x, (1, 1) * (x.ndim - 2), mode="replicate"))


def in_turn(x: Tensor, convolve: nn.Module, normalise: nn.Module, block: nn.Module) -> Tensor:
    """A stage: convolution, norm, LeakyReLU, residual block."""
    out: Tensor = block(conv_norm_act(x, convolve, normalise))
    return out


def without_norm(x: Tensor, convolve: nn.Module, block: nn.Module) -> Tensor:
    out: Tensor = block(act(convolve(x)))
    return out


def residual(dims: int, width: int) -> Residual:
    return Residual(conv(dims, width, width), conv(dims, width, width))


class HouEncoder(Encoder):
    """Stages of (conv 4x4 stride 2, batch norm, LeakyReLU, residual block), then linear mean and log-variance.

    shape: (channels, height, width) or (channels, length). The features are the outputs of all stages.
    """

    model_type = "hou_encoder"

    def __init__(
        self, shape: Sequence[int], latent_dim: int, width: int = 32, stages: int = STAGES, norm_kind: Norm = "batch"
    ) -> None:
        super().__init__()
        dims, widths = len(shape) - 1, stage_widths(width, stages)
        self.latent_dim = latent_dim
        self.convs = nn.ModuleList(Halving(dims, a, b) for a, b in zip((shape[0], *widths), widths, strict=False))
        self.norms = nn.ModuleList(norm(norm_kind, w, dims) for w in widths)
        self.residuals = nn.ModuleList(residual(dims, w) for w in widths)
        flat = widths[-1] * math.prod(halved(shape, stages))
        self.mean, self.log_variance = nn.Linear(flat, latent_dim), nn.Linear(flat, latent_dim)
        initialise(self, self.mean, self.log_variance)

    def forward(self, x: Tensor) -> tuple[Posterior, list[Tensor]]:
        features = []
        for parts in zip(self.convs, self.norms, self.residuals, strict=True):
            x = self.through(in_turn, x, *parts)
            features.append(x)
        x = x.flatten(1)
        return Posterior(full_precision(self.mean(x)), bounded(full_precision(self.log_variance(x)))), features


class HouDecoder(Decoder):
    """A linear layer, then stages of (nearest x2, conv 3x3, batch norm, LeakyReLU, residual block).

    The last stage is nearest x2 and a bare convolution.
    """

    model_type = "hou_decoder"

    def __init__(
        self,
        shape: Sequence[int],
        latent_dim: int,
        width: int = 32,
        stages: int = STAGES,
        norm_kind: Norm = "batch",
        output: Output = "sigmoid",
    ) -> None:
        super().__init__()
        dims, widths = len(shape) - 1, stage_widths(width, stages)[::-1]
        self.shape, self.latent_dim, self.output = tuple(shape), latent_dim, output
        self.start = (widths[0], *halved(shape, stages))
        self.dense = nn.Linear(latent_dim, math.prod(self.start))
        self.convs = nn.ModuleList(Doubling(dims, a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(norm(norm_kind, w, dims) for w in widths[1:])
        self.residuals = nn.ModuleList(residual(dims, w) for w in widths[1:])
        self.last = Doubling(dims, widths[-1], shape[0])
        initialise(self)

    def logits(self, z: Tensor) -> Tensor:
        x = self.dense(z).unflatten(1, self.start)
        for parts in zip(self.convs, self.norms, self.residuals, strict=True):
            x = self.through(in_turn, x, *parts)
        return crop(self.last(x), self.shape)


class HouCritic(Critic):
    """Stages of (conv 4x4 stride 2, LeakyReLU, residual block), then a conv over all that is left (4x4) to a score.

    No norm: a batch's statistics would tell real from generated by the company they keep. shape: of its input, in the
    paper the features of VGG-19's first layer.
    """

    model_type = "hou_critic"

    def __init__(self, shape: Sequence[int], width: int = 32, stages: int = STAGES) -> None:
        super().__init__()
        dims, widths = len(shape) - 1, stage_widths(width, stages)
        self.convs = nn.ModuleList(Halving(dims, a, b) for a, b in zip((shape[0], *widths), widths, strict=False))
        self.residuals = nn.ModuleList(residual(dims, w) for w in widths)
        # No bias: it would cancel in the difference of two scores.
        self.score = plain_conv(dims, widths[-1], 1, halved(shape, stages), bias=False)
        initialise(self, self.score)

    def forward(self, x: Tensor) -> Tensor:
        for convolve, block in zip(self.convs, self.residuals, strict=True):
            x = self.through(without_norm, x, convolve, block)
        return full_precision(self.score(x).flatten())
