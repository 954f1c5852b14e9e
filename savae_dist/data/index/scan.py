"""One pass over a tar: where each sample lies, its crc and label, and what cannot be used. Training parses no tar."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from savae_dist.data.formats.axes import channels_first, form
from savae_dist.data.formats.npy import NPY_HEAD, NPY_MAGIC, decode, npy_claims, npy_header, storable
from savae_dist.data.formats.tar import Tar, ends, open_tar
from savae_dist.data.index.attributes import Attributes, Values
from savae_dist.data.index.choice import Choice
from savae_dist.data.index.groups import Group, gather
from savae_dist.data.index.labels import MAX_CLASSES, NAMED, UNREADABLE, Labels, Member
from savae_dist.data.index.reasons import Reasons, Tally, shown
from savae_dist.data.index.seen import Kinds, Seen
from savae_dist.errors import BadSample, DataError

# A sample of `samples` is its image or npy member; one of `packed` is its row in a block.
SAMPLE = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc", "<u4"), ("label", "<i4")])
# A block is the values of one KEY.x.npy; `first` is the row of the shard that it starts with.
BLOCK = np.dtype([("offset", "<i8"), ("size", "<i8"), ("first", "<u4"), ("crc", "<u4")])
# The form of one picture as its header says it, upright; zeros where it cannot be told.
FORM = np.dtype([("height", "<u4"), ("width", "<u4"), ("channels", "u1"), ("bits", "u1")])
DEEP = 64  # pictures of 16 bits in a shard that are looked at, for the highest value that they use
# The largest member that holds one sample, and the largest block and its rows: holes of a sparse file cost nothing.
MAX_BYTES, MAX_BLOCK, MAX_ROWS = 1 << 28, 1 << 30, 1 << 22
PIECE = 1 << 24  # values whose moments are taken at once


class Scan(NamedTuple):
    """samples, blocks: the tables (no blocks in the `samples` layout). dropped: what has no row in them; bad: which
    rows are known to be of no use. whole: False where the tar does not end as it should. named: the names among the
    labels, in the order of their numbers from `labels.NAMED` down, with the samples that have them.
    attributes: their values. members, folders: what the tar holds, used or not. told: what was done to the samples.
    forms: of each sample where they are pictures, else empty. top: the highest value in those of 16 bits, 0: none."""

    samples: np.ndarray
    blocks: np.ndarray
    forms: np.ndarray
    top: int
    dropped: Reasons
    bad: Reasons
    whole: bool
    named: Reasons
    attributes: Attributes
    members: Kinds
    folders: list[str]
    told: list[str]


class Moments:
    """Mean and variance per channel, gathered in float64 by Chan's rule (no cancellation at large offsets)."""

    def __init__(self, channels: int) -> None:
        self.n, self.mean, self.m2 = 0, np.zeros(channels), np.zeros(channels)

    def add(self, x: np.ndarray) -> None:
        """x: windows [n, length] or [n, channels, length]; those with values that are not finite are left out."""
        x = x.reshape(len(x), len(self.mean), -1)
        rows = max(1, PIECE // max(math.prod(x.shape[1:]), 1))
        for start in range(0, len(x), rows):
            self._add(x[start : start + rows])

    def _add(self, x: np.ndarray) -> None:
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
    """What all shards of a set share; the first sample that can be read decides. Labels from `classes` on are bad."""

    layout: str | None = None
    dtype: np.dtype | None = None
    shape: tuple[int, ...] | None = None
    moments: Moments | None = None
    classes: int = MAX_CLASSES
    choice: Choice = field(default_factory=Choice)

    def settle(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        """Fix both, and start the moments anew."""
        self.dtype, self.shape = dtype, shape
        if dtype == np.float32:
            self.moments = Moments(1 if len(shape) == 1 else shape[0])


def scan_shard(path: Path, common: Layout, decode_all: bool = False) -> Scan:
    """The tables of a shard. decode_all: images are decoded too, to find those that cannot be."""
    with open_tar(path) as data:
        return _scan(path, data, common, decode_all)


def _scan(path: Path, data: Tar, common: Layout, decode_all: bool) -> Scan:
    dropped, seen, wanted = Tally(), Seen(), common.choice.wanted
    shard = _Shard(data, common, dropped, decode_all)
    for key, group in gather(data, dropped, wanted, seen).items():
        if group.fault:
            count = _claimed_rows(data, group.members.get("x.npy"))
            dropped.add(group.fault, [shown(key)], count)
        elif not group.usable():
            hidden = [shown(f"{key}.{ending}") for ending in group.hidden]
            reason = "dot in the name" if hidden else "no sample"
            dropped.add(reason, hidden or [shown(key)], group.hidden.total() or 1)
        elif len(group.samples()) > 1 and not wanted.in_order and not group.packed:
            dropped.add("several samples", [shown(key)], 1, " and ".join(group.samples()))
        else:
            if common.layout is None:
                common.layout = "packed" if group.packed else "samples"
            if group.packed != (common.layout == "packed"):
                raise DataError(f"{path}: {shown(key)} mixes blocks and single samples in one set; pack them again")
            (shard.add_block if group.packed else shard.add_sample)(key, group)
    samples = np.concatenate(shard.samples or [np.empty(0, SAMPLE)])
    forms = np.array(shard.forms, FORM)
    forms = forms if forms["height"].any() else forms[:0]
    blocks = np.array(shard.blocks, BLOCK)
    said = (shard.labels.named(), shard.attributes, seen.kinds, sorted(seen.folders - {""}), shard.told)
    return Scan(samples, blocks, forms, shard.top, dropped.reasons, shard.bad.reasons, ends(data), *said)


def _claimed_rows(data: Tar, member: Member | None) -> int:
    """How many samples a block says that it holds; 1 where it does not say, or is none."""
    if member is None:
        return 1
    try:
        rows = npy_claims(data[member.offset : member.offset + 4096])[1][0]
    except (ValueError, IndexError):
        return 1
    return max(1, min(rows, member.size))


class _Shard:
    """The rows of one shard as they are found. told: what was done to its samples."""

    def __init__(self, data: Tar, common: Layout, dropped: Tally, decode_all: bool) -> None:
        self.data, self.common, self.dropped, self.decode_all = data, common, dropped, decode_all
        self.labels = Labels(data, common.choice.labels, common.classes)
        self.attributes = Attributes(data, common.choice.attribute_rule)
        self.samples: list[np.ndarray] = []
        self.blocks: list[tuple[int, int, int, int]] = []
        self.told: list[str] = []
        self.forms: list[tuple[int, int, int, int]] = []
        self.rows, self.bad = 0, Tally()
        self.deep, self.top = 0, 0

    def add_sample(self, key: str, group: Group) -> None:
        member, name = group.members[group.samples()[0]], shown(key)
        if member.size > MAX_BYTES:
            return self.dropped.add("too many bytes", [name])
        content = self.data[member.offset : member.offset + member.size]
        fault: BadSample | None = None
        values: Values = {}
        try:
            label = self.labels.of_sample(key, group.label())
            values = self.attributes.of_sample(group.attributes())
        except BadSample as error:
            label, fault = UNREADABLE, error
        self.forms.append((0, 0, 0, 0))
        try:
            self._look_at(content, name)
        except BadSample as error:
            fault = fault or error
        if fault is not None:  # it keeps its row: the reader counts it and draws another
            self.bad.add(str(fault), [name], 1, fault.found)
        else:
            self.labels.count(label, name)
        self._add(np.array([(member.offset, member.size, zlib.crc32(content), label)], SAMPLE), [values])

    def _look_at(self, content: bytes, name: str) -> None:
        """The form of a picture; the values of a window, for the statistics. The first sample of all decides which."""
        common = self.common
        if common.shape is None:
            x = decode(content)
            common.settle(x.dtype, x.shape)
            if content.startswith(NPY_MAGIC) and channels_first(*npy_header(content)[:2]):
                shape = npy_header(content)[1]
                self.told.append(f"channels stand first ({form(x.dtype, shape)}, {name}) and are put last")
        if common.moments is not None:
            common.moments.add(decode(content, common.shape, common.dtype)[None])
        else:
            self.forms[-1] = self._form(content)

    def _form(self, content: bytes) -> tuple[int, int, int, int]:
        """That of a picture; BadSample where it has none, or where it cannot be decoded and that is asked for."""
        # Here, so that packed sets load neither Pillow nor OpenCV.
        from savae_dist.data.formats.headers import header
        from savae_dist.data.formats.images import decode_picture

        if content[:6] == NPY_MAGIC:
            x = decode(content, None, np.dtype(np.uint8))
            return *x.shape[:2], x.shape[2] if x.ndim == 3 else 1, 8
        found = header(content)
        if found.bits == 16 and self.deep < DEEP:
            self.deep += 1
            self.top = max(self.top, int(decode_picture(content, bits=16).max()))
        elif self.decode_all:
            decode_picture(content)
        return found[:4]

    def add_block(self, key: str, group: Group) -> None:
        member, common, key = group.members["x.npy"], self.common, shown(key)
        try:
            dtype, shape, start = _header_of(self.data, member)
        except ValueError:
            return self.dropped.add("undecodable", [key], _claimed_rows(self.data, member))
        if member.size > MAX_BLOCK or (shape and shape[0] > MAX_ROWS):
            return self.dropped.add("too many bytes", [key], shape[0] if shape else 1)
        if common.shape is None and storable(dtype, shape[1:]) and not channels_first(dtype, shape[1:]):
            common.settle(dtype, shape[1:])
        if dtype != common.dtype or shape[1:] != common.shape:
            reason = "dtype" if dtype != common.dtype and common.dtype is not None else "shape"
            return self.dropped.add(reason, [key], shape[0] if shape else 1, f"a block of {form(dtype, shape)}")
        try:
            y = self.labels.of_block(group.label(), shape[0])
            values_of_rows = self.attributes.of_block(group.attributes(), shape[0])
        except (ValueError, BadSample) as error:
            found = error.found if isinstance(error, BadSample) else str(error)
            return self.dropped.add("label", [key], shape[0], shown(found))
        if not shape[0]:
            return None
        offset, size = member.offset + start, member.size - start
        values = np.frombuffer(self.data[offset : offset + size], np.uint8)
        reasons = np.where(y == UNREADABLE, "label", np.full(shape[0], "", "<U6"))
        if common.moments is not None:
            x = values.view(dtype).reshape(shape)
            common.moments.add(x)
            reasons[(reasons == "") & ~np.isfinite(x.reshape(shape[0], -1)).all(1)] = "finite"
        for row in np.flatnonzero((reasons == "") & (y <= NAMED)).tolist():
            self.labels.count(int(y[row]), f"{key}[{row}]")
        for reason in sorted(set(reasons.tolist()) - {""}):
            rows = np.flatnonzero(reasons == reason).tolist()
            self.bad.add(reason, (f"{key}[{row}]" for row in rows), len(rows))
        table = np.empty(shape[0], SAMPLE)
        step = size // max(shape[0], 1)
        table["offset"] = offset + step * np.arange(shape[0])
        table["size"] = step
        table["crc"] = [zlib.crc32(row.data) for row in values.reshape(shape[0], step)]
        table["label"] = y
        self.blocks.append((offset, size, self.rows, zlib.crc32(values.data)))
        self._add(table, values_of_rows)

    def _add(self, table: np.ndarray, values: Sequence[Values]) -> None:
        self.samples.append(table)
        self.attributes.keep(values)
        self.rows += len(table)


def _header_of(data: Tar, member: Member) -> tuple[np.dtype, tuple[int, ...], int]:
    """As `npy_header`, without reading the values: a member may claim more than the memory holds."""
    return npy_header(data[member.offset : member.offset + min(member.size, NPY_HEAD)], member.size)
