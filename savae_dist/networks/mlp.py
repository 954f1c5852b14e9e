"""Fully connected networks."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from savae_dist.networks.base import Classifier, Norm, Residual, act, initialise, norm


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
