"""URLs as messages may show them."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Whether this is a URL of fsspec's; `file://` is none, since what is here already is never copied."""
    return isinstance(source, str) and re.match(r"(?!file:)[A-Za-z][\w+.-]*://", source) is not None


def shown(url: str) -> str:
    """A URL without password and without query, which may be a signature."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def shown_value(value: object) -> object:
    """A key's value without the secrets of the URLs in it."""
    if isinstance(value, list | tuple):
        return [shown_value(one) for one in value]
    return shown(value) if isinstance(value, str) and is_remote(value) else value
