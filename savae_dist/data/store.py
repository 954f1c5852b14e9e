"""Remote files through fsspec: whole and verified, in a bounded cache on disk that all processes of a node share."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from savae_dist.data.index import cache_folder
from savae_dist.data.outage import Outage, WrongContent, shown
from savae_dist.errors import ConfigError, DataError

T = TypeVar("T")
CACHE_BYTES = 50_000_000_000
# Below the ten minutes after which NCCL ends a run in which one rank makes the others wait.
OUTAGE_LIMIT = 540.0
PIECE = 32 << 20  # bytes of one request: what a broken connection costs, and what a download holds in memory
POLL = 0.05  # seconds between two looks at what another process is doing


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Whether this is a URL of fsspec's; `file://` is none, since what is here already is never copied."""
    return isinstance(source, str) and re.match(r"(?!file:)[A-Za-z][\w+.-]*://", source) is not None


def name_of(url: str) -> str:
    """The last part of a URL's path, without its query."""
    return PurePosixPath(urlsplit(url).path).name


class Stopped(Exception):
    """A download that nobody waits for any more."""


class Store:
    """Opens remote files; those of shards stay in `folder`/shards, never more than `cache_bytes` of them.

    One process downloads a file while the others wait for it (an flock on the `.partial` that it fills); a whole and
    verified file appears under its name at once. What was used longest ago goes first; who has it open keeps it.
    outage_limit: seconds without success before DataError.

    Any process may download: the training process does so ahead (`ahead.Ahead`), a worker only what it then finds
    missing. fsspec's filesystems live on a thread that no fork copies, so each process makes its own.
    """

    def __init__(
        self, folder: Path | None = None, cache_bytes: int = CACHE_BYTES, outage_limit: float = OUTAGE_LIMIT
    ) -> None:
        self.folder = (folder or cache_folder()).expanduser().absolute()
        self.cache_bytes, self.outage_limit = cache_bytes, outage_limit
        self._shards = self.folder / "shards"
        self._filesystems: dict[tuple[int, str], Any] = {}
        self._outage = Outage(outage_limit)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_filesystems": {}}  # a spawned worker makes its own

    def home(self, identity: str) -> Path:
        """The folder for the index of the set that `identity` names; made where it is not there."""
        return _made(self.folder / "index" / hashlib.sha256(identity.encode()).hexdigest()[:16])

    def read(self, url: str) -> bytes:
        """A small file."""
        return self._ask(url, lambda files: bytes(files.cat_file(url)))

    def size(self, url: str, stop: threading.Event | None = None) -> int:
        """Bytes of a file of which no index tells."""
        size = self._ask(url, lambda files: files.info(url)["size"], stop)
        if size is None:
            raise DataError(f"{shown(url)}: the server does not tell its size; pack the set, or copy it here")
        return int(size)

    def path(self, url: str, size: int, crc: int | None) -> Path:
        """Where the cache holds a file. What is known by its crc needs no query: that may be a signature."""
        identity = f"{url if crc is None else shown(url)} {size} {crc}"
        return self._shards / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}-{name_of(url)[-100:]}"

    def verified(self, url: str, size: int, crc: int) -> None:
        """What is here was read and found to be whole, with this crc: keep it as that."""
        with self._alone(), suppress(FileNotFoundError):  # let go of meanwhile
            self.path(url, size, None).rename(self.path(url, size, crc))

    def open(self, url: str, size: int, crc: int | None) -> BinaryIO:
        """The whole file, downloaded if need be: an open one and no path, since the next download may remove that."""
        while True:
            file = self._find(url, size, crc) or self._claim(url, size, crc, None)
            if file is not None:
                return file
            time.sleep(POLL)  # somebody else is downloading it

    def fetch(self, url: str, size: int, crc: int | None, stop: threading.Event) -> None:
        """Have a file here, unless somebody else is about to; Stopped once `stop` is set."""
        file = self._find(url, size, crc) or self._claim(url, size, crc, stop)
        if file is not None:
            file.close()

    def _find(self, url: str, size: int, crc: int | None) -> BinaryIO | None:
        """A file of the cache, marked as used; None where it is not there."""
        path = self.path(url, size, crc)
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

    def _claim(self, url: str, size: int, crc: int | None, stop: threading.Event | None) -> BinaryIO | None:
        """The file, downloaded here; None where somebody else is at it, or just was."""
        if size > self.cache_bytes:
            raise ConfigError(f"data.cache_bytes={self.cache_bytes} cannot hold {shown(url)} of {size} bytes; raise it")
        _made(self._shards)
        path = self.path(url, size, crc)
        partial = Path(f"{path}.partial")
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as target:
            if not _locked(target):
                return None
            with _held(target):
                if path.exists() or not _is_at(partial, target):
                    return None
                return self._download(url, size, crc, path, target, stop)

    def _download(
        self, url: str, size: int, crc: int | None, path: Path, target: BinaryIO, stop: threading.Event | None
    ) -> BinaryIO:
        """Fill `target`, which this process has claimed, and give it its name."""
        name = Path(f"{path}.partial")
        try:
            self._reserve(target, size, stop)
            for tries_left in reversed(range(WrongContent.TRIES)):
                found = self._fill(target, url, size, stop)
                if crc in (None, found):
                    break
                if not tries_left:
                    raise DataError(
                        f"{shown(url)} has the crc32 {found:08x}, its index says {crc:08x}: "
                        "upload it again, or index the set again if it was changed on purpose"
                    )
            os.fdatasync(target.fileno())  # else a power cut may leave zeros under the final name
            whole = name.open("rb")  # before it has its name, since under that it may be evicted
            with self._alone():
                os.replace(name, path)
            return whole
        except BaseException as error:  # its bytes count as used
            name.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise
            raise DataError(f"{path.parent} cannot be written ({error}); make room, or set data.cache_dir") from error

    def _fill(self, target: BinaryIO, url: str, size: int, stop: threading.Event | None) -> int:
        """Write the file piece by piece; its crc32. A connection that breaks costs one piece."""
        crc = 0
        target.seek(0)
        for start in range(0, size, PIECE):
            data = self._ask(url, partial(_piece, url=url, start=start, end=min(start + PIECE, size), size=size), stop)
            crc = zlib.crc32(data, crc)
            target.write(data)
        target.flush()
        return crc

    def _reserve(self, target: BinaryIO, size: int, stop: threading.Event | None) -> None:
        """Take `size` bytes of the cache for `target`; what was used longest ago makes room."""
        while True:
            with self._alone():
                os.ftruncate(target.fileno(), 0)
                files = sorted(_files(self._shards), key=lambda known: known[1].st_mtime_ns)
                used = sum(status.st_size for _, status in files)
                for path, status in files:
                    if used + size <= self.cache_bytes:
                        break
                    if _removed(path):
                        used -= status.st_size
                if used + size <= self.cache_bytes:
                    os.posix_fallocate(target.fileno(), 0, size)  # a full disk shows here, not in mid-download
                    return
            _pause(POLL, stop)  # other downloads hold the rest, and will have ended

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While the files of the cache are counted, removed and renamed, by one process at a time."""
        with (self._shards / ".lock").open("ab") as lock, _held(lock):
            yield

    def touch(self, url: str, size: int, crc: int | None) -> None:
        """Mark a file as used, if it is here."""
        with suppress(FileNotFoundError):
            os.utime(self.path(url, size, crc))

    def _ask(self, url: str, call: Callable[[Any], T], stop: threading.Event | None = None) -> T:
        """call(filesystem), as often as it takes."""
        trial = self._outage.trial(url)
        while True:
            if stop is not None and stop.is_set():
                raise Stopped
            try:
                answer = call(self._filesystem(url))
            except (ConfigError, DataError):
                raise
            except Exception as error:  # the libraries below have no base class in common
                _pause(trial.failed(error), stop)
            else:
                trial.succeeded()
                return answer

    def _filesystem(self, url: str) -> Any:
        import fsspec  # here: sets on local disk do without

        protocol = urlsplit(url).scheme
        key = (os.getpid(), protocol)
        if key not in self._filesystems:
            options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
            try:
                if protocol in ("http", "https"):
                    from aiohttp import ClientTimeout

                    # aiohttp's own limit, five minutes for all, would end a slow download and wait long for a dead one.
                    timeout = ClientTimeout(total=None, sock_connect=10, sock_read=30)
                    options["client_kwargs"] = {
                        "timeout": timeout,
                        **fsspec.config.conf.get(protocol, {}).get("client_kwargs", {}),
                    }
                self._filesystems[key] = fsspec.filesystem(protocol, **options)
            except ImportError as error:
                raise ConfigError(
                    f"{protocol}:// needs a package that is not here ({error}): pip install savae-dist[remote]"
                ) from error
            except ValueError as error:
                raise ConfigError(f"{shown(url)}: {error}; s3, gs, http, https and hf are known") from error
        return self._filesystems[key]


def _piece(files: Any, *, url: str, start: int, end: int, size: int) -> bytes:
    data = bytes(files.cat_file(url, start=start, end=end))
    if len(data) == size:  # also of a server that knows no ranges
        data = data[start:end]
    if len(data) != end - start:
        raise WrongContent(f"{len(data)} bytes in answer for bytes {start} to {end} of {size}")
    return data


@contextmanager
def _held(file: BinaryIO) -> Iterator[None]:
    """An flock, given back aloud: closing would leave it as long as a process forked meanwhile has a copy of `file`."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _is_at(path: Path, file: BinaryIO) -> bool:
    """Whether an open file still has this name: one that was renamed or removed guards nothing."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _locked(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _removed(path: Path) -> bool:
    """Whether a file of the cache could go: a partial one only if the process that filled it is gone."""
    if path.suffix != ".partial":
        path.unlink(missing_ok=True)
        return True
    with suppress(FileNotFoundError), path.open("r+b") as file:  # it may have got its final name just now
        if _locked(file):  # and removed under the lock, so that nobody claims it in between
            path.unlink()
            return True
    return False


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for entry in os.scandir(folder):
        with suppress(FileNotFoundError):  # renamed or removed at this moment
            if not entry.name.startswith("."):
                yield Path(entry.path), entry.stat()


def _pause(seconds: float, stop: threading.Event | None) -> None:
    if stop is None:
        time.sleep(seconds)
    elif stop.wait(seconds):
        raise Stopped


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data.cache_dir: {folder} cannot be made ({error}); name another folder") from error
    return folder
