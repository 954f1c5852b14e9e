"""Networks that could never be trained here are refused before memory is taken for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from savae_dist.config.effect import field_values
from savae_dist.config.schema import OptimizerConfig, RunConfig
from savae_dist.errors import ConfigError
from savae_dist.networks import Network
from savae_dist.networks.stored import CONSTRUCTION, without_values
from savae_dist.preprocess import DataSpec
from savae_dist.run.planning.memory import memory_of, tensor_bytes
from savae_dist.run.reporting.units import size
from savae_dist.systems.phases import Update


def check_sizes(config: RunConfig, spec: DataSpec, device: torch.device, sharded: int = 1) -> None:
    """ConfigError if the networks and what their optimisers keep need more memory than each process has.

    sharded: the number of processes that share gradients and optimisers' states, under ZeRO or FSDP.
    """
    networks = outlines(config, spec)
    parts = {name: tensor_bytes([network]) for name, network in networks.items()}
    kept = max((kept_bytes(config, parts, sharded, phase.updates) for phase in config.system.phases()), default=0)
    memory, needed = memory_of(device), sum(parts.values()) + kept
    if needed <= memory:
        return
    chosen = field_values(config.system)
    keys = {"networks.width": config.networks.width, "networks.pools": config.networks.pools}
    keys |= {"system.latent_dim": chosen["latent_dim"]} if "latent_dim" in chosen else {}
    largest = max(parts, key=lambda name: parts[name])
    raise ConfigError(
        f"{' '.join(f'{key}={value}' for key, value in keys.items())}: networks of {size(sum(parts.values()))} "
        f"({largest} {size(parts[largest])}), with gradients and optimisers {size(needed)}, and each process has "
        f"{size(memory)} of memory: lower networks.width, or raise networks.pools"
    )


def outlines(config: RunConfig, spec: DataSpec) -> Mapping[str, Network]:
    """The networks without their values; none where the system cannot be built without, or not at all."""
    sizes = config.networks
    assert sizes.pools != "auto"
    norm = "batch" if sizes.norm == "sync_batch" else sizes.norm
    with warnings.catch_warnings():
        # Frozen feature networks are loaded while a system is built; here their values come to nothing, as they shall.
        warnings.filterwarnings("ignore", message=".*which is a no-op")
        try:
            with without_values():
                networks: Mapping[str, Network] = config.system.build(spec, sizes.width, norm, sizes.pools)
                return {name: network for name, network in networks.items() if isinstance(network, nn.Module)}
        except CONSTRUCTION:  # users' systems may need values to build; errors show again in the real build
            return {}


def kept_bytes(config: RunConfig, parts: Mapping[str, int], sharded: int, updates: Iterable[Update]) -> int:
    """Gradients, optimisers' states and weight averages while these updates train."""
    total = 0
    for update in updates:
        if update.active:
            trained = sum(parts.get(name, 0) for name in update.trains)
            total += (1 + moments(config.optimizers[update.name])) * trained // sharded
            total += trained if config.ema and update.averaged else 0
    return total


def moments(optimizer: OptimizerConfig) -> int:
    """How many values an optimiser keeps for each weight."""
    return 2 if optimizer.name in ("adam", "adamw") else int(optimizer.momentum > 0)
