"""Groups and recordings that stand in the training set and in the validation set: what is measured is then memory."""

from __future__ import annotations

import numpy as np

from savae_dist.data.index.recordings import GROUP, NONE, RECORDING, recordings, told_names
from savae_dist.data.index.shards import Shards
from savae_dist.errors import DataError

SHOWN = 8  # names in a message


def on_both_sides(training: Shards, validation: Shards) -> str:
    """`groups 12, 14 stand on both sides: this measures memory`, or "" where no sample's neighbour is in both sets.

    Only of sets whose samples are named by the packer, and only of local ones: a remote set would be read as a whole.
    """
    if training.remote or validation.remote or not (training.packed and validation.packed):
        return ""
    try:
        found = {key: shared_names(training, validation, key) for key in (GROUP, RECORDING)}
    except DataError as error:
        return f"whether a group stands on both sides is not known: {error}"
    for key, names in found.items():
        if names:
            more = f" and {len(names) - SHOWN:,} more" * (len(names) > SHOWN)
            kind, stand = (f"{key}s", "stand") if len(names) > 1 else (key, "stands")
            return f"{kind} {', '.join(names[:SHOWN])}{more} {stand} on both sides: this measures memory"
    return ""


def shared_names(training: Shards, validation: Shards, key: str) -> list[str]:
    """The names of this kind, `group` or `recording`, that samples of both sets have, in their order."""
    both = np.intersect1d(_hashes(training, key), _hashes(validation, key)).tolist()
    if not both:
        return []
    told = told_names(validation, key)
    return sorted(told.get(one, f"number {one}") for one in both)


def _hashes(shards: Shards, key: str) -> np.ndarray:
    """Those of the samples that count."""
    column = recordings(shards, key)
    if not len(column):
        return np.empty(0, np.uint64)
    found = []
    for shard, (start, count) in enumerate(zip(shards.starts.tolist(), shards.counts.tolist(), strict=True)):
        names = column.rows(start + np.arange(count))
        found.append(np.unique(names if shards.part is None else names[shards.part.holds(shard)]))
    names = np.unique(np.concatenate(found))
    return names[names != NONE]
