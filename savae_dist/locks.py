"""Locks between processes, all taken as flocks by the `filelock` library.

The system releases a lock when the process that holds it ends, however it ends, so nothing is left after a kill.
The two kinds differ after a fork: a child does not hold its parent's `PathLock`, but it does hold its parent's lock on
an open file, until the child ends or the lock is released.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from filelock import FileLock, Timeout, lock_descriptor, unlock_descriptor

POLL_SECONDS = 0.01  # between two tries at an open file, which the cache locks for milliseconds only
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


class PathLock:
    """A lock on `path`, a file for this purpose alone, which is created if it is missing and never removed.

    On a file system without locks it is always granted. What it guards must therefore be written whole or not at all
    (see `files`), so that two processes that write the same at once do no harm.
    """

    def __init__(self, path: Path) -> None:
        # No fallback: without locks the library would make a marker file, which outlives a process that is killed.
        self._lock = FileLock(path, fallback_to_soft=False)

    def acquire(self, seconds: float = -1.0) -> bool:
        """Whether it was acquired within that time, negative: no limit; OSError if the file cannot be created."""
        try:
            self._lock.acquire(seconds)
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        return True

    @property
    def held(self) -> bool:
        """Whether no other process can have it: false where it was granted without a lock."""
        return bool(self._lock.is_locked)

    def release(self) -> None:
        """Release the lock, if it is held."""
        self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def try_lock(file: IO[Any]) -> bool:
    """Whether an open file is now locked by this process; not if another process or another open file object has it.

    For files that are renamed or removed: the lock is on the file itself, not on its name. Locking twice changes
    nothing.
    """
    return lock_descriptor(file.fileno(), blocking=False)


@contextmanager
def locked(file: IO[Any]) -> Iterator[None]:
    """Hold the lock on an open file, waiting for it if need be.

    Unlock explicitly: after a fork, close() alone keeps the lock as long as the child has the file open.
    """
    lock_descriptor(file.fileno(), poll_interval=POLL_SECONDS)
    try:
        yield
    finally:
        unlock_descriptor(file.fileno())
