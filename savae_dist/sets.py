"""The sets of samples that a configuration names, for training and for validation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from savae_dist.config import pictures
from savae_dist.config.effect import no_effect
from savae_dist.config.schema import DataConfig
from savae_dist.config.urls import shown_value
from savae_dist.data import Reader, Request, Shards, Store, demo_shards, hold_out, loader, sequential
from savae_dist.data.index.choice import Choice
from savae_dist.data.index.losses import check_losses
from savae_dist.data.index.pictures import Wanted, check_one_size, with_pictures
from savae_dist.data.index.scan import Moments
from savae_dist.errors import CheckpointError, DataError
from savae_dist.preprocess import DataSpec
from savae_dist.untrusted import check, listed, number, read_object, record, text

ROWS = 4096  # windows that are read at once
MOMENTS = "moments.json"  # in a run's folder: mean and deviation of what it trains on
AGAIN = "delete it: it is made again"


def open_shards(data: DataConfig) -> tuple[Shards, Shards | None]:
    """The training set, and the validation set normalised like it, or the part of the first that is held out.

    Without data.train the embedded digits. With data.normalise=dataset the moments are those of the whole first set.
    """
    train, validation = data.train, data.validation
    choice = Choice(data.x, data.y, data.attributes)
    if train is None:
        for key, value in choice.chosen.items():
            raise no_effect(f"data.{key}", value, "on the embedded digits", "name tars in data.train")
        digits = demo_shards()
        train, validation = str(digits[0]), validation or (None if data.hold_out else str(digits[1]))
    store = Store(Path(data.cache_dir) if data.cache_dir else None, data.cache_bytes, data.outage_limit)
    shards = Shards.open(train, store, choice)
    shards.check_classes()
    check_losses(shown_value(train), shards.index, data.bad_budget)
    if shards.spec.kind == "signal":
        shards = shards.with_normalise(data.normalise)
    elif data.normalise != DataConfig.normalise:
        raise no_effect("data.normalise", data.normalise, "on images, which are divided by 255")
    wanted = Wanted(pictures.size_of(data.size), data.resize, data.mode, pictures.range_of(data.range))
    shards = with_pictures(shards, wanted)
    check_one_size(shards, data.bad_budget)
    if data.hold_out:
        return hold_out(shards, data.hold_out, data.hold_out_by)
    if not validation:
        return shards, None
    alike = replace(choice, known=shards.spec.class_names)
    measured = Shards.open(validation, store, alike).with_spec(shards.spec)
    check_one_size(measured, data.bad_budget)
    return shards, measured


def moments_by_shard(shards: Shards, rank: int, ranks: int) -> dict[str, list[Any]]:
    """Shard -> [values per channel, means, sums of squared differences] of the samples that count.

    Each shard is read by one rank, so that merged in their order they do not depend on the number of ranks.
    """
    members, starts = shards.members(), np.cumsum(shards.members()) - shards.members()
    pieces = [
        (shard, start, min(ROWS, int(starts[shard] + members[shard]) - start))
        for shard in range(rank, len(members), ranks)
        for start in range(int(starts[shard]), int(starts[shard] + members[shard]), ROWS)
    ]
    found: dict[int, Moments] = defaultdict(lambda: Moments(shards.spec.shape[0]))
    reader = Reader(shards, sequential(shards), bad_budget=shards.size)
    requests = (Request(start, size, range(size)) for _, start, size in pieces)
    for (shard, *_), raw in zip(pieces, loader(reader, requests, workers=0, pin=False), strict=True):
        found[shard].add(raw.x.numpy())  # without what cannot be read
    return {str(shard): [one.n, one.mean.tolist(), one.m2.tolist()] for shard, one in found.items()}


def merged(parts: Iterable[Mapping[str, Sequence[Any]]], spec: DataSpec) -> DataSpec:
    """The spec with the moments of all shards, those of `moments_by_shard` of each rank."""
    total = Moments(spec.shape[0])
    for _, (n, mean, m2) in sorted({int(shard): of for part in parts for shard, of in part.items()}.items()):
        total.merge(n, np.array(mean), np.array(m2))
    if not total.n:
        raise DataError("data.normalise=dataset: no sample that is trained on can be read; see tools/index_shards.py")
    return replace(spec, mean=tuple(total.mean.tolist()), std=tuple(total.std().tolist()))


def stored_moments(folder: Path, of: str, spec: DataSpec) -> DataSpec | None:
    """The spec with the moments that a run's folder holds; None if it holds none of this set."""
    path, channels = folder / MOMENTS, spec.shape[0]
    if not path.is_file():
        return None
    values = read_object(path, CheckpointError, AGAIN)
    each = listed(number(), channels, channels)
    check(values, record({"of": text(), "mean": each, "std": each}), path, CheckpointError, AGAIN)
    return replace(spec, mean=tuple(values["mean"]), std=tuple(values["std"])) if values["of"] == of else None
