"""Samples by shard and row, straight from the mapped tars: a row of a block is an offset, so a batch is one gather."""

from __future__ import annotations

import mmap
import os
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from savae_dist.data.formats.npy import decode, npy_head
from savae_dist.data.index.reasons import shown
from savae_dist.data.index.shards import Shards
from savae_dist.errors import BadSample, DataError

MAX_OPEN = 256  # mapped shards per process; each takes up to three of the (by default) 1,024 descriptors


class Fetcher:
    """Reads samples of `shards`; keeps the last `MAX_OPEN` of them mapped."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self.shape, self.dtype = shards.stored_shape, np.dtype(shards.stored_dtype)
        self._row_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self._header = npy_head(self.dtype, self.shape)  # parsing one costs 20 us
        self._mapped: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._tables: dict[int, np.ndarray] = {}  # tables of shards that have bad samples
        if shards.packed:
            self._blocks, self._first = _all_blocks(shards)
            self._verified = np.zeros(len(self._blocks), bool)  # its crc was checked in this process
            self._broken = np.zeros(len(self._blocks), bool)

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_mapped": {},
            "_tables": {},
        }  # open maps cannot be pickled; a spawned worker maps the shards itself

    def fetch(self, shards: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        """int64 [n] shards and rows to samples [n, *stored shape], and the reason for each that is bad, by index."""
        x, faults = (self._packed if self.shards.packed else self._samples)(shards, rows)
        if self.dtype == np.float32 and not np.isfinite(x).all():
            for index in np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(1)).tolist():
                faults.setdefault(index, "finite")
        return x, faults

    def _packed(self, shards: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        ids = self.shards.starts[shards] + rows
        blocks = np.searchsorted(self._first, ids, side="right") - 1
        self._verify(shards, blocks)
        offsets = self._blocks["offset"][blocks] + (ids - self._first[blocks]) * self._row_bytes
        order = np.argsort(shards, kind="stable")
        flat = np.empty((len(rows), self._row_bytes), np.uint8)
        faults: dict[int, str] = {}
        for shard, here in _runs(shards, order):
            at_every_byte = self._open(shard)[1]
            beyond = offsets[here] >= len(at_every_byte)
            if beyond.any():  # the shard was cut after it was indexed
                faults |= dict.fromkeys(here[beyond].tolist(), "truncated")
                flat[here[beyond]] = 0
                here = here[~beyond]
            flat[here] = at_every_byte[offsets[here]]
        for i in np.flatnonzero(self._broken[blocks]).tolist():  # the block's crc says that, the row's says where
            if i not in faults and zlib.crc32(flat[i].data) != self._table(int(shards[i]))["crc"][rows[i]]:
                faults[i] = "crc"
        return flat.view(self.dtype).reshape(len(rows), *self.shape), faults

    def _verify(self, shards: np.ndarray, blocks: np.ndarray) -> None:
        new = ~self._verified[blocks]
        for shard, block in set(zip(shards[new].tolist(), blocks[new].tolist(), strict=True)):
            offset, size, _, crc = self._blocks[block].tolist()
            self._broken[block] = zlib.crc32(self._open(shard)[0][offset : offset + size].data) != crc
            self._verified[block] = True

    def _samples(self, shards: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        x = np.zeros((len(rows), *self.shape), self.dtype)
        faults: dict[int, str] = {}
        for shard, here in _runs(shards, np.argsort(shards, kind="stable")):
            data, table = self._open(shard)
            for index, (offset, size, crc, _) in zip(here.tolist(), table[rows[here]].tolist(), strict=True):
                content = data[offset : offset + size].tobytes()
                try:
                    if zlib.crc32(content) != crc:
                        raise BadSample("crc" if len(content) == size else "truncated")
                    if content.startswith(self._header) and size == len(self._header) + self._row_bytes:
                        x[index] = np.frombuffer(content, self.dtype, offset=len(self._header)).reshape(self.shape)
                    else:
                        x[index] = decode(content, self.shape, self.dtype)
                except BadSample as error:
                    faults[index] = str(error)
        return x, faults

    def key(self, shard: int, row: int) -> str:
        """The key of a sample, for messages: read from the tar header that stands before its data."""
        start, suffix = int(self._table(shard)["offset"][row]), ""
        if self.shards.packed:
            block = np.searchsorted(self._first, self.shards.starts[shard] + row, side="right") - 1
            # The values start behind the npy header, which is shorter than a tar block.
            start = (int(self._blocks["offset"][block]) - 1) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            suffix = f"[{self.shards.starts[shard] + row - self._first[block]}]"
        header = self._open(shard)[0][start - tarfile.BLOCKSIZE : start].tobytes()
        try:
            name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except tarfile.HeaderError:
            return f"row {row}"
        folder, _, base = name.rpartition("/")
        return shown(f"{folder}/{base.split('.')[0]}".lstrip("/")) + suffix

    def _table(self, shard: int) -> np.ndarray:
        """The table of a shard's samples, kept: where one is bad, its neighbours may be."""
        if shard not in self._tables:
            if len(self._tables) >= MAX_OPEN:
                self._tables.clear()
            self._tables[shard] = self.shards.samples(shard)
        return self._tables[shard]

    def _open(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """The shard's bytes, and: packed, a view in which a row starts at every byte; else the table of its samples."""
        mapped = self._mapped.get(shard)
        if mapped is None:
            if len(self._mapped) >= MAX_OPEN:
                del self._mapped[next(iter(self._mapped))]
            if self.shards.remote:  # unmap shards that the cache has removed: a mapped file keeps its disk space
                for known in [known for known in self._mapped if not self.shards.path(known).exists()]:
                    del self._mapped[known]
            try:
                with self.shards.open_shard(shard) as file:
                    data = _mapped(file)
            except (OSError, ValueError) as error:
                path = self.shards.path(shard)
                raise DataError(f"shard {path} cannot be read ({error}); bring it back, or make it again") from error
            packed = self.shards.packed
            mapped = data, _at_every_byte(data, self._row_bytes) if packed else self.shards.samples(shard)
            self._mapped[shard] = mapped
        return mapped


def _mapped(file: BinaryIO) -> np.ndarray:
    """The bytes of a file as long as it is now: what lies beyond does not exist, and is not touched."""
    size = os.fstat(file.fileno()).st_size
    return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b"", np.uint8)


def _at_every_byte(data: np.ndarray, size: int) -> np.ndarray:
    """A view in which a row of `size` bytes starts at every byte."""
    return sliding_window_view(data, size) if len(data) >= size else np.empty((0, size), np.uint8)


def _all_blocks(shards: Shards) -> tuple[np.ndarray, np.ndarray]:
    """The blocks of all shards, and the id that each starts with: 32 bytes for some 256 samples."""
    tables = [shards.blocks(shard) for shard in range(len(shards.counts)) if shards.counts[shard]]
    starts = np.repeat(shards.starts[shards.counts > 0], [len(table) for table in tables])
    blocks = np.concatenate(tables)
    return blocks, starts + blocks["first"]


def _runs(shards: np.ndarray, order: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each shard and the indices of its samples; `order` sorts `shards`."""
    ends = np.flatnonzero(np.diff(shards[order], append=-1)) + 1
    start = 0
    for end in ends.tolist():
        yield int(shards[order[start]]), order[start:end]
        start = end
