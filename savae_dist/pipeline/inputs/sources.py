"""What a path or a URL holds: the files of a folder, and the content of one file, here or behind http."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.error import URLError

MOST = 1 << 30  # bytes that are taken from a URL
PATIENCE = 60.0  # seconds that a server may be silent


def is_url(source: str | Path) -> bool:
    return str(source).startswith(("http://", "https://"))


def files_in(sources: Iterable[str | Path], ends: Sequence[str]) -> list[str | Path]:
    """The sources, with the files of these ends in place of each folder, in the order of their names.

    ValueError where a folder holds none of them.
    """
    found: list[str | Path] = []
    for source in sources:
        if is_url(source) or not Path(source).is_dir():
            found.append(source)
            continue
        inside = sorted(path for path in Path(source).rglob("*") if path.name.lower().endswith(tuple(ends)))
        if not inside:
            raise ValueError(f"{source} holds no {' '.join(ends)} file; name other files")
        found += inside
    return found


def content_of(source: str | Path) -> bytes:
    """The bytes of a file or of what a URL gives; ValueError in one line where they cannot be had."""
    try:
        if not is_url(source):
            return Path(source).read_bytes()
        with urllib.request.urlopen(str(source), timeout=PATIENCE) as answer:
            data: bytes = answer.read(MOST + 1)
    except URLError as error:
        raise ValueError(f"{source} cannot be fetched: {error.reason}") from error
    except OSError as error:
        raise ValueError(f"{source} cannot be read: {error.strerror or error}") from error
    if len(data) > MOST:
        raise ValueError(f"{source} has more than {MOST:,} bytes; fetch it yourself and name the file")
    return data
