"""Fully connected networks."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from savae_dist.latents import Posterior, full_precision
from savae_dist.networks.base import Classifier, Decoder, Discriminator, Encoder
from savae_dist.networks.blocks import Norm, Output, Residual, act, initialise, norm


class DenseClassifier(Classifier):
    """Zemouri 2020, section 3.2: three times (fully connected, batch norm, LeakyReLU, residual block), then logits."""

    model_type = "dense_classifier"

    def __init__(self, latent_dim: int, classes: int, hidden: int = 128, norm_kind: Norm = "batch") -> None:
        super().__init__()
        sizes = (latent_dim, hidden, hidden, hidden)
        self.dense = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(norm(norm_kind, hidden, 0) for _ in range(3))
        self.residuals = nn.ModuleList(Residual(nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)) for _ in range(3))
        self.logits = nn.Linear(hidden, classes)
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        for layer, normalise, residual in zip(self.dense, self.norms, self.residuals, strict=True):
            z = residual(act(normalise(layer(z))))
        return self.logits(z)


def two_layers(inputs: int, hidden: int, outputs: int, batch_norm: bool = False) -> nn.Sequential:
    """Makhzani 2015: two layers of `hidden` ReLU units, perhaps with batch norm, then a linear one."""
    norms = [nn.BatchNorm1d(hidden), nn.BatchNorm1d(hidden)] if batch_norm else []
    return nn.Sequential(
        *(nn.Linear(inputs, hidden), *norms[:1], nn.ReLU(inplace=True)),
        *(nn.Linear(hidden, hidden), *norms[1:], nn.ReLU(inplace=True)),
        nn.Linear(hidden, outputs),
    )


class CodeEncoder(Encoder):
    """A deterministic encoder: the code is z and, behind it, the probabilities of `labels` labels or clusters.

    batch_norm: of z and of the label logits, so that no label starts with all samples.
    """

    def __init__(self, style_dim: int, labels: int, batch_norm: bool) -> None:
        super().__init__()
        self.style_dim, self.latent_dim = style_dim, style_dim + labels
        self.code_norm = nn.BatchNorm1d(self.latent_dim) if batch_norm else nn.Identity()

    @abstractmethod
    def outputs(self, x: Tensor) -> Tensor:
        """The last layer, linear, `[batch, style_dim + labels]`."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """z `[batch, style_dim]` and the label logits `[batch, labels]`."""
        outputs = self.code_norm(full_precision(self.outputs(x)))
        return outputs[:, : self.style_dim], outputs[:, self.style_dim :]

    def forward(self, x: Tensor) -> tuple[Posterior, list[Tensor]]:
        z, logits = self.parts(x)
        return Posterior.point(torch.cat([z, logits.softmax(1)], 1)), []


class MLPEncoder(CodeEncoder):
    """Flattened samples through two layers; `batch_norm` in these as well."""

    model_type = "mlp_encoder"

    def __init__(
        self, shape: Sequence[int], style_dim: int, labels: int = 0, hidden: int = 1000, batch_norm: bool = False
    ) -> None:
        super().__init__(style_dim, labels, batch_norm)
        self.layers = two_layers(math.prod(shape), hidden, self.latent_dim, batch_norm)
        initialise(self)

    def outputs(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


class MLPDecoder(Decoder):
    """Two layers to a flattened sample."""

    model_type = "mlp_decoder"

    def __init__(
        self,
        shape: Sequence[int],
        latent_dim: int,
        hidden: int = 1000,
        output: Output = "sigmoid",
    ) -> None:
        super().__init__()
        self.shape, self.latent_dim, self.output = tuple(shape), latent_dim, output
        self.layers = two_layers(latent_dim, hidden, math.prod(shape))
        initialise(self)

    def logits(self, z: Tensor) -> Tensor:
        return self.layers(z).unflatten(1, self.shape)


class CodeDiscriminator(Discriminator):
    """Two layers from a code to the logit of its being real."""

    model_type = "code_discriminator"

    def __init__(self, latent_dim: int, hidden: int = 1000) -> None:
        super().__init__()
        self.layers = two_layers(latent_dim, hidden, 1)
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        return full_precision(self.layers(z).squeeze(1))
