"""What a run begins with: its shards, its networks, and where it stands."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from savae_dist.config import identity
from savae_dist.config.effect import no_effect
from savae_dist.config.schema import DataConfig, RunConfig
from savae_dist.data import Mixture, SampleOrder, Shards, Store, demo_shards
from savae_dist.distributed.ranks import Peers
from savae_dist.errors import CheckpointError, ConfigError
from savae_dist.networks import FeatureNetwork, Network
from savae_dist.preprocess import DataSpec
from savae_dist.run import checkpoint
from savae_dist.run.checkpoint import TrainingState
from savae_dist.systems.phases import Phase
from savae_dist.training.batch_norm import batch_norms
from savae_dist.training.batches import Slicing


def open_shards(data: DataConfig) -> tuple[Shards, Shards | None]:
    """The training set, and the validation set in the training set's normalisation; the embedded digits if none."""
    train, validation = data.train, data.validation
    if train is None:
        digits = demo_shards()
        train, validation = str(digits[0]), validation or str(digits[1])
    store = Store(Path(data.cache_dir) if data.cache_dir else None, data.cache_bytes, data.outage_limit)
    shards = Shards.open(train, store)
    if shards.spec.kind == "signal":
        shards = shards.with_normalise(data.normalise)
    elif data.normalise != DataConfig.normalise:
        raise no_effect("data.normalise", data.normalise, "on images, which are divided by 255")
    return shards, Shards.open(validation, store).with_spec(shards.spec) if validation else None


def check_cache(data: DataConfig, shards: Shards, order: SampleOrder, ranks: int) -> None:
    """ConfigError where the cache of remote shards cannot hold a window of each lane that this node reads, twice."""
    here, lanes = int(os.environ.get("LOCAL_WORLD_SIZE", ranks)), order.lanes  # ranks of this node
    if lanes % ranks == 0 and not isinstance(order, Mixture):  # then each reads its own lanes
        lanes = lanes // ranks * here
    if data.cache == "none":
        shards.check_cache(2 * lanes * data.shuffle_window)


def build_networks(config: RunConfig, spec: DataSpec, slicing: Slicing, device: torch.device) -> dict[str, Network]:
    """The system's networks, the same on every rank: from the seed, or as `networks.initial` has them."""
    torch.manual_seed(config.seed)
    sizes = config.networks
    together = sizes.norm == "sync_batch"
    if together and device.type == "cpu":
        raise ConfigError(
            "networks.norm=sync_batch needs GPUs; on CPUs networks.norm=group is the same on all processes"
        )
    norm = "batch" if together else sizes.norm
    networks: dict[str, Network] = config.system.build(spec, sizes.width, norm, sizes.pools)
    if sizes.initial is not None and not checkpoint.load_networks(Path(sizes.initial), networks):
        raise ConfigError(f"networks.initial={sizes.initial} holds none of {', '.join(networks)}")
    if together:  # in training only: what is saved and exported are batch norms
        networks = {name: nn.SyncBatchNorm.convert_sync_batchnorm(network) for name, network in networks.items()}
    slice_size = slicing.size // (slicing.ranks * slicing.accumulate)
    if slice_size == 1 and any(batch_norms(network) for network in networks.values()):
        raise ConfigError("data.batch_size: batch norm needs two samples per process and step, or networks.norm=group")
    for network in networks.values():
        # Images in channels-last order, in which convolutions are faster on CPUs and GPUs alike.
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return networks


def starting_state(
    config: RunConfig, shards: Shards, networks: dict[str, Network], first: Phase, ranks: int
) -> TrainingState:
    """A run that has not begun."""
    lanes = max(8, ranks) if config.data.lanes == "auto" else config.data.lanes
    frozen = {f"sha256 of {name}": n.digest() for name, n in networks.items() if isinstance(n, FeatureNetwork)}
    facts = {"lanes": lanes, "data": shards.digest, **frozen, **identity.identity(config)}
    return TrainingState(first.name, step=0, total=0, origin=0, run=facts)


def resume(
    config: RunConfig, start: TrainingState, networks: dict[str, Network], peers: Peers
) -> tuple[TrainingState, Path | None]:
    """The state of the newest checkpoint in the run's folder, its networks loaded; or `start`. The same on all ranks.

    ConfigError if the folder is used and `resume=never`; CheckpointError if it belongs to another run.
    """
    folder = Path(config.output or ".")
    if config.resume == "never" and (folder / "config.yaml").exists():
        raise ConfigError(f"output={folder} is already used and resume=never; choose another output")
    found = peers.choose(folder / "checkpoints", checkpoint.newest, checkpoint.problem)
    if found is None:
        return start, None
    state = checkpoint.read_state(found)
    if config.data.lanes == "auto":  # of another number of processes, perhaps
        start.run["lanes"] = state.run["lanes"]
    # An augmentation of strength 0 has no key on one side; a key that was freed since has one on the other.
    for key in sorted((start.run | state.run).keys() - identity.FREE_KEYS):
        if state.run.get(key) != start.run.get(key):
            raise CheckpointError(
                f"{found} was trained with {key}={state.run.get(key)}, not {start.run.get(key)}: "
                "restore it, or choose another output"
            )
    checkpoint.load_networks(found / "networks", networks)
    return state, found
