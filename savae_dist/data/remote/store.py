"""Remote files through fsspec, whole and verified; those of shards in a cache that all processes of a node share."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urlsplit

from savae_dist.config.schema import DataConfig
from savae_dist.config.urls import shown
from savae_dist.data.remote.cache import POLL, Cache, cache_folder, make_folder
from savae_dist.data.remote.retry import Outage, Stopped, TooSlow, WrongContent, pause
from savae_dist.errors import ConfigError, DataError

T = TypeVar("T")
PIECE = 32 << 20  # bytes of one request: what a broken connection costs, and what a download holds in memory
STREAMED = 1 << 18  # bytes that are taken from an answer at once
SLOWEST = 1 << 10  # bytes a second: an answer that comes more slowly is an outage
PARTIAL_CONTENT = 206  # HTTP's status of an answer that holds the range that was asked for


def name_of(url: str) -> str:
    """The last part of a URL's path, without its query."""
    return PurePosixPath(urlsplit(url).path).name


class Store:
    """Opens remote files; those of shards are kept in `folder`, at most `cache_bytes` of them.

    outage_limit: seconds without success before OutageError.

    Any process may download: the training process does so ahead (`prefetch.Ahead`), a worker only what it then finds
    missing. fsspec's filesystems live on a thread that no fork copies, so each process makes its own.
    """

    def __init__(
        self,
        folder: Path | None = None,
        cache_bytes: int = DataConfig.cache_bytes,
        outage_limit: float = DataConfig.outage_limit,
    ) -> None:
        self.folder = (folder or cache_folder()).expanduser().absolute()
        self.cache = Cache(self.folder / "shards", cache_bytes)
        self._filesystems: dict[tuple[int, str], Any] = {}
        self._outage = Outage(outage_limit)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_filesystems": {}}  # connections cannot be pickled; a spawned worker makes its own

    def home(self, identity: str) -> Path:
        """The folder for the index of the set that `identity` names; made where it is not there."""
        return make_folder(self.folder / "index" / hashlib.sha256(identity.encode()).hexdigest()[:16])

    def read(self, url: str, limit: int) -> bytes:
        """A small file; DataError if it has more than `limit` bytes, or does not come within `outage_limit`."""
        data = self._ask(url, partial(_first, url=url, limit=limit + 1, seconds=self._outage.limit))
        if len(data) > limit:
            raise DataError(f"{shown(url)} has more than {limit:,} bytes, which it cannot need; pack the set again")
        return data

    def size(self, url: str) -> int:
        """Bytes of a file of which no index tells."""
        size = self._ask(url, lambda files: files.info(url)["size"])
        if size is None:
            raise DataError(f"{shown(url)}: the server does not tell its size; pack the set, or copy it here")
        return int(size)

    def open(self, url: str, size: int, crc: int | None) -> BinaryIO:
        """The whole file, downloaded if need be: an open one and no path, since the next download may remove that."""
        while True:
            file = self._find_or_claim(url, size, crc)
            if file is not None:
                return file
            time.sleep(POLL)  # somebody else is downloading it

    def fetch(self, url: str, size: int, crc: int | None, stop: threading.Event) -> None:
        """Have a file here, unless somebody else is about to; Stopped once `stop` is set."""
        file = self._find_or_claim(url, size, crc, stop)
        if file is not None:
            file.close()

    def path(self, url: str, size: int, crc: int | None) -> Path:
        """The path of a file in the cache."""
        return self.cache.path(_kept_as(url, size, crc))

    def touch(self, url: str, size: int, crc: int | None) -> None:
        """Mark a file as used, if it is here."""
        self.cache.touch(_kept_as(url, size, crc))

    def verified(self, url: str, size: int, crc: int) -> None:
        """A file opened without a crc was read and is whole: keep it in the cache under its crc."""
        self.cache.rename(_kept_as(url, size, None), _kept_as(url, size, crc))

    def _find_or_claim(
        self, url: str, size: int, crc: int | None, stop: threading.Event | None = None
    ) -> BinaryIO | None:
        if size > self.cache.limit:
            raise ConfigError(f"data.cache_bytes={self.cache.limit} cannot hold {shown(url)} of {size} bytes; raise it")
        name = _kept_as(url, size, crc)
        return self.cache.find(name, size) or self.cache.claim(
            name, size, partial(self._fill, url=url, size=size, crc=crc, stop=stop), stop
        )

    def _fill(self, file: BinaryIO, *, url: str, size: int, crc: int | None, stop: threading.Event | None) -> None:
        """Download piece by piece, so that a connection that breaks costs one piece."""
        for _ in range(WrongContent.TRIES):
            found = 0
            file.seek(0)
            for start in range(0, size, PIECE):
                wanted = range(start, min(start + PIECE, size))
                seconds = self._outage.limit
                data = self._ask(url, partial(_piece, url=url, wanted=wanted, size=size, seconds=seconds), stop)
                found = zlib.crc32(data, found)
                file.write(data)
            if crc in (None, found):
                return
        raise DataError(
            f"{shown(url)} has the crc32 {found:08x}, its index says {crc:08x}: upload it again, "
            f"or, if it was changed on purpose, index it again (its index may also lie in {self.folder / 'index'})"
        )

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
                pause(trial.failed(error), stop)
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
                options |= _one_attempt(protocol, fsspec.config.conf.get(protocol, {}))
                files = fsspec.filesystem(protocol, **options)
                if protocol in ("s3", "s3a"):
                    files.retries = 1
                self._filesystems[key] = files
            except ImportError as error:
                raise ConfigError(
                    f"{protocol}:// needs a package that is not here ({error}): pip install savae-dist[remote]"
                ) from error
            except ValueError as error:
                raise ConfigError(f"{shown(url)}: {error}; s3, gs, http, https and hf are known") from error
        return self._filesystems[key]


def _one_attempt(protocol: str, configured: dict[str, Any]) -> dict[str, Any]:
    """Options by which a filesystem soon says what is wrong: how long to go on asking is decided here for all."""
    if protocol in ("http", "https"):
        from aiohttp import ClientTimeout

        # aiohttp's own limit, five minutes for all, would end a slow download and wait long for a dead one.
        timeout = ClientTimeout(total=None, sock_connect=10, sock_read=30)
        return {"client_kwargs": {"timeout": timeout, **configured.get("client_kwargs", {})}}
    if protocol in ("s3", "s3a"):  # botocore and s3fs, one inside the other, would be silent for half a minute
        return {"config_kwargs": {"retries": {"total_max_attempts": 1}, **configured.get("config_kwargs", {})}}
    return {}


def _kept_as(url: str, size: int, crc: int | None) -> str:
    """The name of a file in the cache. What is known by its crc needs no query: that may be a signature."""
    identity = f"{url if crc is None else shown(url)} {size} {crc}"
    return f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}-{name_of(url)[-100:]}"


def _first(files: Any, *, url: str, limit: int, seconds: float) -> bytes:
    """The file, or its first `limit` bytes."""
    if not _is_web(url):
        return _asked(files, url, range(limit), seconds)
    with files.open(url, "rb", block_size=0, size=limit) as file:
        return _streamed(file, limit, seconds)


def _piece(files: Any, *, url: str, wanted: range, size: int, seconds: float) -> bytes:
    """These bytes of a file of `size`; WrongContent if the answer is longer or shorter."""
    if _is_web(url):
        headers = {**files.kwargs.get("headers", {}), "Range": f"bytes={wanted.start}-{wanted.stop - 1}"}
        with files.open(url, "rb", block_size=0, size=size, headers=headers) as file:
            knows_ranges = file.r.status == PARTIAL_CONTENT
            before = 0 if knows_ranges else wanted.start
            more = knows_ranges or wanted.stop == size  # whether a longer answer is a wrong one
            data = _streamed(file, before + len(wanted) + more, seconds)[before:]
    else:
        data = _asked(files, url, wanted, seconds)
    if len(data) != len(wanted):
        raise WrongContent(f"{len(data)} bytes in answer for bytes {wanted.start} to {wanted.stop} of {size}")
    return data


def _is_web(url: str) -> bool:
    """Whether the server may be any: it may not know ranges, and may send without end or ever more slowly."""
    return urlsplit(url).scheme in ("http", "https")


def _streamed(file: Any, limit: int, seconds: float) -> bytes:
    """At most `limit` bytes of an answer; TooSlow if they have not come after `seconds` and their size / SLOWEST."""
    data, began = bytearray(), time.monotonic()
    while len(data) < limit and (part := file.read(min(limit - len(data), STREAMED))):
        data += part
        passed = time.monotonic() - began
        if passed > seconds + len(data) / SLOWEST:
            raise TooSlow(len(data), passed)
    return bytes(data)


def _asked(files: Any, url: str, wanted: range, seconds: float) -> bytes:
    """These bytes of a store that knows ranges."""
    from fsspec.asyn import AsyncFileSystem, sync

    if not isinstance(files, AsyncFileSystem):
        return bytes(files.cat_file(url, start=wanted.start, end=wanted.stop))
    allowed, began = seconds + len(wanted) / SLOWEST, time.monotonic()
    try:
        return bytes(sync(files.loop, files._cat_file, url, start=wanted.start, end=wanted.stop, timeout=allowed))
    except TimeoutError as error:
        passed = time.monotonic() - began
        raise TooSlow(0, passed) if passed >= allowed else error from None
