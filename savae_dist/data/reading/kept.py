"""A small packed set in memory, block by block as it is first read; the workers of a loader share one copy."""

from __future__ import annotations

import mmap
import os
import zlib

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from savae_dist.data.index.shards import Shards
from savae_dist.errors import DataError

MAX_KEPT = 256 << 20  # bytes of the largest set that is kept
UNREAD, KEPT, DAMAGED = 0, 1, 2


class KeptBlocks:
    """The values of blocks whose crc fits. The memory is anonymous: /dev/shm, often small, is not used."""

    def __init__(self, blocks: np.ndarray, row_bytes: int) -> None:
        self.blocks = blocks
        self._base = np.cumsum(blocks["size"]) - blocks["size"]
        self._bytes = np.frombuffer(mmap.mmap(-1, int(blocks["size"].sum())), np.uint8)
        self._rows = sliding_window_view(self._bytes, row_bytes)  # one view for each byte at which a row may start
        self.state = np.frombuffer(mmap.mmap(-1, len(blocks)), np.uint8)  # writable, and shared with forked workers

    def put(self, block: int, content: bytes) -> None:
        """What was read of a block. Several workers may put the same: they write equal bytes, since the crc fits."""
        _, size, _, crc = self.blocks[block].tolist()
        if len(content) == size and zlib.crc32(content) == crc:
            start = int(self._base[block])
            self._bytes[start : start + size] = np.frombuffer(content, np.uint8)
            self.state[block] = KEPT
        else:
            self.state[block] = DAMAGED

    def rows(self, blocks: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """uint8 [n, bytes of a row]: the rows at `offsets` of their shards, in blocks that are kept."""
        return self._rows[self._base[blocks] + offsets - self.blocks["offset"][blocks]]


class Watch:
    """Tells of shards that are written while their samples are kept: a run that is continued would read others.

    Each call looks at one shard, so that all are seen in so many batches.
    """

    def __init__(self, shards: Shards, began: float) -> None:
        self.shards, self.next = shards, 0
        self._known = np.full(len(shards.counts), began)  # up to when each is known to be as its index says

    def look(self) -> None:
        """DataError if the next shard was changed since the start."""
        shard, self.next = self.next, (self.next + 1) % len(self._known)
        path, entry = self.shards.path(shard), self.shards.index["shards"][shard]
        try:
            now = path.stat()
        except FileNotFoundError:
            return  # moved away: all that is needed may be kept; if it is not, the reader says so
        if now.st_ctime > self._known[shard]:
            if now.st_size != entry["bytes"] or zlib.crc32(path.read_bytes()) != entry["crc32"]:
                raise overwritten(self.shards, shard, now)
            self._known[shard] = now.st_ctime


def overwritten(shards: Shards, shard: int, now: os.stat_result) -> DataError:
    """The error for a shard that was written after the start."""
    before = shards.index["shards"][shard]["bytes"]
    changed = f"from {before:,} to {now.st_size:,} bytes" if now.st_size != before else "its size is as before"
    return DataError(
        f"shard {shards.path(shard)} was overwritten while it was read ({changed}): bring back the old one and run it "
        "again, or run tools/index_shards.py and choose another output"
    )
