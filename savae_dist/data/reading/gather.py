"""Samples by shard and row, each read at its offset and checked against its crc: what was written since is never used.

The files are read and not mapped. A mapped file shows what somebody else writes into it, zeros at first, and where it
is cut short the program is killed.
"""

from __future__ import annotations

import os
import resource
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from savae_dist.data.formats.npy import as_samples, decode, decode_any, npy_head
from savae_dist.data.index.pictures import served
from savae_dist.data.index.reasons import shown
from savae_dist.data.index.shards import Shards
from savae_dist.data.index.tables import unreadable
from savae_dist.data.reading.kept import KEPT, MAX_KEPT, UNREAD, KeptBlocks, Watch, overwritten
from savae_dist.errors import BadSample, DataError

MAX_OPEN = 512  # shards that a reader keeps open, if the limit of descriptors allows it
MAX_TABLES = 1024  # shards of which it keeps the crcs of all samples: 32 KiB for 8,192 of them


def most_open() -> int:
    """How many shards a reader keeps open: at most a quarter of the descriptors that this process may have.

    There may be two readers, of training and validation data, and half is for all else.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MAX_OPEN if limit == resource.RLIM_INFINITY else max(4, min(MAX_OPEN, limit // 4))


class Fetcher:
    """Reads samples of `shards`; keeps the shards that were read last open.

    keep: whether the blocks of a packed set of at most `MAX_KEPT` bytes stay in memory once they are read.
    """

    def __init__(self, shards: Shards, keep: bool = True) -> None:
        self.shards, self.keep = shards, keep
        self.shape, self.dtype = served(shards)
        self._stored, self._pixels = shards.stored_shape, np.dtype(shards.stored_dtype)
        self._row_bytes = int(np.prod(self._stored)) * self._pixels.itemsize
        self._header = npy_head(self._pixels, self._stored)  # parsing one costs 20 us
        self._most, self._began = most_open(), time.time()
        self._files: dict[int, BinaryIO] = {}
        self._tables: dict[int, np.ndarray] = {}  # for packed shards only the crcs are kept
        if shards.packed:
            self._blocks, self._first = _all_blocks(shards)
            self._asked = np.zeros(len(self._blocks), bool)  # the system was asked to read it as a whole
        self._kept, self._watch = self._keeping(), Watch(shards, self._began)

    def _keeping(self) -> KeptBlocks | None:
        if not (self.keep and self.shards.packed and self._blocks["size"].sum() <= MAX_KEPT):
            return None
        return KeptBlocks(self._blocks, self._row_bytes)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_tables": {}, "_kept": None}  # for a worker that is spawned, not forked

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._kept = self._keeping()

    def fetch(self, shards: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        """int64 [n] shards and rows to samples [n, *stored shape], and the reason for each that is bad, by index.

        DataError where a shard cannot be read, or was changed after this reader was made.
        """
        x, faults = (self._packed if self.shards.packed else self._samples)(shards, rows)
        if self.dtype == np.float32 and not np.isfinite(x).all():
            for index in np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(1)).tolist():
                faults.setdefault(index, "finite")
        return x, faults

    def _packed(self, shards: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        ids = self.shards.starts[shards] + rows
        blocks = np.searchsorted(self._first, ids, side="right") - 1
        offsets = self._blocks["offset"][blocks] + (ids - self._first[blocks]) * self._row_bytes
        if self._kept is None:
            flat = np.empty((len(rows), self._row_bytes), np.uint8)
            faults = self._read_rows(flat, np.arange(len(rows)), shards, rows, blocks, offsets)
        else:
            flat, faults = self._kept_rows(self._kept, shards, rows, blocks, offsets)
        x = flat.view(self._pixels).reshape(len(rows), *self._stored)
        pictures = self.shards.spec.pictures
        return x if pictures is None else as_samples(x, pictures), faults

    def _kept_rows(
        self, kept: KeptBlocks, shards: np.ndarray, rows: np.ndarray, blocks: np.ndarray, offsets: np.ndarray
    ) -> tuple[np.ndarray, dict[int, str]]:
        """Rows out of memory, uint8 [n, bytes]; those of damaged blocks out of their files."""
        unread = np.flatnonzero(kept.state[blocks] == UNREAD)
        for shard, block in sorted(set(zip(shards[unread].tolist(), blocks[unread].tolist(), strict=True))):
            offset, size, _, _ = kept.blocks[block].tolist()
            kept.put(block, self._read(shard, self._open(shard), size, offset))
        if not self.shards.remote:
            self._watch.look()
        flat = kept.rows(blocks, offsets)
        damaged = np.flatnonzero(kept.state[blocks] != KEPT)
        return flat, self._read_rows(flat, damaged, shards, rows, blocks, offsets) if len(damaged) else {}

    def _read_rows(
        self,
        flat: np.ndarray,
        wanted: np.ndarray,
        shards: np.ndarray,
        rows: np.ndarray,
        blocks: np.ndarray,
        offsets: np.ndarray,
    ) -> dict[int, str]:
        """Read the `wanted` rows out of their files into `flat`, uint8 [n, bytes]; the reasons of the bad ones."""
        size, faults, bytes_of = self._row_bytes, {}, flat.reshape(-1).data
        for shard, part in _runs(shards[wanted]):
            here = wanted[part]
            file, crcs = self._open(shard), self._table(shard).data
            self._read_ahead(file, blocks[here])
            for index, row, offset in zip(here.tolist(), rows[here].tolist(), offsets[here].tolist(), strict=True):
                target = bytes_of[index * size : (index + 1) * size]
                count = self._read_into(shard, file, target, offset)
                # A row that was cut off is bad even if its crc fits by chance: the rest of the target is not its own.
                if count < size or zlib.crc32(target) != crcs[row]:
                    faults[index] = self._damage(shard, count < size)
        return faults

    def _samples(self, shards: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        x = np.zeros((len(rows), *self.shape), self.dtype)
        faults: dict[int, str] = {}
        pictures = self.shards.spec.pictures
        for shard, here in _runs(shards):
            file, table = self._open(shard), self._table(shard)
            length = os.fstat(file.fileno()).st_size
            for index, (offset, size, crc, _) in zip(here.tolist(), table[rows[here]].tolist(), strict=True):
                content = self._read(shard, file, min(size, length), offset)  # no more memory than there are bytes
                try:
                    if zlib.crc32(content) != crc:
                        raise BadSample(self._damage(shard, len(content) < size))
                    if pictures is not None:
                        x[index] = decode_any(content, pictures)
                    elif content.startswith(self._header) and size == len(self._header) + self._row_bytes:
                        x[index] = np.frombuffer(content, self.dtype, offset=len(self._header)).reshape(self.shape)
                    else:
                        x[index] = decode(content, self.shape, self.dtype)
                except BadSample as error:
                    faults[index] = str(error)
        return x, faults

    def _read(self, shard: int, file: BinaryIO, size: int, offset: int) -> bytes:
        try:
            return os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise self._unreadable(shard, error) from error

    def _read_into(self, shard: int, file: BinaryIO, target: memoryview, offset: int) -> int:
        try:
            return os.preadv(file.fileno(), (target,), offset)
        except OSError as error:
            raise self._unreadable(shard, error) from error

    def _read_ahead(self, file: BinaryIO, blocks: np.ndarray) -> None:
        """Ask for each block as a whole, once while its shard is open: else a disk is asked for each of its rows."""
        for block in set(blocks[~self._asked[blocks]].tolist()):
            self._asked[block] = True
            if sys.platform == "linux":
                offset, size, _, _ = self._blocks[block].tolist()
                os.posix_fadvise(file.fileno(), offset, size, os.POSIX_FADV_WILLNEED)

    def _damage(self, shard: int, short: bool) -> str:
        """The reason of a sample whose crc is wrong; DataError where its shard was written after the start."""
        # A remote shard's copy is always written after the start, and was checked as a whole when it was fetched.
        if not self.shards.remote:
            path = self.shards.path(shard)
            now = path.stat() if path.exists() else os.fstat(self._open(shard).fileno())
            if now.st_ctime > self._began:
                raise overwritten(self.shards, shard, now)
        return "truncated" if short else "crc"

    def key(self, shard: int, row: int) -> str:
        """The key of a sample, for messages: read from the tar header that stands before its data."""
        if self.shards.packed:
            block = np.searchsorted(self._first, self.shards.starts[shard] + row, side="right") - 1
            # The values start behind the npy header, which is shorter than a tar block.
            start = (int(self._blocks["offset"][block]) - 1) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            suffix = f"[{self.shards.starts[shard] + row - self._first[block]}]"
        else:
            start, suffix = int(self._table(shard)["offset"][row]), ""
        header = self._read(shard, self._open(shard), tarfile.BLOCKSIZE, max(0, start - tarfile.BLOCKSIZE))
        try:
            name = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name
        except tarfile.HeaderError:
            return f"row {row}"
        folder, _, base = name.rpartition("/")
        return shown(f"{folder}/{base.split('.')[0]}".lstrip("/")) + suffix

    def _table(self, shard: int) -> np.ndarray:
        """The table of a shard's samples; of a packed one the crcs, uint32 [count]."""
        table = self._tables.get(shard)
        if table is None:
            if len(self._tables) >= MAX_TABLES:
                del self._tables[next(iter(self._tables))]
            table = self.shards.samples(shard)
            self._tables[shard] = table = table["crc"].copy() if self.shards.packed else table
        return table

    def _open(self, shard: int) -> BinaryIO:
        """The open shard, now the one that was used last."""
        file = self._files.pop(shard, None)
        if file is None:
            while len(self._files) >= self._most:
                self._close(next(iter(self._files)))
            if self.shards.remote:  # close shards that the cache has removed: an open file keeps its disk space
                for known in [known for known in self._files if not self.shards.path(known).exists()]:
                    self._close(known)
            try:
                file = self.shards.open_shard(shard)
            except OSError as error:
                raise self._unreadable(shard, error) from error
        self._files[shard] = file
        return file

    def _close(self, shard: int) -> None:
        self._files.pop(shard).close()
        if self.shards.packed:
            start = self.shards.starts[shard]
            first, last = np.searchsorted(self._first, (start, start + self.shards.counts[shard]))
            self._asked[first:last] = False

    def _unreadable(self, shard: int, error: OSError) -> DataError:
        return unreadable(f"shard {self.shards.path(shard)}", error, "bring it back, or make it again")


def _all_blocks(shards: Shards) -> tuple[np.ndarray, np.ndarray]:
    """The blocks of all shards, and the id that each starts with: 32 bytes for some 256 samples."""
    tables = [shards.blocks(shard) for shard in range(len(shards.counts)) if shards.counts[shard]]
    starts = np.repeat(shards.starts[shards.counts > 0], [len(table) for table in tables])
    blocks = np.concatenate(tables)
    return blocks, starts + blocks["first"]


def _runs(shards: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each shard and the indices of its samples."""
    order = np.argsort(shards, kind="stable")
    ends = np.flatnonzero(np.diff(shards[order], append=-1)) + 1
    start = 0
    for end in ends.tolist():
        yield int(shards[order[start]]), order[start:end]
        start = end
