"""A source of made-up windows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np

from savae_dist.data.packing.packer import Options
from savae_dist.data.packing.sources import Item, Sample, Source

OPTIONS = Options(shard_size=50, block=16, seed=2)


def read(delay: float, part: int) -> Iterator[Item]:
    """Part k of made-up windows: 20 + k of them, one of which is labelled by name."""
    rng = np.random.default_rng(part)
    time.sleep(delay)
    for i in range(20 + part):
        yield Sample(rng.standard_normal(24).astype(np.float32), "ab"[i % 2] if i % 3 else None, {"part": part, "i": i})


def made_up(delay: float = 0.0, parts: int = 12, identity: str = "1") -> Source:
    splits = tuple("train" if part % 3 else "validation" for part in range(parts))
    return Source(partial(read, delay), splits, identity)
