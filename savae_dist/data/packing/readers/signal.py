"""One recording, read piece by piece: which arrays of its file are its channels, and what else the file holds."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from savae_dist.errors import BadSample, DataError

DEPTH = 8  # structs and groups inside one another; what lies deeper is told, and not looked at
MANY = 32  # channels; more than these may be segments of one signal
SHOWN = 12  # names in a message


# Errors of the libraries on bytes that are no file of their format, or no complete one.
BROKEN = (
    *(OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)


class Unreadable(BadSample):
    """A recording that cannot be used: its reason in a word or two, by which they are counted, and what was found."""

    def __init__(self, reason: str, found: str) -> None:
        super().__init__(reason)
        self.found = found


def undecodable(error: Exception) -> Unreadable:
    """What a library says of a file, on one line."""
    return Unreadable("undecodable", " ".join(str(error).split()) or type(error).__name__)


@dataclass(frozen=True)
class Choice:
    """What a user has said of files that can be understood in several ways.

    variables: names, patterns with * and ?, or numbers from 1 of the arrays or columns; one after the other the
        channels. Empty: `x`, or all columns of a table that are no clock, or the only array.
    time_axis: which axis of [a, b] is time; `longer`: the longer one, unless the other has over 32 entries.
    irregular_times: what to do where a column of times has steps that differ: refuse, interpolate to equal steps, or
        ignore the times.
    recording: (column, value): only the rows of a table that belong to one recording. aside: columns that tell its
        class, group and the like, so that they are no channels.
    """

    variables: tuple[str, ...] = ()
    time_axis: Literal["longer", "first", "last"] = "longer"
    irregular_times: Literal["refuse", "interpolate", "ignore"] = "refuse"
    recording: tuple[str, str] | None = None
    aside: tuple[str, ...] = ()


class Variable(NamedTuple):
    """An array in a file: its name there, "" if it has none, and its values, which may still lie on the disk."""

    name: str
    values: Any  # an array, or anything with the shape, dtype and slices of one


@dataclass(frozen=True)
class OnDisk:
    """Values that a library reads in pieces, with shape, dtype and slices of the first axis as an array has them."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[int, int], np.ndarray]

    def __getitem__(self, rows: slice | tuple[()]) -> np.ndarray:
        start, stop, _ = (rows if isinstance(rows, slice) else slice(None)).indices(self.shape[0])
        return self.read(start, stop)


class Part(NamedTuple):
    """Some channels of a recording: an array [length], or [length, channels] (time 0), or [channels, length] (time 1).

    A stored integer v means (v - zero) * scale.
    """

    names: tuple[str, ...]
    values: Any
    time: int = 0
    zero: float = 0.0
    scale: float = 1.0

    @property
    def length(self) -> int:
        return int(self.values.shape[self.time])

    def read(self, start: int, stop: int) -> np.ndarray:
        """float64 [channels, stop - start]; Unreadable where the file is damaged there."""
        try:
            x = np.asarray(self.values[start:stop] if self.time == 0 else self.values[:, start:stop], np.float64)
        except BROKEN as error:  # damage may begin anywhere in a file
            raise undecodable(error) from error
        x = x[None] if x.ndim == 1 else x.T if self.time == 0 else x
        return x if (self.zero, self.scale) == (0.0, 1.0) else (x - self.zero) * self.scale


@dataclass
class Signal:
    """One recording: channels of equal length, of which pieces are read; close it, or use it in a `with`.

    rate: in Hz, 0 if the file does not say. left_out: what the file holds besides, each with the reason.
    attributes: what is kept with each window. files: what must stay open while pieces are read.
    """

    parts: Sequence[Part]
    rate: float = 0.0
    left_out: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    files: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        for part in self.parts:
            if part.values.dtype.kind not in "fiub":
                raise Unreadable(f"values of type {part.values.dtype}", ", ".join(part.names))
        if len({part.length for part in self.parts}) != 1:
            raise Unreadable("channels of different length", self._lengths())
        if not np.isfinite(self.rate) or self.rate < 0:
            raise Unreadable("sampling rate", f"it is {self.rate}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.files.close()

    @property
    def length(self) -> int:
        return self.parts[0].length

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts for name in part.names)

    def read(self, start: int, stop: int) -> np.ndarray:
        """float64 [channels, stop - start]."""
        return np.concatenate([part.read(start, stop) for part in self.parts])

    def _lengths(self) -> str:
        return ", ".join(f"{' '.join(part.names) or 'x'} has {part.length}" for part in self.parts)


def deeper(name: str) -> Variable:
    """In place of what lies too deep."""
    return Variable(name, np.empty(0, "V1"))


def part_of(variable: Variable, time_axis: str = "longer") -> Part:
    """The channels of an array of one or two axes; Unreadable where it has others, or might be segments."""
    name, values = variable
    if isinstance(values, np.ndarray) and values.ndim > 1:
        values = values.squeeze() if values.size > 1 and values.ndim > 2 else values
    shape = tuple(values.shape)
    if len(shape) == 1 and shape[0]:
        return Part((name or "x",), values)
    if len(shape) != 2 or 0 in shape:
        raise Unreadable("neither [length] nor [channels, length]", f"{name or 'x'} is {_shown(shape)}")
    time = {"first": 0, "last": 1}.get(time_axis, int(shape[0] <= shape[1]))
    count = shape[1 - time]
    if time_axis == "longer" and count > MANY:
        raise Unreadable(
            "channels or segments", f"{name or 'x'} is {_shown(shape)}; say which axis is time: --time-axis first|last"
        )
    names = (name or "x",) if count == 1 else tuple(f"{name or 'channel '}{i + 1}" for i in range(count))
    return Part(names, values, time)


def chosen(variables: Sequence[Variable], wanted: Sequence[str], stem: str = "") -> list[Variable]:
    """The variables that were asked for, in the order of the asking; without any `x`, or the only one.

    stem: of the file's name. Of several that match one pattern those that bear it as their number or name are taken:
    `*_DE_time` of 99.mat is X099_DE_time, although X098_DE_time is there as well.
    """
    if not variables:
        raise Unreadable("no variable", "it holds no array of numbers with more than one value")
    if not wanted:
        named_x = [one for one in variables if one.name == "x"]
        if not named_x and len(variables) > 1:
            raise Unreadable("several variables", f"name one with --variable; it holds {listing(variables)}")
        return named_x or list(variables)
    found: list[Variable] = []
    for pattern in wanted:
        here = _matching(variables, pattern)
        if not here:
            raise Unreadable(f"no variable {pattern}", f"it holds {listing(variables)}")
        bearing = [one for one in here if len(here) > 1 and stem and _bears(one.name, stem)]
        found += bearing or here
    return found


def not_installed(path: Path, package: str) -> DataError:
    """The error for a file whose reader needs a package of the extra `signals`."""
    return DataError(f"{path}: reading it needs {package}: pip install 'savae-dist[signals]'")


def listing(variables: Sequence[Variable]) -> str:
    """Names, types and shapes, as many as fit on a line."""
    told = [f"{one.name or 'x'} ({one.values.dtype} {_shown(one.values.shape)})" for one in variables[:SHOWN]]
    return ", ".join([*told, f"and {len(variables) - SHOWN} more"] if len(variables) > SHOWN else told)


def not_asked_for(variables: Sequence[Variable], taken: Iterable[Variable]) -> tuple[str, ...]:
    names = {one.name for one in taken}
    return tuple(f"{one.name} (not asked for)" for one in variables if one.name not in names)


def _matching(variables: Sequence[Variable], pattern: str) -> list[Variable]:
    """By name, by pattern, by a last field that only one has, by the only array below a node, by number."""
    wild = re.compile(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."))
    if found := [one for one in variables if wild.fullmatch(one.name)]:
        return found
    fields = [one for one in variables if wild.fullmatch(one.name.rpartition(".")[2])]
    below = [one for one in variables if (match := wild.match(one.name)) and one.name[match.end() :].startswith(".")]
    for found in (fields, below):
        if len(found) == 1:
            return found
        if found:
            raise Unreadable(f"several variables {pattern}", f"it holds {listing(found)}")
    number = int(pattern) if pattern.isdecimal() else 0
    return [variables[number - 1]] if 1 <= number <= len(variables) else []


def _bears(name: str, stem: str) -> bool:
    """Whether a name holds the file's name, or its number with or without leading zeros."""
    if stem in name:
        return True
    return stem.isdecimal() and any(int(digits) == int(stem) for digits in re.findall(r"\d+", name))


def _shown(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape) or "a single value"
