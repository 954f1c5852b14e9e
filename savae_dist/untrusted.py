"""JSON of files that may be damaged or hostile: read within bounds, then checked field by field.

A check takes a value and raises `Misfit` where a field cannot have it; `record`, `table` and `listed` make checks of
whole objects out of those of their parts. Who reads a file says which error a misfit becomes.
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from savae_dist.errors import UserError

Check = Callable[[Any], None]

SIZE = 16 << 20  # bytes of a file; parsed, they take some twenty times as much memory
DEPTH = 32  # objects and lists inside one another
MANY = 1 << 20  # entries of a list or an object


class Misfit(ValueError):
    """What a file or one of its fields is, and what it may be; `where` is the way to that field."""

    def __init__(self, text: str, where: str = "") -> None:
        super().__init__(f"{where.lstrip('.')} {text}".strip())
        self.text, self.where = text, where

    def inside(self, step: str) -> Misfit:
        """The same, seen from the object or list that holds the field."""
        return Misfit(self.text, step + self.where)


def read_object(path: Path, error: type[UserError], advice: str, size: int = SIZE) -> dict[str, Any]:
    """The JSON object in a file of at most `size` bytes; `error` in one line that ends with the advice."""
    try:
        return parse(content(path, size))
    except (OSError, Misfit) as fault:
        raise error(f"{path} cannot be read: {reason(fault)}; {advice}") from fault


def check(values: Any, rule: Check, where: object, error: type[UserError], advice: str) -> None:
    """`error` in one line that names the field, its value and what it may be; `where`: the file."""
    try:
        rule(values)
    except Misfit as fault:
        raise error(f"{where}: {fault}; {advice}") from fault


def regular(path: Path) -> int:
    """The size of a regular file; Misfit if it is none: a pipe would wait for ever, and a device may have no end."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise Misfit("it is no regular file")
    return found.st_size


def version_of(info: os.stat_result) -> tuple[int, int, int]:
    """What changes when a file is written, or another takes its name."""
    return info.st_ino, info.st_size, info.st_mtime_ns


def content(path: Path, size: int) -> bytes:
    """The bytes of a file; Misfit if they are more than `size`."""
    there = regular(path)
    with path.open("rb") as file:
        data = file.read(min(there, size) + 1)
    if len(data) > size:
        raise Misfit(f"it has more than {size:,} bytes")
    return data


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in these bytes; Misfit if there is none, or if it names a key twice or is nested too deeply."""
    try:
        values = json.loads(data.decode(), object_pairs_hook=_once)
    except Misfit:
        raise
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise Misfit(f"it is no JSON ({error})") from error
    except RecursionError as error:
        raise Misfit(f"it is nested deeper than {DEPTH}") from error
    if not isinstance(values, dict):
        raise Misfit("it holds no JSON object")
    level: list[Any] = [values]
    for _ in range(DEPTH):
        level = [part for one in level for part in _parts(one)]
    if level:
        raise Misfit(f"it is nested deeper than {DEPTH}")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise Misfit(f"it names {shown(next(name for name in values if names.count(name) > 1))} twice")
    return values


def _parts(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [part for part in inner if isinstance(part, dict | list)]


def reason(error: Exception) -> str:
    """An error in the words of its first line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return next(iter(text.splitlines()), type(error).__name__)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def shown(value: Any) -> str:
    """A value as messages may show it: short, and on one line."""
    return _short.repr(value)


# Checks.


def anything(value: Any) -> None:
    """Whatever JSON can hold."""


def whole(least: int = 0, most: int = sys.maxsize) -> Check:
    """A whole number; true and false are none."""

    def rule(value: Any) -> None:
        if type(value) is not int or not least <= value <= most:
            raise Misfit(f"is {shown(value)}, not a whole number from {least:,} to {most:,}")

    return rule


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """A finite number."""

    def rule(value: Any) -> None:
        fits = type(value) in (int, float) and max(least, -sys.float_info.max) <= value
        if not fits or not value <= min(most, sys.float_info.max):
            raise Misfit(f"is {shown(value)}, not a number from {least:g} to {most:g}")

    return rule


def text(most: int = 1000, pattern: str = "", what: str = "") -> Check:
    """A text of at most `most` characters that matches the pattern; `what` is the pattern in words."""
    form = re.compile(pattern or r".*", re.DOTALL | re.ASCII)

    def rule(value: Any) -> None:
        if not isinstance(value, str) or len(value) > most or form.fullmatch(value) is None:
            raise Misfit(f"is {shown(value)}, not {what or 'a text'} of at most {most:,} characters")

    return rule


def path_text(value: Any) -> None:
    """A text that the system takes for a path or a URL."""
    text()(value)
    try:
        encoded = os.fsencode(value)
    except UnicodeEncodeError as error:
        raise Misfit(f"is {shown(value)}, not a path") from error
    if not value or "\0" in value or max(map(len, encoded.split(b"/"))) > 250:
        raise Misfit(f"is {shown(value)}, not a path")


def flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise Misfit(f"is {shown(value)}, not true or false")


def one_of(*values: Any) -> Check:
    """One of these texts or numbers."""

    def rule(value: Any) -> None:
        if not any(type(value) is type(one) and value == one for one in values):
            raise Misfit(f"is {shown(value)}, not {' or '.join(map(str, values))}")

    return rule


def nullable(rule: Check) -> Check:
    """null, or what fits the rule."""
    return lambda value: None if value is None else rule(value)


def listed(each: Check, least: int = 0, most: int = MANY) -> Check:
    """A list whose entries all fit `each`."""

    def rule(value: Any) -> None:
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            length = f"a list of {len(value):,}" if isinstance(value, list | tuple) else shown(value)
            raise Misfit(f"is {length}, not a list of {least:,} to {most:,}")
        for position, entry in enumerate(value):
            try:
                each(entry)
            except Misfit as fault:
                raise fault.inside(f"[{position}]") from fault

    return rule


def table(each: Check, keys: Check = anything, most: int = MANY) -> Check:
    """An object with keys of its own, whose values all fit `each`."""

    def rule(value: Any) -> None:
        if not isinstance(value, dict) or len(value) > most:
            raise Misfit(f"is {shown(value)}, not an object of at most {most:,} entries")
        for key, entry in value.items():
            try:
                keys(key)
            except Misfit as fault:
                raise Misfit(f"has a key that {fault.text}") from fault
            try:
                each(entry)
            except Misfit as fault:
                raise fault.inside(f"[{shown(key)}]") from fault

    return rule


def record(fields: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object that has all of `fields`, and perhaps the optional ones; other keys are passed over."""

    def rule(value: Any) -> None:
        if not isinstance(value, dict):
            raise Misfit(f"is {shown(value)}, not an object")
        for key, each in {**fields, **(optional or {})}.items():
            if key in value:
                try:
                    each(value[key])
                except Misfit as fault:
                    raise fault.inside(f".{key}") from fault
            elif key in fields:
                raise Misfit(f"has no {key}")

    return rule
