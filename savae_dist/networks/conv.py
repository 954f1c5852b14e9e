"""Zemouri 2020, section 3.2: encoder, decoder and critic, for images and signals in the same class.

The paper leaves the widths to a figure; here w = `width`, stages of w, w, 2w, 2w, 4w, 4w channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from einops import rearrange
from torch import Tensor, nn

from savae_dist.latents import Posterior, bounded, full_precision
from savae_dist.networks.base import Critic, Decoder, Encoder
from savae_dist.networks.blocks import Norm, Output, Residual, act, conv, crop, initialise, norm
from savae_dist.networks.noise import CodeDraws, StageNoise
from savae_dist.networks.upsample import Upsampling, doubling

FeatureTap = Literal["act", "conv", "pool"]

POOL_ORDER = (2, 4, 6, 5, 3, 1)  # the stages that get a max-pool behind them: the paper's two first, then from the end
FULLY_CONNECTED = (512, 256, 128)
FEATURE_STAGES = 3
CONVS = (nn.Conv1d, nn.Conv2d)


def stage_widths(width: int) -> tuple[int, ...]:
    return (width, width, 2 * width, 2 * width, 4 * width, 4 * width)


def pool(x: Tensor, factor: int = 2) -> Tensor:
    """Max-pool over all spatial axes; sizes are rounded up, so any size works."""
    function = nn.functional.max_pool1d if x.ndim == 3 else nn.functional.max_pool2d
    return function(x, factor, ceil_mode=True)


def pooled_size(shape: Sequence[int], pools: int) -> tuple[int, ...]:
    """(height, width) or (length,) after `pools` halvings that round up."""
    return tuple(math.ceil(n / 2**pools) for n in shape[1:])


def check_pools(pools: int) -> frozenset[int]:
    if not 0 <= pools <= len(POOL_ORDER):
        raise ValueError(f"networks.pools must lie between 0 and {len(POOL_ORDER)}, not {pools}")
    return frozenset(POOL_ORDER[:pools])


def dense_stack(sizes: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))


class ConvEncoder(Encoder):
    """Six stages (conv, residual block, LeakyReLU), max-pools after stages 2 and 4, three fully connected layers.

    shape: (channels, height, width) or (channels, length). `feature_tap` says which tensor of a stage is its
    feature F_i: `act` after the LeakyReLU, `conv` right after the convolution, `pool` after the pool if there is one.
    """

    model_type = "conv_encoder"

    def __init__(
        self, shape: Sequence[int], latent_dim: int, width: int = 16, pools: int = 2, feature_tap: FeatureTap = "act"
    ) -> None:
        super().__init__()
        dims, widths = len(shape) - 1, stage_widths(width)
        self.latent_dim, self.feature_tap = latent_dim, feature_tap
        self.pooled = check_pools(pools)
        self.convs = nn.ModuleList(conv(dims, a, b) for a, b in zip((shape[0], *widths), widths, strict=False))
        self.residuals = nn.ModuleList(Residual(conv(dims, w, w), conv(dims, w, w)) for w in widths)
        self.dense = dense_stack((widths[-1] * math.prod(pooled_size(shape, pools)), *FULLY_CONNECTED))
        self.mean = nn.Linear(FULLY_CONNECTED[-1], latent_dim)
        self.log_variance = nn.Linear(FULLY_CONNECTED[-1], latent_dim)
        initialise(self, self.mean, self.log_variance)

    def stage(self, number: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Stage 1..6: (what the next stage gets, the feature F_i)."""

        def compute(x: Tensor, convolve: nn.Module, residual: nn.Module) -> tuple[Tensor, Tensor]:
            convolved = convolve(x)
            activated = act(residual(convolved))
            out = pool(activated) if number in self.pooled else activated
            return out, {"conv": convolved, "act": activated, "pool": out}[self.feature_tap]

        return self.through(compute, x, self.convs[number - 1], self.residuals[number - 1])

    def features(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The features F_1..F_3 and the input of stage 4; all that the feature loss needs."""
        features = []
        for number in range(1, FEATURE_STAGES + 1):
            x, feature = self.stage(number, x)
            features.append(feature)
        return features, x

    def stages(self, x: Tensor) -> list[Tensor]:
        return self.features(x)[0]

    def receptive_fields(self) -> list[int]:
        """How many samples of the input along an axis an element of each stage depends on, before the stage's pool."""
        fields, seen, step = [], 1, 1
        for number, stage in enumerate(zip(self.convs, self.residuals, strict=True), 1):
            kernels = [layer.kernel_size[0] for part in stage for layer in part.modules() if isinstance(layer, CONVS)]
            seen += step * sum(size - 1 for size in kernels)
            fields.append(seen)
            if number in self.pooled:
                seen, step = seen + step, 2 * step
        return fields

    def hidden(self, x: Tensor) -> Tensor:
        """From the input of stage 4 to what the two heads read, `[batch, 128]`."""
        for number in range(FEATURE_STAGES + 1, len(self.convs) + 1):
            x, _ = self.stage(number, x)
        x = x.flatten(1)
        for layer in self.dense:
            x = act(layer(x))
        return x

    def posterior(self, x: Tensor) -> Posterior:
        """The rest of the way, from the input of stage 4 to q(z|x)."""
        x = self.hidden(x)
        return Posterior(full_precision(self.mean(x)), bounded(full_precision(self.log_variance(x))))

    def forward(self, x: Tensor) -> tuple[Posterior, list[Tensor]]:
        features, x = self.features(x)
        return self.posterior(x), features


class ConvDecoder(Decoder):
    """The encoder mirrored: three fully connected layers, seven convolutions, the size doubled before 3 and 5.

    upsample: how it is doubled, `nearest` in the paper. noise: numbers of which a sample's noise is made, added behind
    each of the first six convolutions; 0, as in the paper: none.
    """

    model_type = "conv_decoder"

    def __init__(
        self,
        shape: Sequence[int],
        latent_dim: int,
        width: int = 16,
        pools: int = 2,
        norm_kind: Norm = "batch",
        output: Output = "sigmoid",
        upsample: Upsampling = "nearest",
        noise: int = 0,
    ) -> None:
        super().__init__()
        dims, widths = len(shape) - 1, stage_widths(width)[::-1]
        self.shape, self.latent_dim, self.output = tuple(shape), latent_dim, output
        # The convolution that mirrors a pooled stage s is number 7 - s: the size doubles before it.
        self.upsampled = frozenset(7 - stage for stage in check_pools(pools))
        self.start, self.doubled = pooled_size(shape, pools), doubling(upsample)
        sizes = (latent_dim, *FULLY_CONNECTED[1::-1], widths[0] * math.prod(self.start))
        self.dense = dense_stack(sizes)
        self.dense_norms = nn.ModuleList(norm(norm_kind, n, 0) for n in sizes[1:])
        self.convs = nn.ModuleList(conv(dims, a, b) for a, b in zip((widths[0], *widths), widths, strict=False))
        self.norms = nn.ModuleList(norm(norm_kind, w, dims) for w in widths)
        self.residuals = nn.ModuleList(Residual(conv(dims, w, w), conv(dims, w, w)) for w in widths)
        self.last = conv(dims, widths[-1], shape[0])
        self.code_draws = CodeDraws(latent_dim, noise) if noise else None
        self.noises = nn.ModuleList(
            StageNoise(w, self.size_of(stage), noise, stage) for stage, w in enumerate(widths, 1) if noise
        )
        initialise(self)

    def size_of(self, stage: int) -> tuple[int, ...]:
        """(height, width) or (length,) of the features of a convolution 1..6."""
        return tuple(n * 2 ** sum(at <= stage for at in self.upsampled) for n in self.start)

    def forward(self, z: Tensor, draws: Tensor | None = None) -> Tensor:
        """draws: standard normal `[batch, noise]`, of which the noise is made; None: such as follow from the code."""
        return self.finished(self.logits(z, draws))

    def logits(self, z: Tensor, draws: Tensor | None = None) -> Tensor:
        x = z
        for layer, normalise in zip(self.dense, self.dense_norms, strict=True):
            x = act(normalise(layer(x)))
        if len(self.start) == 1:
            x = rearrange(x, "b (c l) -> b c l", l=self.start[0])
        else:
            x = rearrange(x, "b (c h w) -> b c h w", h=self.start[0], w=self.start[1])
        draws = self.code_draws(z) if draws is None and self.code_draws is not None else draws
        for number in range(1, len(self.convs) + 1):
            x = self.stage(number, x, draws)
        return crop(self.last(x), self.shape)

    def stage(self, number: int, x: Tensor, draws: Tensor | None) -> Tensor:
        """Stage 1..6."""

        def compute(x: Tensor, convolve: nn.Module, normalise: nn.Module, residual: nn.Module) -> Tensor:
            if number in self.upsampled:
                x = self.doubled(x)
            x = convolve(x)
            if self.noises:
                x = self.noises[number - 1](x, draws)
            out: Tensor = residual(act(normalise(x)))
            return out

        parts = (part[number - 1] for part in (self.convs, self.norms, self.residuals))
        return self.through(compute, x, *parts)


class ConvCritic(Critic):
    """Three convolutions w, 2w, 4w with LeakyReLU, max-pools before 2 and 3, four fully connected, one linear unit.

    With more than two `pools` the further halvings are spread over the three places, the last behind convolution 3.
    """

    model_type = "conv_critic"

    def __init__(self, shape: Sequence[int], width: int = 16, pools: int = 2, spectral_norm: bool = False) -> None:
        super().__init__()
        check_pools(pools)
        dims, widths = len(shape) - 1, (width, 2 * width, 4 * width)
        self.pool_factors = tuple(2 ** ((pools + 2 - place) // 3) for place in range(3))
        self.convs = nn.ModuleList(conv(dims, a, b) for a, b in zip((shape[0], *widths), widths, strict=False))
        self.dense = dense_stack((widths[-1] * math.prod(pooled_size(shape, pools)), *FULLY_CONNECTED, 64))
        self.score = nn.Linear(64, 1)
        initialise(self, self.score)
        if spectral_norm:
            for layer in (*self.convs, *self.dense, self.score):
                nn.utils.parametrizations.spectral_norm(layer)

    def features(self, x: Tensor) -> Tensor:
        """The activations of the last convolution."""
        for number in range(1, len(self.convs) + 1):
            x = self.stage(number, x)
        return x

    def stage(self, number: int, x: Tensor) -> Tensor:
        """Stage 1..3."""
        factor = self.pool_factors[number - 1]

        def compute(x: Tensor, convolve: nn.Module) -> Tensor:
            x = act(convolve(x))
            return pool(x, factor) if factor > 1 else x

        return self.through(compute, x, self.convs[number - 1])

    def head(self, features: Tensor) -> Tensor:
        """The scores `[batch]` of these activations."""
        x = features.flatten(1)
        for layer in self.dense:
            x = act(layer(x))
        return full_precision(self.score(x).squeeze(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
