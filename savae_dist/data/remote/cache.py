"""A bounded folder of whole files that processes share: one fills a file, the others find it, the oldest goes first."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from savae_dist.data.remote.retry import pause
from savae_dist.errors import ConfigError, DataError
from savae_dist.files import flush, publish
from savae_dist.locks import locked, try_lock

POLL = 0.05  # seconds between two looks at what another process is doing
PARTIAL = ".partial"
FORMAT_VERSION = 3  # version of the index format


def cache_folder() -> Path:
    """The folder for files that can be made again; each index format has its own."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "savae_dist" / f"format-{FORMAT_VERSION}"


class Cache:
    """Files of `folder`, together never more than `limit` bytes; those that were used longest ago make room.

    A file is filled under a name that ends in `.partial`, by the one process that has it locked, at its full
    size from the beginning, and gets its own name when it is whole. Who has a file open keeps it when it goes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def path(self, name: str) -> Path:
        return self.folder / name

    def find(self, name: str, size: int) -> BinaryIO | None:
        """A file that is here, marked as used; else None."""
        path = self.path(name)
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        os.utime(file.fileno())
        if os.fstat(file.fileno()).st_size == size:
            return file
        file.close()
        path.unlink(missing_ok=True)
        return None

    def claim(
        self, name: str, size: int, fill: Callable[[BinaryIO], None], stop: threading.Event | None
    ) -> BinaryIO | None:
        """A file that is not here, made by fill(file); None where another process is at it, or just was."""
        make_folder(self.folder)
        path, partial = self.path(name), self.path(name + PARTIAL)
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            if not try_lock(file):
                return None
            with locked(file):
                if not _is_at(partial, file):  # one that got its name or was removed meanwhile guards nothing
                    return None
                if path.exists():
                    partial.unlink()
                    return None
                return self._make(path, partial, file, size, fill, stop)

    def _make(
        self,
        path: Path,
        partial: Path,
        file: BinaryIO,
        size: int,
        fill: Callable[[BinaryIO], None],
        stop: threading.Event | None,
    ) -> BinaryIO:
        try:
            self._reserve(file, size, stop)
            fill(file)
            file.flush()
            flush(partial)  # here: for the renaming others wait
            whole = partial.open("rb")  # before it has the final name, under which it may go at once
            with self._alone():
                publish(partial, path)
            return whole
        except BaseException as error:  # its bytes count
            partial.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise
            raise DataError(f"{self.folder} cannot be written ({error}); make room, or set data.cache_dir") from error

    def _reserve(self, file: BinaryIO, size: int, stop: threading.Event | None) -> None:
        """Take `size` bytes of the folder for a partial file."""
        while True:
            with self._alone():
                os.ftruncate(file.fileno(), 0)
                known = sorted(_files(self.folder), key=lambda entry: entry[1].st_mtime_ns)
                used = sum(status.st_size for _, status in known)
                for path, status in known:
                    if used + size <= self.limit:
                        break
                    if _removed(path):
                        used -= status.st_size
                if used + size <= self.limit:
                    os.posix_fallocate(
                        file.fileno(), 0, size
                    )  # reserve the space now: a full disk is reported before the download
                    return
            pause(POLL, stop)  # other downloads hold the rest, and will have ended

    def touch(self, name: str) -> None:
        """Mark a file as used, if it is here."""
        with suppress(FileNotFoundError):
            os.utime(self.path(name))

    def rename(self, name: str, new: str) -> None:
        """Another name for a file, if it is still here."""
        with self._alone(), suppress(FileNotFoundError):
            publish(self.path(name), self.path(new))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While files are counted, removed and renamed, by one process at a time."""
        with (self.folder / ".lock").open("ab") as file, locked(file):
            yield


def make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data.cache_dir: {folder} cannot be made ({error}); name another folder") from error
    return folder


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _removed(path: Path) -> bool:
    """Whether a file could go: a partial one only if the process that filled it is gone."""
    if path.suffix != PARTIAL:
        path.unlink(missing_ok=True)
        return True
    with suppress(FileNotFoundError), path.open("r+b") as file:  # its process may have removed it just now
        if try_lock(file):  # and removed under the lock, so that nobody claims it in between
            path.unlink()
            return True
    return False


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # another process may remove a partial file at this moment
            if not entry.name.startswith("."):
                yield Path(entry.path), entry.stat()
