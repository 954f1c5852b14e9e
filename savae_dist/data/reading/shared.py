"""Memory through which the workers of a loader hand over batches: what goes through a pipe is a few bytes."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import get_worker_info

from savae_dist.errors import ConfigError

Numbers = tuple[np.ndarray, np.ndarray, np.ndarray]  # y, id and slot, int64 [n] each
FREE, TAKEN = 0, 1


@dataclass(frozen=True)
class Place:
    """Where a batch of `count` samples lies in the shared memory, and what else there is to say of it."""

    number: int
    count: int
    rest: tuple[Any, ...]


class SharedMemory:
    """Places for batches of at most `rows` samples, `each` of them for every worker.

    The memory is anonymous and inherited by forked workers. Torch's way would be a file in /dev/shm for each batch:
    where that is too small, as the 64 MB of a container, a batch is lost without a word and the trainer waits for ever.
    A message is shorter than what a pipe takes in one piece (4,096 bytes), so that a worker that is killed leaves no
    part of one, for whose rest the trainer would wait for ever too.
    """

    def __init__(self, workers: int, each: int, rows: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.each, self.rows = each, rows
        count, values = workers * each, int(np.prod(shape)) * rows
        try:
            memory = mmap.mmap(-1, count * max(values * dtype.itemsize, 1))
            numbers = mmap.mmap(-1, count * 3 * max(rows, 1) * 8)
            self._state = np.frombuffer(mmap.mmap(-1, count), np.uint8)
        except (OSError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"data.workers={workers}: no memory for {count} batches of {values * dtype.itemsize:,} bytes "
                f"({error}); lower data.workers or data.batch_size"
            ) from error
        self._x = np.frombuffer(memory, dtype, count * values).reshape(count, rows, *shape)
        self._numbers = np.frombuffer(numbers, np.int64, count * 3 * rows).reshape(count, 3, rows)

    def put(self, x: np.ndarray, numbers: Numbers, rest: tuple[Any, ...]) -> Place | None:
        """In a worker: copy a batch to a free place of its own; None if there is none, or it is too large."""
        worker = get_worker_info()
        assert worker is not None
        mine = range(worker.id * self.each, (worker.id + 1) * self.each)
        number = next((one for one in mine if self._state[one] == FREE), None)
        if number is None or len(x) > self.rows:
            return None
        self._x[number, : len(x)] = x
        self._numbers[number, :, : len(x)] = numbers
        self._state[number] = TAKEN
        return Place(number, len(x), rest)

    def take(self, place: Place) -> tuple[np.ndarray, Numbers]:
        """In the trainer: a batch, copied, so that its place is free at once."""
        x = self._x[place.number, : place.count].copy()
        y, ids, slots = self._numbers[place.number, :, : place.count].copy()
        self._state[place.number] = FREE
        return x, (y, ids, slots)
