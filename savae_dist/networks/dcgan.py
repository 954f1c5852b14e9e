"""Radford 2016 (DCGAN): strided and transposed convolutions with batch norm, no pooling, no hidden dense layer.

Any size works: every stage halves it, rounding up, until at most 4 are left (64: four stages, as in the paper; 28:
three); stages have w, 2w, 4w, 8w, 8w, ... channels (the paper's generator: w = 128). Kernels are 5 wide, as printed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from savae_dist.latents import Posterior, bounded, full_precision
from savae_dist.networks.base import Critic, Decoder, Encoder
from savae_dist.networks.blocks import Norm, Output, conv_norm_act, norm
from savae_dist.networks.staged import Staged

SMALLEST, WIDEST = 4, 8
KERNEL = 5
DEVIATION = 0.02  # standard deviation of the initial weights


def sizes_of(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """(height, width) or (length,) before each stage and after the last."""
    sizes = [tuple(shape[1:])]
    while len(sizes) == 1 or max(sizes[-1]) > SMALLEST:
        sizes.append(tuple(math.ceil(n / 2) for n in sizes[-1]))
    return sizes


def widths_of(shape: Sequence[int], width: int) -> list[int]:
    """Channels after each stage."""
    return [width * min(2**stage, WIDEST) for stage in range(len(sizes_of(shape)) - 1)]


def initialise(network: nn.Module) -> None:
    """Weights from N(0, 0.02), gains from N(1, 0.02), biases 0."""
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=DEVIATION)


def transposed(x: Tensor, normalise: nn.Module, convolve: nn.Module) -> Tensor:
    """A stage that doubles: norm, ReLU (not in place: without a norm it would write into x), convolution."""
    out: Tensor = convolve(torch.relu(normalise(x)))
    return out


class StridedStages(Staged):
    """x `[batch, *shape]` -> the activations of every stage: convolution of stride 2, norm (not the first), LeakyReLU.

    centred: images in [0, 1] are brought to the paper's [-1, 1] first.
    """

    def __init__(self, shape: Sequence[int], width: int, norm_kind: Norm, centred: bool) -> None:
        super().__init__()
        dims, widths = len(shape) - 1, widths_of(shape, width)
        kind = (nn.Conv1d, nn.Conv2d)[dims - 1]
        self.centred = centred
        kinds: list[Norm] = ["none", *[norm_kind] * (len(widths) - 1)]
        self.convs = nn.ModuleList(
            kind(
                a, b, KERNEL, stride=2, padding=KERNEL // 2, bias=one == "none"
            )  # batch and group norm add a bias themselves
            for a, b, one in zip((shape[0], *widths), widths, kinds, strict=False)
        )
        self.norms = nn.ModuleList(norm(one, b, dims) for b, one in zip(widths, kinds, strict=True))
        self.units = widths[-1] * math.prod(sizes_of(shape)[-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        x = 2 * x - 1 if self.centred else x
        stages = []
        for convolve, normalise in zip(self.convs, self.norms, strict=True):
            x = self.through(conv_norm_act, x, convolve, normalise)
            stages.append(x)
        return stages


class DcganCritic(Critic):
    """The paper's discriminator without its sigmoid: strided stages, then one linear unit."""

    model_type = "dcgan_critic"

    def __init__(self, shape: Sequence[int], width: int = 16, norm_kind: Norm = "batch", centred: bool = True) -> None:
        super().__init__()
        self.stages = StridedStages(shape, width, norm_kind, centred)
        self.score = nn.Linear(self.stages.units, 1)
        initialise(self)

    def features(self, x: Tensor) -> Tensor:
        """The activations of the last convolution."""
        return self.stages(x)[-1]

    def head(self, features: Tensor) -> Tensor:
        """The scores `[batch]` of these activations."""
        return full_precision(self.score(features.flatten(1)).squeeze(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class DcganEncoder(Encoder):
    """The discriminator's stages with two linear heads, mean and log-variance, as Larsen 2016 builds it (his encoder
    has one more dense layer before them)."""

    model_type = "dcgan_encoder"

    def __init__(
        self, shape: Sequence[int], latent_dim: int, width: int = 16, norm_kind: Norm = "batch", centred: bool = True
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.strided = StridedStages(shape, width, norm_kind, centred)
        self.mean = nn.Linear(self.strided.units, latent_dim)
        self.log_variance = nn.Linear(self.strided.units, latent_dim)
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Posterior, list[Tensor]]:
        stages = self.strided(x)
        top = stages[-1].flatten(1)
        return Posterior(full_precision(self.mean(top)), bounded(full_precision(self.log_variance(top)))), stages


class DcganDecoder(Decoder):
    """The paper's generator: project and reshape, then transposed convolutions with norm and ReLU, the last one bare.

    The sigmoid of images in [0, 1] is the paper's tanh of images in [-1, 1].
    """

    model_type = "dcgan_decoder"

    def __init__(
        self,
        shape: Sequence[int],
        latent_dim: int,
        width: int = 16,
        norm_kind: Norm = "batch",
        output: Output = "sigmoid",
    ) -> None:
        super().__init__()
        dims, sizes, widths = len(shape) - 1, sizes_of(shape)[::-1], widths_of(shape, width)[::-1]
        kind: Callable[..., nn.Module] = (nn.ConvTranspose1d, nn.ConvTranspose2d)[dims - 1]
        self.latent_dim, self.output, self.start = latent_dim, output, (widths[0], *sizes[0])
        self.project = nn.Linear(latent_dim, math.prod(self.start), bias=norm_kind == "none")
        self.norms = nn.ModuleList(norm(norm_kind, w, dims) for w in widths)
        self.convs = nn.ModuleList(
            kind(
                *(a, b, KERNEL),
                stride=2,
                padding=KERNEL // 2,
                output_padding=tuple(large - 2 * small + 1 for small, large in zip(*between, strict=True)),
                bias=norm_kind == "none" or stage == len(widths),
            )
            for stage, (a, b, between) in enumerate(
                zip(widths, (*widths[1:], shape[0]), pairwise(sizes), strict=True), 1
            )
        )
        initialise(self)

    def logits(self, z: Tensor) -> Tensor:
        x = self.project(z).unflatten(1, self.start)
        for normalise, convolve in zip(self.norms, self.convs, strict=True):
            x = self.through(transposed, x, normalise, convolve)
        return 2 * x if self.output == "sigmoid" else x  # (1 + tanh x) / 2 = sigmoid 2x
