"""One pass over a tar, once: where each sample lies, its crc and label. Training reads by offset and parses nothing."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from savae_dist.data.decode import IMAGES, BadSample, decode, npy_header
from savae_dist.errors import DataError

# A sample of `samples` is its image or npy member; one of `packed` is its row in a block.
SAMPLE = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc", "<u4"), ("label", "<i4")])
# A block is the values of one KEY.x.npy; `first` is the row of the shard that it starts with.
BLOCK = np.dtype([("offset", "<i8"), ("size", "<i8"), ("first", "<u4"), ("crc", "<u4")])
UNLABELLED, UNREADABLE = -1, -2  # labels; the second is never valid, so such a sample is bad
NAME = re.compile(r"((?:.*/|)[^./][^.]*)\.([^/]+)")  # WebDataset's rule: the key ends at the first dot


class Member(NamedTuple):
    key: str
    extension: str
    offset: int
    size: int


class Moments:
    """Mean and variance per channel, gathered in float64 by Chan's rule (no cancellation at large offsets)."""

    def __init__(self, channels: int) -> None:
        self.n, self.mean, self.m2 = 0, np.zeros(channels), np.zeros(channels)

    def add(self, x: np.ndarray) -> None:
        """x: windows [n, length] or [n, channels, length]; those with values that are not finite are left out."""
        x = x.reshape(len(x), len(self.mean), -1)
        x = x[np.isfinite(x).all((1, 2))].astype(np.float64)
        if not x.size:
            return
        mean = x.mean((0, 2))
        self.merge(x.shape[0] * x.shape[2], mean, ((x - mean[:, None]) ** 2).sum((0, 2)))

    def merge(self, n: int, mean: np.ndarray, m2: np.ndarray) -> None:
        """Add what other Moments have gathered."""
        if not n:
            return
        delta, total = mean - self.mean, self.n + n
        self.m2 = self.m2 + m2 + delta**2 * self.n * n / total
        self.mean = self.mean + delta * n / total
        self.n = total

    def std(self) -> np.ndarray:
        return np.sqrt(self.m2 / max(self.n, 1))


@dataclass
class Layout:
    """What all shards of a set share; the first sample that can be read decides."""

    layout: str | None = None
    dtype: np.dtype | None = None
    shape: tuple[int, ...] | None = None
    moments: Moments | None = None

    def settle(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        """Fix both, and start the moments anew."""
        self.dtype, self.shape = dtype, shape
        if dtype == np.float32:
            self.moments = Moments(1 if len(shape) == 1 else shape[0])


def scan_shard(path: Path, common: Layout) -> tuple[np.ndarray, np.ndarray, int]:
    """The tables of samples and of blocks (empty for the `samples` layout), and how many keys held no sample."""
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; make or copy it again")
    data = np.memmap(path, np.uint8, "r")
    if data[-tarfile.BLOCKSIZE :].any():  # tarfile takes the end of the file for the end of the tar
        raise DataError(f"{path} is no tar, or cut short: it does not end with an empty block; make or copy it again")
    samples: list[np.ndarray] = []
    blocks: list[tuple[int, int, int, int]] = []
    rows = skipped = 0
    for key, group in groupby(members(path, len(data)), key=lambda member: member.key):
        found = {member.extension: member for member in group}
        packed = "x.npy" in found
        if not packed and not any(extension in found for extension in (*IMAGES, "npy")):
            skipped += 1
            continue
        if common.layout is None:
            common.layout = "packed" if packed else "samples"
        if packed != (common.layout == "packed"):
            raise DataError(f"{path}: {key} mixes blocks and single samples in one set; pack them again")
        if packed:
            table, block = _block(path, data, found, common)
            blocks.append((*block[:2], rows, block[2]))
        else:
            table = _sample(data, found, common)
        samples.append(table)
        rows += len(table)
    return np.concatenate(samples or [np.empty(0, SAMPLE)]), np.array(blocks, BLOCK), skipped


def members(path: Path, size: int) -> Iterator[Member]:
    """The plain files of an uncompressed tar, in order; links, devices, sparse files and dot files are no samples."""
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                name = NAME.fullmatch(info.name)
                if name is None or not info.isreg() or info.issparse():
                    continue
                if info.offset_data + info.size > size:
                    raise DataError(f"{path} is cut short inside {info.name}; make or copy it again")
                yield Member(name[1], name[2].lower(), info.offset_data, info.size)
    except tarfile.TarError as error:
        raise DataError(f"{path} is not a whole, uncompressed tar ({error}); make or copy it again") from error


def _read(data: np.ndarray, member: Member) -> bytes:
    return data[member.offset : member.offset + member.size].tobytes()


def _label(data: np.ndarray, member: Member | None) -> int:
    if member is None:
        return UNLABELLED
    text = _read(data, member)[:32].strip()
    if re.fullmatch(rb"-?\d{1,9}", text) is None:
        return UNREADABLE
    return int(text) if int(text) >= UNLABELLED else UNREADABLE


def _sample(data: np.ndarray, found: dict[str, Member], common: Layout) -> np.ndarray:
    member = next(found[extension] for extension in (*IMAGES, "npy") if extension in found)
    content = _read(data, member)
    if common.shape is None or common.moments is not None:  # windows are decoded for the statistics
        try:
            x = decode(content, common.shape, common.dtype)
            if common.shape is None:
                common.settle(x.dtype, x.shape)
            if common.moments is not None:
                common.moments.add(x[None])
        except BadSample:
            pass  # it stays in the table: the reader counts it and draws another
    row = (member.offset, member.size, zlib.crc32(content), _label(data, found.get("cls")))
    return np.array([row], SAMPLE)


def _block(
    path: Path, data: np.ndarray, found: dict[str, Member], common: Layout
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Table of the block's samples; and the block's offset, size and crc."""
    member = found["x.npy"]
    where = f"{path}: {member.key}"
    try:
        dtype, shape, start = npy_header(data[member.offset : member.offset + member.size].data)
        y = _block_labels(data, found.get("y.npy"), shape[0] if shape else 0)
    except ValueError as error:
        raise DataError(f"{where} is not a readable block ({error}); pack it again") from error
    if common.shape is None and len(shape) > 1:
        common.settle(dtype, shape[1:])
    if dtype != common.dtype or shape[1:] != common.shape or dtype not in (np.uint8, np.float32):
        raise DataError(f"{where} holds {dtype} {shape[1:]}, not {common.dtype} {common.shape}; pack it again")
    offset, size = member.offset + start, member.size - start
    values = data[offset : offset + size]
    if common.moments is not None:
        common.moments.add(values.view(dtype).reshape(shape))
    table = np.empty(shape[0], SAMPLE)
    step = size // max(shape[0], 1)
    table["offset"] = offset + step * np.arange(shape[0])
    table["size"] = step
    table["crc"] = [zlib.crc32(row.data) for row in values.reshape(shape[0], step)]
    table["label"] = np.where((y < UNLABELLED) | (y > np.iinfo(np.int32).max), UNREADABLE, y)
    return table, (offset, size, zlib.crc32(values.data))


def _block_labels(data: np.ndarray, member: Member | None, rows: int) -> np.ndarray:
    if member is None:
        return np.full(rows, UNLABELLED)
    content = _read(data, member)
    dtype, shape, start = npy_header(content)
    if dtype.kind not in "iu" or shape != (rows,):
        raise ValueError(f"y.npy holds {dtype.name} {shape}, not {rows} integers")
    return np.frombuffer(content, dtype, offset=start).astype(np.int64)
