"""What every source gives to the packer: parts that can be read one by one, and their samples as iterators."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from savae_dist.errors import DataError
from savae_dist.origin import Origin

Label = int | str | None


class Sample(NamedTuple):
    """x: uint8 [h, w(, c)] or float32 [(channels,) length]. label: class number, class name or None (unlabelled).

    attributes: what is kept with the sample in its KEY.json.
    """

    x: np.ndarray
    label: Label
    attributes: dict[str, Any]


class Bad(NamedTuple):
    """A sample that cannot be used: it is counted by its reason, named and left out."""

    reason: str
    name: str


class Note(NamedTuple):
    """What a person should know of what was read: notes of one topic and text are counted and shown in the summary.

    name: of the file that it is said of, "" if it is said of the whole source.
    """

    topic: str
    text: str
    name: str


Item = Sample | Bad | Note


@dataclass(frozen=True)
class Source:
    """read(part): the samples of a part, the same ones in the same order each time; one at a time, never all.

    splits: for each part the set that it goes to (`train`, `validation`, `test`), "" where there is one set only.
    identity: digest of all that the samples depend on; with another one, half-done work is not continued.
    class_names: in the order of the labels; empty: sorted names as they are found, or numbers.
    notes: what is to be told of the source as a whole. labels: those that its files have, where they are known before
    they are read: a class of which no sample can be used is then told.
    origin: how files become samples; None: they are only decoded.
    """

    read: Callable[[int], Iterator[Item]]
    splits: tuple[str, ...]
    identity: str
    class_names: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    labels: frozenset[str | int] = frozenset()
    origin: Origin | None = None


def grouped(name: str) -> dict[str, Any]:
    """The attribute by which a run may keep a group together (`data.hold_out_by`); none where there is no group."""
    return {"group": name} if name else {}


def identity(options: dict[str, Any], files: Iterable[str | os.PathLike[str]]) -> str:
    """Digest of the options and of the names, sizes and times of the files."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    for file in files:
        try:
            status = os.stat(file)
            digest.update(f"{os.fspath(file)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except FileNotFoundError:
            digest.update(f"{os.fspath(file)}\0missing\n".encode())
    return digest.hexdigest()


def as_label(value: object) -> Label:
    """A value of a file as a label: numbers are class numbers, text is a class name, -1 and nothing are unlabelled."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value.strip() if value.strip() not in ("", "-1") else None
    if isinstance(value, int | float) and math.isfinite(value) and value == int(value) and value >= -1:
        return int(value) if value >= 0 else None
    raise DataError(f"the label {value!r} is no class; give integers from 0, names, or -1 where unlabelled")


def resolve(found: Iterable[str | int], names: tuple[str, ...]) -> tuple[dict[str | int, int], tuple[str, ...]]:
    """Class number of every label that was found, and the class names; without names given, sorted ones.

    Text that is a number counts as that number where all labels are numbers: a CSV does not tell them apart.
    """
    labels = list(found)
    as_number = {label: int(label) for label in labels if isinstance(label, int) or re.fullmatch(r"0|[1-9]\d*", label)}
    if not names and len(as_number) == len(labels):
        return as_number, ()
    names = names or tuple(sorted({str(label) for label in labels}))
    # A number is a name where it stands among the names: "3" of folders 3, 5 and 8 is class 0.
    numbers_of = {name: number for number, name in enumerate(names)}
    result = {}
    for label in labels:
        number = numbers_of.get(label) if isinstance(label, str) else label
        number = as_number.get(label) if number is None else number
        if number is None or number >= len(names):
            shown = ", ".join(names[:20])
            raise DataError(f"the label {label!r} is not among the classes {shown}; correct it or --class-names")
        result[label] = number
    return result, names


def by_name(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted; by value where all are numbers, so that 10 comes after 9."""
    found = set(names)
    if all(name.isdecimal() for name in found):
        return tuple(sorted(found, key=lambda name: (int(name), name)))
    return tuple(sorted(found))


def read_table(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a CSV with a header, by column name; DataError where a needed column is not there."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); its first line is {','.join(needed)}") from error
    if not set(needed) <= set(columns) or not rows:
        raise DataError(f"{path} has the columns {','.join(columns)} and {len(rows)} rows; it needs {','.join(needed)}")
    if len(set(columns)) != len(columns):
        raise DataError(f"{path} has a column twice: {','.join(columns)}; rename one")
    for number, row in enumerate(rows, start=2):
        if any(value is None for value in row.values()) or None in row:
            raise DataError(f"{path}, row {number}: not {len(columns)} cells; quote commas that stand in a cell")
    return [{name: value.strip() for name, value in row.items()} for row in rows]
