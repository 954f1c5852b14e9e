"""Code networks for images and signals whose convolutions do everything: no pooling, no fully connected layer.

Patni's convolutional variants of Makhzani 2015: strides instead of pools (Springenberg 2015), batch norm. The sizes are
ours: halvings down to at most four elements an axis, channels w, 2w, 4w, then 8w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from savae_dist.networks.base import Decoder
from savae_dist.networks.blocks import Norm, Output, conv_norm_act, crop, initialise, norm
from savae_dist.networks.conv import ConvEncoder, pooled_size
from savae_dist.networks.mlp import CodeEncoder

SMALLEST = 4
CONV: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d)
TRANSPOSED: tuple[type[nn.Module], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d)


def halvings(shape: Sequence[int]) -> int:
    return max(0, math.ceil(math.log2(max(shape[1:]) / SMALLEST)))


def channels(count: int, width: int) -> list[int]:
    """The `count` + 1 sizes of the stages, from the whole sample down."""
    return [width * 2 ** min(number, 3) for number in range(count + 1)]


class AllConvEncoder(CodeEncoder):
    """Stride-2 convolutions with norm and LeakyReLU; the last convolution covers what is left."""

    model_type = "all_conv_encoder"

    def __init__(
        self,
        shape: Sequence[int],
        style_dim: int,
        labels: int = 0,
        width: int = 16,
        norm_kind: Norm = "batch",
        batch_norm: bool = False,
    ) -> None:
        super().__init__(style_dim, labels, batch_norm)
        conv, count = CONV[len(shape) - 2], halvings(shape)
        widths = channels(count, width)
        strided = (conv(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.convs = nn.ModuleList([conv(shape[0], width, 3, padding=1), *strided])
        self.norms = nn.ModuleList(norm(norm_kind, w, len(shape) - 1) for w in widths)
        self.last = conv(widths[-1], self.latent_dim, pooled_size(shape, count))
        initialise(self)

    def outputs(self, x: Tensor) -> Tensor:
        for convolve, normalise in zip(self.convs, self.norms, strict=True):
            x = self.through(conv_norm_act, x, convolve, normalise)
        return self.last(x).flatten(1)


class AllConvDecoder(Decoder):
    """The encoder mirrored with transposed convolutions; too large sizes are cropped."""

    model_type = "all_conv_decoder"

    def __init__(
        self,
        shape: Sequence[int],
        latent_dim: int,
        width: int = 16,
        norm_kind: Norm = "batch",
        output: Output = "sigmoid",
    ) -> None:
        super().__init__()
        self.shape, self.latent_dim, self.output = tuple(shape), latent_dim, output
        transposed, count = TRANSPOSED[len(shape) - 2], halvings(shape)
        widths = channels(count, width)[::-1]
        doubling = (transposed(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.convs = nn.ModuleList([transposed(latent_dim, widths[0], pooled_size(shape, count)), *doubling])
        self.norms = nn.ModuleList(norm(norm_kind, w, len(shape) - 1) for w in widths)
        self.last = CONV[len(shape) - 2](width, shape[0], 3, padding=1)
        initialise(self)

    def logits(self, z: Tensor) -> Tensor:
        x = z.reshape(*z.shape, *[1] * (len(self.shape) - 1))
        for convolve, normalise in zip(self.convs, self.norms, strict=True):
            x = self.through(conv_norm_act, x, convolve, normalise)
        return crop(self.last(x), self.shape)


class ConvCodeEncoder(CodeEncoder):
    """Zemouri's encoder with one linear head in place of mean and log-variance, for comparisons on equal terms."""

    model_type = "conv_code_encoder"

    def __init__(
        self,
        shape: Sequence[int],
        style_dim: int,
        labels: int = 0,
        width: int = 16,
        pools: int = 2,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(style_dim, labels, batch_norm)
        self.body = ConvEncoder(shape, self.latent_dim, width, pools)
        del self.body.log_variance

    def outputs(self, x: Tensor) -> Tensor:
        _, x = self.body.features(x)
        return self.body.mean(self.body.hidden(x))
