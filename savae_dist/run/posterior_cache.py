"""`posterior_cache`: whether a phase's frozen encoder encodes every training sample once, and that done."""

from __future__ import annotations

from collections.abc import Mapping

from savae_dist.config.schema import RunConfig
from savae_dist.data import Reader, Request, loader, sequential
from savae_dist.networks import Encoder, Network
from savae_dist.precision import autocast
from savae_dist.run.reporting.units import size
from savae_dist.run.training_data import TrainingData
from savae_dist.systems.phases import Phase
from savae_dist.training.batches import Together
from savae_dist.training.posteriors import Posteriors, encode

FEWEST = 4  # times that a phase must read each sample for one more reading to pay
BLOCK = 16  # training batches that are read at once


def kept(
    phase: Phase, config: RunConfig, data: TrainingData, networks: Mapping[str, Network], left: int, together: Together
) -> Posteriors | None:
    """The posteriors of all training samples for the `left` iterations of a phase; None where none are kept."""
    assert phase.posteriors is not None
    if why_not(phase, config, data, networks, left):
        return None
    split, order = data.builder.split, sequential(data.shards)
    # Its own account of what is bad: here that is only left out, and later not looked up.
    reader = Reader.sharing(data.reader, order, bad_budget=data.shards.size)
    rows = BLOCK * split.rows
    starts = range(split.rank * rows, data.shards.size, split.ranks * rows)
    requests = (Request(start, n := min(rows, data.shards.size - start), range(n)) for start in starts)
    encoder = networks[phase.posteriors]
    assert isinstance(encoder, Encoder)
    arithmetic = autocast(config.precision, data.builder.device)
    raw = loader(reader, requests, 0, False)
    return encode(encoder, raw, data.builder, int(data.shards.counts.sum()), arithmetic, together)


def why_not(phase: Phase, config: RunConfig, data: TrainingData, networks: Mapping[str, Network], left: int) -> str:
    """Why none are kept, empty if they are; alike on all ranks."""
    read = left * phase.batches_per_iteration * data.builder.split.size
    needed = bytes_needed(phase, data, networks)
    if data.builder.during(phase.name).augment is not None:
        return "samples are augmented"
    if config.compile != "none":
        return f"compile={config.compile} rounds otherwise"
    if needed > config.posterior_cache:
        return f"they need {size(needed)} and posterior_cache is {size(config.posterior_cache)}"
    if read < FEWEST * data.shards.size:
        return f"each sample is read {read / data.shards.size:.2g} times"
    return ""


def bytes_needed(phase: Phase, data: TrainingData, networks: Mapping[str, Network]) -> int:
    assert phase.posteriors is not None
    encoder = networks[phase.posteriors]
    assert isinstance(encoder, Encoder)
    return int(data.shards.counts.sum()) * (2 * encoder.latent_dim + 1) * next(encoder.parameters()).element_size()


def report(phase: Phase, config: RunConfig, data: TrainingData, networks: Mapping[str, Network], left: int) -> str:
    """A line for `--check`."""
    reason = why_not(phase, config, data, networks, left)
    told = f"not kept: {reason}" if reason else f"kept: {size(bytes_needed(phase, data, networks))} in each process"
    return f"posteriors  of {phase.posteriors} in {phase.name}: {told}"
