"""What the loops of a comparison share: configuration, shards, device and initial weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from savae_dist.config import auto
from savae_dist.config.schema import RunConfig
from savae_dist.data import Shards, pack
from savae_dist.networks import Network

Step = Callable[[], object]  # one iteration

# The paper's losses alone, not those that the demo adds: the hand-written loop has no others.
PAPER = ("system.latent_dim=2", "system.kl_weight=0.01", "system.reconstruction_weight=0")
SYNTHETIC = 4096  # samples of the synthetic set
SHAPE = (1, 28, 28)  # channels, height, width


@dataclass(frozen=True)
class Setting:
    """What all loops of a comparison share."""

    config: RunConfig
    shards: Shards
    device: torch.device

    def networks(self) -> dict[str, Network]:
        """Fresh networks with the same weights at each call, on the device and in the memory format of a run."""
        torch.manual_seed(self.config.seed)
        widths = self.config.networks
        assert widths.pools != "auto"
        networks = self.config.system.build(self.shards.spec, widths.width, widths.norm, widths.pools)
        for network in networks.values():
            network.to(self.device, memory_format=torch.channels_last)
        return networks


def in_numbers(config: RunConfig) -> RunConfig:
    """The configuration with a number for each `auto`, as it would have on the synthetic set."""
    return auto.resolve(config, SHAPE, {})


def synthetic(folder: Path, shape: tuple[int, ...] = SHAPE) -> Shards:
    """Pack noise with labels of ten classes: grey images of this shape, or windows where it is (1, length)."""
    rng, size = np.random.default_rng(0), (SYNTHETIC, *shape[1:])
    x = rng.integers(0, 256, size, np.uint8) if len(shape) == 3 else rng.standard_normal(size, np.float32)
    pack(x, np.arange(SYNTHETIC) % 10, folder, shard_size=SYNTHETIC // 4)
    return Shards.open(folder)
