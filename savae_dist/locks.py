"""One at a time: locks between processes, all of them flocks that the `filelock` library takes.

The system gives a lock back when the process that holds it ends, however it ends: nobody has to tidy up after a kill.
There are two kinds, because they differ where a process that holds one forks: the child of a `PathLock`'s holder does
not hold it, and the child of who holds a lock on an open file does, until it ends or the lock is given back.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self

from filelock import FileLock, Timeout, lock_descriptor, unlock_descriptor

POLL_SECONDS = 0.01  # between two tries at an open file: the cache holds such a lock for milliseconds
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)


class PathLock:
    """A lock on `path`, a file for this purpose alone, which is made where it is missing and stays.

    File systems without locks go without: there the lock is always granted. What it guards must therefore be written
    whole or not at all (see `files`), so that two who write the same at once do no harm.
    """

    def __init__(self, path: Path) -> None:
        # The library's own way out where there are no locks, a marker file, would outlive a process that is killed.
        self._lock = FileLock(path, fallback_to_soft=False)

    def acquire(self, seconds: float = -1.0) -> bool:
        """Whether it could be had within that time, negative: without end; OSError where the file cannot be made."""
        try:
            self._lock.acquire(seconds)
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        return True

    def release(self) -> None:
        """Give it back, if it is held."""
        self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file, unless another process or another opening of it has the lock; whether it is ours now.

    For files that come and go under their names: the lock is on the file itself, whatever name it has by then. Locking
    again what is ours changes nothing.
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
