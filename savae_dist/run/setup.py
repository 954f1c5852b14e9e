"""Put a run together, in this order: shards, networks, the state to start from, the reader of its data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from savae_dist.config import auto, identity
from savae_dist.config.schema import DataConfig, DdpConfig, RunConfig
from savae_dist.config.strategy import Strategy
from savae_dist.config.urls import shown_value
from savae_dist.data import (
    Mixture,
    Proportions,
    Reader,
    SampleOrder,
    Shards,
    attributes_of,
    training_order,
)
from savae_dist.data.index.losses import samples_left_out, unlabelled
from savae_dist.distributed.environment import ranks_of_node
from savae_dist.distributed.ranks import Peers
from savae_dist.errors import CheckpointError, ConfigError
from savae_dist.files import make_folder, remove_drafts, write_json, write_text
from savae_dist.networks import FeatureNetwork, Network
from savae_dist.networks.staged import checkpoint_activations
from savae_dist.preprocess import DataSpec, normalise
from savae_dist.run.checkpoints import checkpoint
from savae_dist.run.checkpoints.best import KeepBest
from savae_dist.run.hub import HubPush, fetch
from savae_dist.run.initial import find_initial
from savae_dist.run.planning.network_sizes import check_sizes
from savae_dist.run.process import Process
from savae_dist.run.reporting.outside_trackers import OutsideTrackers
from savae_dist.run.reporting.tracker import Tracker
from savae_dist.run.reporting.watch import Watch
from savae_dist.run.results import Results
from savae_dist.run.retry import Retry
from savae_dist.run.run import Run
from savae_dist.run.terms import check_terms
from savae_dist.run.training_data import TrainingData
from savae_dist.run.training_state import TrainingState
from savae_dist.run.validation import Validation
from savae_dist.sets import MOMENTS, merged, moments_by_shard, open_shards, stored_moments
from savae_dist.systems.fit import check_fit
from savae_dist.systems.phases import Phase
from savae_dist.training.augment import Augmentation
from savae_dist.training.batch_norm import batch_norms
from savae_dist.training.batches import BatchBuilder, BatchSplit
from savae_dist.training.capture import check_launch
from savae_dist.training.strategies import check_zero
from savae_dist.untrusted import shown


def open_run(config: RunConfig, process: Process, going_back: Retry | None = None) -> Run:
    """The run, ready to train; ValueError or an error of `errors` for what does not fit together.

    going_back: after it has diverged, to go on from the last good checkpoint and not from the newest.
    """
    data, state, folder = config.data, process.state, Path(config.output or ".")
    check_launch(config.compile, state.device, process.strategy)
    shared = process.strategy != "ddp"  # ZeRO and FSDP share gradients and optimiser state among the ranks
    check_strategy(process.strategy, config)
    shards, validation_shards = with_kept_moments(*open_shards(data), data, folder, process)
    fetch(config.resume, folder, process.peers, process.status.writes)
    found = newest_checkpoint(config, process.peers, going_back)
    stored = checkpoint.read_state(found).config if found is not None else {}
    config = auto.resolve(config, shards.spec.shape, stored)
    phases = config.system.phases()
    split = BatchSplit(data.batch_size, state.process_index, state.num_processes, config.accumulate)
    augment = Augmentation(data.augment, shards.spec, data.augment_phases) if data.augment else None
    attributes = attributes_of(shards)
    builder = BatchBuilder(split, state.device, lambda x: normalise(x, shards.spec), config.seed, augment, attributes)

    with explained(shards):
        check_sizes(config, shards.spec, state.device, split.ranks if shared else 1)
        networks, given = build_networks(config, shards.spec, split, state.device)
    check_terms(config, networks, shards.spec)
    start = starting_state(config, shards, networks, phases[0], split.ranks)
    training = resume(config, start, networks, found, going_back)

    proportions = Proportions(tuple(data.weights), data.labelled_fraction, data.balance)
    window, lanes = data.shuffle_window, training.lanes
    order = training_order(shards, proportions, seed=config.seed, lanes=lanes, window=window, batch_size=split.size)
    check_cache(data, shards, order, split.ranks)
    state.wait_for_everyone()  # rank 0 writes only after all ranks have looked for an older run
    reader = Reader(shards, order, budget_left(shards, data.bad_budget), data.cache, share=data.bad_budget)
    training_data = TrainingData(reader, builder, data.workers, pin=state.device.type == "cuda")
    validation = Validation(validation_shards, training_data, config.judge) if validation_shards else None
    keep_best = KeepBest.of(config, phases[-1], validation is not None).with_checkpoints(training, process.peers)
    begin_folder(config, folder, process, shards)
    if going_back is not None and process.status.writes:
        checkpoint.remove_after(folder / "checkpoints", training.total)
    total = sum(config.capped(phase.steps) for phase in phases)
    # Made last, because it must be closed: an error before this line leaves no progress bar open.
    writes, side = process.status.writes, process.status.side
    outside = OutsideTrackers(config.trackers, folder, identity.digest(config), identity.as_dict(config), side)
    tracker = Tracker(folder / "tensorboard", total, training.total, writes, side, outside)
    watch = Watch(networks, shards.spec.classes, training.warnings)
    hub = HubPush(config.hub, folder, side, writes)
    results = Results(config, process, folder, phases, given, training_data, validation, tracker, watch, hub, keep_best)
    return Run(config, process, folder, phases, networks, training_data, training, found, tracker, results)


def check_strategy(strategy: Strategy, config: RunConfig) -> None:
    """ConfigError for what ZeRO or FSDP cannot do."""
    if strategy == "fsdp" and config.ddp.bucket_mb != DdpConfig().bucket_mb:
        raise ConfigError("ddp.bucket_mb changes nothing under FSDP, which sums each weight by itself: leave it out")
    if strategy in ("zero1", "zero2"):
        check_zero(config.system.phases())


@contextmanager
def explained(shards: Shards) -> Iterator[None]:
    """To the error of a system that needs labels, why there are none."""
    try:
        yield
    except (ValueError, ConfigError) as error:
        why = unlabelled(shards.index)
        if shards.spec.classes or not why:
            raise
        raise ConfigError(f"{error}; {why}") from error


def begin_folder(config: RunConfig, folder: Path, process: Process, shards: Shards) -> None:
    """Write config.yaml, and the moments of what is trained on, on rank 0; SaveError on every rank if it fails."""
    error = None
    if process.status.writes:
        try:
            make_folder(folder)
            remove_drafts(folder)
            checkpoint.sweep(folder / "checkpoints")
            write_text(folder / "config.yaml", identity.to_yaml(config))
            if shards.part is not None and shards.spec.normalise == "dataset":
                moments = {"of": moments_of(shards, config.data), "mean": shards.spec.mean, "std": shards.spec.std}
                write_json(folder / MOMENTS, moments)
        except OSError as reason:
            error = checkpoint.not_saved(folder / "config.yaml", "the configuration", folder, reason)
    process.peers.raise_everywhere(error)


def with_kept_moments(
    shards: Shards, held: Shards | None, data: DataConfig, folder: Path, process: Process
) -> tuple[Shards, Shards | None]:
    """Both sets normalised by the moments of the samples that are trained on: what is held out must not be known.

    They are taken from the run's folder where it has them, else measured, each shard by one rank.
    """
    if held is None or shards.part is None or shards.spec.normalise != "dataset":
        return shards, held
    peers, of = process.peers, moments_of(shards, data)

    def kept() -> dict[str, Any]:
        stored = stored_moments(folder, of, shards.spec) if peers.rank == 0 else None
        return {"mean": stored and stored.mean, "std": stored and stored.std}

    known = peers.each(kept)[0]
    if known["mean"] is not None:
        spec = replace(shards.spec, **known)
    else:
        spec = merged(peers.each(lambda: moments_by_shard(shards, peers.rank, peers.ranks)), shards.spec)
    return shards.with_spec(spec), held.with_spec(spec)


def moments_of(shards: Shards, data: DataConfig) -> str:
    """The samples that moments are of."""
    return f"{shards.digest} {data.hold_out} {data.hold_out_by}"


def budget_left(shards: Shards, share: float) -> int:
    """How many samples may still turn out unusable: those that the index left out count too."""
    left_out, total = samples_left_out(shards.index)
    return max(0, int(share * total) - left_out)


def check_cache(data: DataConfig, shards: Shards, order: SampleOrder, ranks: int) -> None:
    """ConfigError if the cache of remote shards cannot hold two windows of each lane that this node reads."""
    lanes = order.lanes
    if lanes % ranks == 0 and not isinstance(order, Mixture):  # then each rank reads its own lanes only
        lanes = lanes // ranks * ranks_of_node(ranks)
    if data.cache == "none":
        shards.check_cache(2 * lanes * data.shuffle_window)


def build_networks(
    config: RunConfig, spec: DataSpec, split: BatchSplit, device: torch.device
) -> tuple[dict[str, Network], frozenset[str]]:
    """The system's networks, equal on every rank; initialised by the seed, but for those of `networks.initial`.

    Also the names of the latter.
    """
    torch.manual_seed(config.seed)
    sizes = config.networks
    together = sizes.norm == "sync_batch"
    if together and device.type == "cpu":
        raise ConfigError(
            "networks.norm=sync_batch needs GPUs; on CPUs networks.norm=group is the same on all processes"
        )
    norm = "batch" if together else sizes.norm
    assert sizes.pools != "auto"
    networks: dict[str, Network] = config.system.build(spec, sizes.width, norm, sizes.pools)
    check_fit(config.system, networks)
    initial = find_initial(sizes.initial, networks) if sizes.initial is not None else {}
    for name, folder in initial.items():
        checkpoint.load_networks(folder.parent, {folder.name: networks[name]})
    if together:  # in training only: saved and exported networks have ordinary batch norms
        networks = {name: nn.SyncBatchNorm.convert_sync_batchnorm(network) for name, network in networks.items()}
    if split.rows == 1 and any(batch_norms(network) for network in networks.values()):
        raise ConfigError("data.batch_size: batch norm needs two samples per process and step, or networks.norm=group")
    for network in networks.values():
        if sizes.checkpoint_activations:
            checkpoint_activations(network)
        # Images in channels-last order, in which convolutions are faster on CPUs and GPUs alike.
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return networks, frozenset(initial)


def starting_state(
    config: RunConfig, shards: Shards, networks: dict[str, Network], first: Phase, ranks: int
) -> TrainingState:
    """The state of a run that has not begun."""
    return TrainingState(
        first.name,
        step=0,
        total=0,
        origin=0,
        lanes=max(8, ranks) if config.data.lanes == "auto" else config.data.lanes,
        data=shards.digest,
        features={name: network.digest() for name, network in networks.items() if isinstance(network, FeatureNetwork)},
        config=identity.identity(config),
    )


def newest_checkpoint(config: RunConfig, peers: Peers, going_back: Retry | None) -> Path | None:
    """The newest checkpoint in the run's folder that verifies, the same on all ranks; for a retry the newest good one.

    None if there is none; ConfigError if the folder is used and `resume=never`.
    """
    folder = Path(config.output or ".")
    if config.resume == "never" and (folder / "config.yaml").exists():
        raise ConfigError(f"output={folder} is already used and resume=never; choose another output")
    newest = checkpoint.newest if going_back is None else checkpoint.newest_good
    return peers.choose(folder / "checkpoints", newest, checkpoint.problem)


def resume(
    config: RunConfig,
    start: TrainingState,
    networks: dict[str, Network],
    found: Path | None,
    going_back: Retry | None,
) -> TrainingState:
    """The state of the checkpoint that was found, its networks loaded; or `start`.

    For a retry the state says how often and at which rates. CheckpointError if it belongs to another run.
    """
    if found is None:
        return again(start, going_back)
    state = checkpoint.read_state(found)
    if config.data.lanes == "auto":  # `auto` depends on the number of processes, which may have changed
        start.lanes = state.lanes
    here, there = start.identity(), state.identity()
    # Keys on one side only are augmentations that the other has switched off, or keys that were stored by an
    # older version and are free to change by now. The digest of the data comes last: a key may say why it is another.
    for key in sorted((here | there).keys() - identity.FREE_KEYS, key=lambda key: (key == "data", key)):
        before, now = (side.get(key, identity.without_it(key)) for side in (there, here))
        if before != now:
            raise CheckpointError(
                f"{found} was trained with {key}={shown_value(before)}, not {shown_value(now)}: "
                "restore it, or choose another output"
            )
    steps = {phase.name: phase.steps for phase in config.system.phases()}
    if not state.step <= steps.get(state.phase, -1) or state.step > state.total:
        place = f"step {state.step:,} of phase {shown(state.phase)} and {state.total:,} in all"
        raise CheckpointError(f"{found / 'state.json'} stands at {place}, which this run does not have; restore it")
    checkpoint.load_all_networks(found / "networks", networks)
    return again(state, going_back)


def again(state: TrainingState, going_back: Retry | None) -> TrainingState:
    return state if going_back is None else replace(state, retries=going_back.number, lr_scale=going_back.lr_scale)
