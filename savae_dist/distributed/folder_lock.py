"""Which launch may write a run's folder: of several at the same time, one."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from savae_dist.distributed.ranks import Peers, unwritable
from savae_dist.errors import ConfigError, OccupiedError

PATIENCE_SECONDS = 120.0  # a launch may still be saving; an NFS 4 server takes 90 to give a dead machine up
ROUND_SECONDS = 0.5  # between the collectives in which the other ranks wait: below any `timeout`
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


class Claim:
    """The right to write `folder`, of all ranks of a launch, until its release or the end of rank 0, which holds it.

    File systems without locks go without; some on the network grant one per machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held = False  # by this launch
        self._lock = FileLock(folder / ".lock", ROUND_SECONDS, fallback_to_soft=False)

    def take(self, peers: Peers) -> None:
        """Wait until no other launch has it; OccupiedError on every rank where one keeps it."""
        until, told = time.monotonic() + PATIENCE_SECONDS, False
        while not self.held:
            error: ConfigError | OccupiedError | None = None
            if peers.rank == 0:
                try:
                    self.held = self._acquire()
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
    def briefly(self) -> Iterator[bool]:
        """Whether this process may write now; OSError where nobody can. Of a launch that has no claim one at a time."""
        mine = self.held or self._acquire()
        try:
            yield mine
        finally:
            if not self.held:
                self._lock.release()

    def release(self) -> None:
        self.held = False
        self._lock.release()

    def _acquire(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        return True
