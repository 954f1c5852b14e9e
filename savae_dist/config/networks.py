"""The section `networks`: their size, what they start from, and what of their work is kept in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from savae_dist.config.counts import Auto, at_least_one
from savae_dist.errors import ConfigError


@dataclass
class NetworksConfig:
    """width: the paper's open channel number w. pools: halvings of the input; auto: by its size (`config.auto`).
    norm: `batch` normalises over a process's part of the global batch, `sync_batch` (GPUs) over all processes' parts.

    initial: trained networks to start from: a finished run, a pipeline, a checkpoint, one network's folder, or a
        repository on the Hub.
    checkpoint_activations: keep only what enters each convolution stage, and compute the rest again for the gradient.
    """

    width: int = 16
    norm: Literal["batch", "sync_batch", "group", "none"] = "batch"
    pools: int | Auto = "auto"
    initial: str | None = None
    checkpoint_activations: bool = False

    def check(self) -> None:
        at_least_one({"networks.width": self.width})
        if self.pools != "auto" and not 0 <= self.pools <= 6:
            raise ConfigError(f"networks.pools must lie between 0 and 6, not {self.pools}")
