"""Fetching shards before they are needed: the rest of this window and the next one, while the batches are read."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar

import numpy as np

from savae_dist.data.remote.retry import Stopped
from savae_dist.errors import Interrupted, UserError

Keep = Callable[[Sequence[int]], Sequence[int]]
THREADS = 4
AGAIN = 8  # times per look-ahead that the list of what is wanted is made anew
PATIENCE = 10.0  # seconds to wait at the end for what is on its way; no time where the process is told to stop


class Asked(Protocol):
    """A request for the slots of one global batch, which begins at position `start`."""

    @property
    def start(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def slots(self) -> range | np.ndarray: ...


R = TypeVar("R", bound=Asked)


class Foreseen(Protocol):
    """An order that tells what it will draw from; after `reach` positions every lane has ended its window."""

    reach: int

    def shards_between(self, first: int, last: int, step: int = 1) -> list[int]: ...


class Ahead:
    """Threads that call fetch(job, stop) for what was wanted last, first things first.

    They start with the first wish: after the workers of a loader, since a fork copies no threads, but does copy the
    locks that they hold at that moment. For the same reason they have ended when this is closed.
    """

    def __init__(self, fetch: Callable[[int, threading.Event], None]) -> None:
        self.fetch = fetch
        self._jobs: deque[int] = deque()
        self._change = threading.Condition()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def want(self, jobs: Iterable[int]) -> None:
        """Replace the list of wanted jobs: fetch these, in this order, and drop all that were wanted before."""
        with self._change:
            self._jobs = deque(jobs)
            self._change.notify_all()
        if not self._threads:
            self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(THREADS)]
            for thread in self._threads:
                thread.start()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._jobs or self._stop.is_set())
                if self._stop.is_set():
                    return
                job = self._jobs.popleft()
            try:
                self.fetch(job, self._stop)
            except Stopped:
                return
            except UserError:
                continue  # whoever needs this shard meets the same error, and raises it where it ends the run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        with self._change:
            self._change.notify_all()
        until = time.monotonic() + (0.0 if isinstance(error, Interrupted) else PATIENCE)
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))

    def watched(self, requests: Iterable[R], order: Foreseen, keep: Keep, under_way: int) -> Iterator[R]:
        """The requests; before each it is known what they draw from next: this window of each lane and the one after.

        keep: chooses from the shards, which are in the order of need, those to have here at the same time.
        under_way: how many requests may have been given out and not read yet.
        """
        recent: deque[int] = deque(maxlen=under_way + 1)
        due = None
        for request in requests:
            first = request.start + int(request.slots[0])
            recent.append(first)
            if due is None or not due - order.reach <= first < due:
                step = request.slots.step if isinstance(request.slots, range) else 1
                self.want(keep(order.shards_between(min(recent), first + request.size + order.reach, step)))
                due = first + max(order.reach // AGAIN, 1)
            yield request
