"""How long a rank works on its own, which tells a slow machine from one that waits for a slow machine.

Under DDP the time of a step tells nothing: every rank waits for the slowest in each sum of gradients, so all ranks take
equally long. What differs is the time until they wait. So a step is measured from where its batch is put together to
where its last backward pass begins, in which DDP sums: augmentation, forward pass and losses, and with `accumulate` all
parts but the last backward pass. A machine that computes slowly is slow in these as well, by the same factor. Not
measured are the last backward pass and the optimiser, in which waiting and work are mixed. Data are waited for before
that, and measured apart: `Waiting`.

Where ranks exchange something within that stretch (networks.norm=sync_batch, FSDP, ZeRO-2 with `accumulate`), the fast
ones wait there, too. Then all times are alike: a slow rank may go unnoticed, but no other is taken for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class OwnTime:
    """Seconds from each `begin` to the `end` after it, summed until `drain`.

    On a GPU two events are recorded in its stream, since the host runs ahead of it. They are read at a later `drain`,
    once the GPU has passed them: nothing ever waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self.gpu = device.type == "cuda"
        self.seconds, self.since = 0.0, 0.0
        self.events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self.free: list[torch.cuda.Event] = []
        self.first: torch.cuda.Event | None = None

    def begin(self) -> None:
        """The rank works on its own from here on; what it did since a `begin` without an `end` does not count."""
        if self.gpu:
            self.first = self.first or self._event()
            self.first.record()
        else:
            self.since = time.perf_counter()

    def end(self) -> None:
        """From here on it may wait for others; nothing where there was no `begin`."""
        if self.first is not None:
            last = self._event()
            last.record()
            self.events.append((self.first, last))
            self.first = None
        elif self.since:
            self.seconds += time.perf_counter() - self.since
            self.since = 0.0

    def drain(self) -> float:
        """The seconds since the last `drain`; of a GPU without the steps that it has not reached yet."""
        left = []
        for first, last in self.events:
            if last.query():
                self.seconds += first.elapsed_time(last) / 1000
                self.free += [first, last]
            else:
                left.append((first, last))
        self.events = left
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def _event(self) -> torch.cuda.Event:
        return self.free.pop() if self.free else torch.cuda.Event(enable_timing=True)


class Waiting(Generic[T]):
    """An iterator that measures for how many seconds it is waited for, in all."""

    def __init__(self, given: Iterator[T]) -> None:
        self.given, self.seconds = given, 0.0

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        start = time.perf_counter()
        one = next(self.given)
        self.seconds += time.perf_counter() - start
        return one

    def drain(self) -> float:
        """The seconds since the last `drain`."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds
