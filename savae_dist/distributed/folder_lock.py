"""The lock on a run's folder, so that only one launch at a time writes it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from savae_dist.distributed.ranks import Peers, unwritable
from savae_dist.errors import ConfigError, OccupiedError
from savae_dist.locks import PathLock

PATIENCE_SECONDS = 120.0  # the other may still be saving; NFS 4 servers free a dead machine's locks after 90 s
ROUND_SECONDS = 0.5  # between two collectives, in which the other ranks wait: below any `timeout`


class FolderLock:
    """One launch's right, for all its ranks, to write `folder`; rank 0 holds the lock, until it exits at the latest.

    On a file system without locks every launch has this right; on some network file systems one launch per machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = False  # by this launch
        self._lock = PathLock(folder / ".lock")

    def acquire(self, peers: Peers) -> None:
        """Wait for the lock; OccupiedError on every rank if another launch keeps it. All ranks must call it."""
        until, told = time.monotonic() + PATIENCE_SECONDS, False
        while not self.held:
            error: ConfigError | OccupiedError | None = None
            if peers.rank == 0:
                try:
                    self.held = self._try()
                except OSError as reason:
                    error = unwritable(self.folder, reason)
                else:
                    if not self.held and time.monotonic() > until:
                        error = OccupiedError(
                            f"output={self.folder}: another launch is at work there, as its status.json tells, and was "
                            f"for {PATIENCE_SECONDS:g} s: run it again when that has ended, or give another `output`"
                        )
                    elif not self.held and not told:
                        told = True
                        line = f"another launch is at work there; waiting up to {PATIENCE_SECONDS:g} s for its end"
                        print(f"output={self.folder}: {line}", file=sys.stderr)
            peers.raise_everywhere(error)
            self.held = peers.gather({"held": self.held})[0]["held"]

    @contextmanager
    def for_one_write(self) -> Iterator[bool]:
        """Yield whether this process may write now; OSError if the folder cannot be written.

        A launch without the lock, such as one that is refused at its start, takes it for this one write.
        """
        allowed = self.held or self._try()
        try:
            yield allowed
        finally:
            if not self.held:
                self._lock.release()

    def release(self) -> None:
        """Release the lock, if it is held."""
        self.held = False
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _try(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self._lock.acquire(ROUND_SECONDS)
