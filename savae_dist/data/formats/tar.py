"""The members of a tar, whole or not: damage costs what it hits and is told, and nothing is ever unpacked.

tarfile ends at the first header that is damaged as if the tar ended there, and some headers let it run for ever.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from savae_dist.errors import DataError

BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 20
WINDOW = 1 << 14  # bytes that are read at once where few are wanted: small members and their headers lie side by side
MAX_EXTRA = 1 << 20  # bytes of a long name or of extended attributes
WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
PAX_RECORD = re.compile(rb"(\d{1,9}) ([^=\n]{1,99})=")
COMMENTS = (tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE)
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK": "zip",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
}


class Tar:
    """The bytes of a shard, sliced as `bytes` are, and read rather than mapped: a mapped file that is cut short
    meanwhile ends the program. Within the size that it had when it was opened; DataError where that is not there.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path, self._file = path, file
        self._size = os.fstat(file.fileno()).st_size
        self._near, self._start = b"", 0  # the window that was read last, and where it begins

    def __enter__(self) -> Tar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        if stop - start > WINDOW:
            return self._read(start, stop)
        if start < self._start or stop > self._start + len(self._near):
            self._look_at(start)
        return self._near[start - self._start : stop - self._start]

    def find(self, mark: bytes, start: int) -> int:
        """Where these bytes stand first, from `start` on; -1 if nowhere."""
        while start < self._size:
            if not self._start <= start <= self._start + len(self._near) - len(mark):
                self._look_at(start)
            found = self._near.find(mark, start - self._start)
            if found >= 0:
                return self._start + found
            start = self._start + len(self._near) - (len(mark) - 1 if len(self._near) == WINDOW else 0)
        return -1

    def _look_at(self, start: int) -> None:
        self._near, self._start = self._read(start, min(start + WINDOW, self._size)), start

    def _read(self, start: int, stop: int) -> bytes:
        try:
            content = os.pread(self._file.fileno(), stop - start, start)
        except OSError as error:
            raise unreadable_shard(self.path, error) from error
        if len(content) < stop - start:
            size = os.fstat(self._file.fileno()).st_size
            raise DataError(
                f"shard {self.path} was cut short while it was read (from {self._size:,} to {size:,} bytes); "
                "bring it back, or make it again"
            )
        return content


class Entry(NamedTuple):
    """A file of a tar; with a fault (header, truncated, not a file) what can be told of something else."""

    name: str
    offset: int
    size: int
    fault: str = ""


class Extra(NamedTuple):
    """Long names and extended attributes that precede a member's header and apply to it."""

    name: str = ""
    size: int = -1
    fault: str = ""


def open_tar(path: Path) -> Tar:
    """A tar, to be closed after use; DataError unless it begins as one (or is empty)."""
    try:
        data = Tar(path.open("rb"), path)
    except OSError as error:
        raise unreadable_shard(path, error) from error
    _check(path, data[:BLOCK])
    return data


def unreadable_shard(path: Path, error: Exception) -> DataError:
    return DataError(f"shard {path} cannot be read ({error}); bring it back, or make it again")


def _check(path: Path, head: bytes) -> None:
    if not any(head) or _header(head) is not None:
        return
    for magic, name in COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(f"{path} is compressed ({name}); unpack it first: samples are read by their place in a tar")
    raise DataError(f"{path} is no tar: it does not begin with a header; make or copy it again")


def ends(data: Tar) -> bool:
    """Whether the end is marked by an empty block; a tar without was cut short, or its writer was."""
    return len(data) >= BLOCK and not any(data[-BLOCK:])


def walk(data: Tar) -> Iterator[Entry]:
    """The files in their order; directories and comments are passed over, and so are empty blocks between tars.

    After a damaged header it goes on at the next whole one, so that only what lies between is lost.
    """
    at: int | None = 0
    extra = Extra()
    while at is not None and (at := _next_block(data, at)) is not None:
        head = data[at : at + BLOCK]
        info = _header(head)
        if info is None:
            yield Entry(_guess(head) or extra.name, at, 0, "header" if len(head) == BLOCK else "truncated")
            at, extra = _resume(data, at + 1), Extra()
            continue
        start = at + BLOCK
        describes = info.type in (tarfile.GNUTYPE_LONGNAME, *PAX)
        size = info.size if describes or extra.size < 0 else extra.size
        end = start if info.type in WITHOUT_DATA else start + size
        whole = end <= len(data)
        if describes and whole:
            extra = _extra(info.type, data[start : min(end, start + MAX_EXTRA)], extra)
        elif info.type not in COMMENTS or not whole:
            fault = extra.fault or ("" if info.type in FILES else "not a file")
            if info.type != tarfile.DIRTYPE:
                yield Entry(extra.name or info.name, start, size, fault if whole else "truncated")
            extra = Extra()
        at = start + -(-(end - start) // BLOCK) * BLOCK if whole else _resume(data, start)


def _header(head: bytes) -> tarfile.TarInfo | None:
    try:
        info = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None
    return info if info.size >= 0 else None


def _extra(kind: bytes, content: bytes, extra: Extra) -> Extra:
    """What a long name or extended attributes say of the next member, added to what is known of it."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return extra._replace(name=_text(content.partition(b"\0")[0]))
    content, at = content.rstrip(b"\0"), 0
    while at < len(content):
        match = PAX_RECORD.match(content, at)
        if match is None or not match.end() < at + int(match[1]) <= len(content):
            return extra._replace(fault="header")
        at += int(match[1])
        value = content[match.end() : at - 1]
        if match[2] == b"path":
            extra = extra._replace(name=_text(value))
        elif match[2] == b"size":
            number = re.fullmatch(rb"\d{1,18}", value)
            extra = extra._replace(size=int(value)) if number else extra._replace(fault="header")
        elif match[2].startswith(b"GNU.sparse."):
            extra = extra._replace(fault="not a file")
    return extra


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _guess(head: bytes) -> str:
    """The name in a damaged header, if it still looks like one."""
    name = head[:100].partition(b"\0")[0]
    whole = len(name) < min(len(head), 100)
    return name.decode("ascii") if whole and re.fullmatch(rb"[!-~][ -~]*", name) else ""


def _next_block(data: Tar, at: int) -> int | None:
    """Offset of the first non-empty block from `at` on."""
    if any(data[at : at + 16]):
        return at
    while at < len(data):
        chunk = data[at : at + CHUNK]
        rest = chunk.lstrip(b"\0")
        if rest:
            return at + (len(chunk) - len(rest)) // BLOCK * BLOCK
        at += CHUNK
    return None


def _resume(data: Tar, at: int) -> int | None:
    """Offset of the next whole header, at any byte; headers older than POSIX have no magic number to search for."""
    while (mark := data.find(b"ustar", at + 257)) >= 0:
        at = mark - 257
        if _header(data[at : at + BLOCK]) is not None:
            return at
        at += 1
    return None
