"""Requests for global batches to batches of raw samples."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from savae_dist.data.index.labels import UNLABELLED
from savae_dist.data.index.losses import samples_left_out
from savae_dist.data.index.shards import Shards
from savae_dist.data.order.mixture import SampleOrder
from savae_dist.data.order.order import Request, Sequential
from savae_dist.data.reading.gather import Fetcher
from savae_dist.data.reading.shared import Numbers
from savae_dist.data.remote.prefetch import THREADS, Ahead
from savae_dist.errors import ConfigError, DataError

ATTEMPTS = 100
LOAD_ROWS = 4096  # rows per step when the whole set is read into memory


@dataclass
class RawBatch:
    """The wanted slots of one global batch, as stored; `preprocess.normalise` makes it what the networks see.

    x: uint8 [n, h, w] or [n, h, w, c], or float32 [n, length] or [n, channels, length].
    y: int64 [n], -1 where unlabelled. id: int64 [n], number of the sample in the set. slot: int64 [n], its place in
    the global batch. labelled: number of labelled samples in the whole global batch, not only in these slots.
    bad: (reason, shard, key) of each bad sample that was met, and drawn again or (in evaluation) dropped.
    whole: uint8, the memory of all four where they lie together.
    """

    x: Tensor
    y: Tensor
    id: Tensor
    slot: Tensor
    labelled: int
    bad: list[tuple[str, str, str]] = field(default_factory=list)
    whole: Tensor | None = None

    def together(self, pin: bool) -> RawBatch:
        """The same in one piece of memory, so that a device gets it in one transfer.

        pin: a GPU copies from it while the program goes on.
        """
        tensors = (self.y, self.id, self.slot, self.x)  # x last: the others then lie at multiples of 8 bytes
        whole = torch.empty(sum(tensor.nbytes for tensor in tensors), dtype=torch.uint8, pin_memory=pin)
        y, ids, slot, x = parts_of(whole, tensors)
        for part, tensor in zip((y, ids, slot, x), tensors, strict=True):
            part.copy_(tensor)
        return RawBatch(x, y, ids, slot, self.labelled, self.bad, whole)

    def on(self, device: torch.device) -> RawBatch:
        """The same on a device; on the CPU it is this one."""
        if device.type == "cpu":
            return self
        whole = (self if self.whole is not None else self.together(pin=False)).whole
        assert whole is not None
        tensors = (self.y, self.id, self.slot, self.x)
        y, ids, slot, x = parts_of(whole.to(device, non_blocking=True), tensors)
        return RawBatch(x, y, ids, slot, self.labelled, self.bad)

    def arrays(self) -> tuple[np.ndarray, Numbers]:
        """x, and (y, id, slot)."""
        return self.x.numpy(), (self.y.numpy(), self.id.numpy(), self.slot.numpy())

    def __reduce__(self) -> tuple[Callable[..., RawBatch], tuple[Any, ...]]:
        # As bytes: torch would pickle a tensor as a file in /dev/shm, which may be too small.
        return RawBatch.of, (*self.arrays(), self.labelled, self.bad)

    def taken(self, rows: Tensor) -> RawBatch:
        """The samples in these rows, int64 `[n]`."""
        return RawBatch(self.x[rows], self.y[rows], self.id[rows], self.slot[rows], self.labelled)

    @classmethod
    def of(cls, x: np.ndarray, numbers: Numbers, labelled: int, bad: list[tuple[str, str, str]]) -> RawBatch:
        """The batch of these arrays, which it shares."""
        y, ids, slots = map(torch.from_numpy, numbers)
        return cls(torch.from_numpy(x), y, ids, slots, labelled, bad)


def parts_of(whole: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """The views of `whole` uint8 `[bytes]`, one behind the other, with types and shapes as these."""
    pieces = whole.split([tensor.nbytes for tensor in like])
    return [piece.view(tensor.dtype).view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]


class Reader(Dataset[RawBatch]):
    """`reader[request]` is a RawBatch: the same for the same request, whoever asks and whatever was asked before.

    bad_budget: how many different bad samples this process may meet before it stops with DataError; share: the value of
    `data.bad_budget` that this comes from, for the message.
    cache: `memory` reads the whole set at once, here; `none` reads each batch from the shards.
    """

    def __init__(
        self,
        shards: Shards,
        order: SampleOrder | Sequential,
        bad_budget: int,
        cache: Literal["none", "memory"] = "none",
        share: float | None = None,
    ) -> None:
        if cache not in ("none", "memory"):
            raise ConfigError(f"data.cache must be none or memory, not {cache}")
        self.shards, self.bad_budget, self.share = shards, bad_budget, share
        self.order = self._fitting(order)
        self.fetcher = Fetcher(shards, keep=cache == "none")
        self._met: dict[tuple[int, int], str] = {}
        self._memory = self._load() if cache == "memory" else None
        self.streams = shards.remote and self._memory is None

    def _fitting(self, order: SampleOrder | Sequential) -> SampleOrder | Sequential:
        if order.counts.shape != self.shards.counts.shape or (order.counts > self.shards.counts).any():
            raise ConfigError("the order was made for other shards; make it with the counts of these")
        return order

    def with_order(self, order: SampleOrder | Sequential) -> Reader:
        """The same samples, budget and memory, drawn in another order."""
        other = copy.copy(self)
        other.order = self._fitting(order)
        return other

    @classmethod
    def sharing(cls, other: Reader, order: SampleOrder | Sequential, bad_budget: int) -> Reader:
        """A reader of the same samples and memory, in another order and with an account of its own of what is bad."""
        reader = other.with_order(order)
        reader.bad_budget, reader._met = bad_budget, {}
        return reader

    def __getitem__(self, request: Request) -> RawBatch:
        positions = request.start + np.arange(request.size)
        shards, rows = self.order.locate(positions)
        labels = self.shards.labels(shards, rows)
        labelled = int(np.count_nonzero(labels != UNLABELLED))
        slots = np.asarray(request.slots, np.int64)
        shards, rows, labels = shards[slots], rows[slots], labels[slots]
        x, faults = self._read(shards, rows, labels)
        bad: list[tuple[str, str, str]] = []
        for index, reason in sorted(faults.items()):
            bad.append(self._report(int(shards[index]), int(rows[index]), reason))
            if not isinstance(self.order, Sequential):
                other = self._redraw(self.order, int(positions[slots[index]]), int(labels[index]), bad)
                shards[index], rows[index], labels[index], x[index] = other
        ids = self.shards.starts[shards] + rows
        if faults and isinstance(self.order, Sequential):
            keep = np.setdiff1d(np.arange(len(slots)), list(faults))
            x, labels, ids, slots = x[keep], labels[keep], ids[keep], slots[keep]
        return RawBatch.of(x, (labels, ids, slots), labelled, bad)

    def _read(self, shards: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
        """Samples, and the reason for each bad one by index."""
        if self._memory is None:
            x, faults = self.fetcher.fetch(shards, rows)
        else:
            held, known = self._memory
            ids = self.shards.starts[shards] + rows
            x = held[ids]
            faults = {i: known[one] for i, one in enumerate(ids.tolist()) if one in known} if known else {}
        for index in np.flatnonzero(labels < UNLABELLED).tolist():
            faults[index] = "label"
        return x, faults

    def _redraw(
        self, order: SampleOrder, position: int, label: int, bad: list[tuple[str, str, str]]
    ) -> tuple[int, int, int, np.ndarray]:
        """Shard, row, label and values of the sample that takes the place of a bad one.

        Only from its window and, so that the labelled count of the batch stays what all ranks took it for, only
        labelled for labelled; a function of the position alone, so that a resumed run draws the same.
        """
        original = order.locate(np.array([position]))
        shards, rows = order.window_of(position)
        labels = self.shards.labels(shards, rows)
        fit = (labels == UNLABELLED) == (label == UNLABELLED)
        fit &= labels >= UNLABELLED
        fit &= (shards != original[0]) | (rows != original[1])
        shards, rows, labels = shards[fit], rows[fit], labels[fit]
        tried: set[int] = set()
        for attempt in range(ATTEMPTS if len(rows) else 0):
            i = order.redraw(position, attempt, len(rows))
            if i in tried:
                continue
            tried.add(i)
            x, faults = self._read(shards[i : i + 1], rows[i : i + 1], labels[i : i + 1])
            if not faults:
                return int(shards[i]), int(rows[i]), int(labels[i]), x[0]
            bad.append(self._report(int(shards[i]), int(rows[i]), faults[0]))
        raise DataError(
            f"no usable sample in place of {bad[-1][2]} of {bad[-1][1]}, bad so far {self._counts()}; "
            "remove the bad samples, or raise data.shuffle_window"
        )

    def _report(self, shard: int, row: int, reason: str) -> tuple[str, str, str]:
        self._met[shard, row] = reason
        name, key = self.shards.names[shard], self.fetcher.key(shard, row)
        if len(self._met) > self.bad_budget:
            raise self._over_budget(f"the last {key} of {name} ({reason})")
        return reason, name, key

    def _over_budget(self, last: str) -> DataError:
        if self.share is None:
            return DataError(f"bad samples {self._counts()}: more than bad_budget={self.bad_budget}, {last}")
        left_out, total = samples_left_out(self.shards.index)
        lost = len(self._met) + left_out
        index = f" and {left_out:,} that the index leaves out" * (left_out > 0)
        return DataError(
            f"bad samples {self._counts()}{index}: {lost:,} of {total:,} is more than "
            f"data.bad_budget={self.share:g} allows, {last}; repair the shards, or allow a larger share"
        )

    def _counts(self) -> str:
        counts = sorted(Counter(self._met.values()).items())
        return f"{len(self._met)} ({', '.join(f'{reason}: {n}' for reason, n in counts)})"

    def _load(self) -> tuple[np.ndarray, dict[int, str]]:
        """All samples by id, and the reasons of the bad ones."""
        x = np.empty((int(self.shards.counts.sum()), *self.fetcher.shape), self.fetcher.dtype)
        faults: dict[int, str] = {}
        with Ahead(self.shards.fetch) as ahead:
            for shard, (start, count) in enumerate(zip(self.shards.starts, self.shards.counts, strict=True)):
                if self.shards.remote:
                    ahead.want(self.shards.keep(range(shard, min(shard + 1 + THREADS, len(self.shards.counts)))))
                for first in range(0, int(count), LOAD_ROWS):
                    rows = np.arange(first, min(first + LOAD_ROWS, int(count)))
                    part, wrong = self.fetcher.fetch(np.full(len(rows), shard), rows)
                    x[start + rows] = part
                    faults |= {int(start + first) + i: reason for i, reason in wrong.items()}
        return x, faults
