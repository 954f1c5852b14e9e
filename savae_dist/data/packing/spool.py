"""What a source was read into before it is shuffled: one file of equal records per part, on disk and not in memory."""

from __future__ import annotations

import json
import mmap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from savae_dist.data.formats.npy import stored
from savae_dist.data.order.permutation import LABELS, permutation
from savae_dist.data.packing.sources.base import Bad, Item, Note, Sample
from savae_dist.errors import BadSample, DataError
from savae_dist.files import flush, write_json

SHAPE = "shape"  # the reason of a sample that is not as large as the first usable one, or has other channels
OPEN_PARTS = 128  # kept mapped; each takes two file descriptors


@dataclass(frozen=True)
class Form:
    """What all samples of a set share: the stored dtype and shape."""

    dtype: str
    shape: tuple[int, ...]

    def record(self) -> np.dtype:
        return np.dtype([("x", self.dtype, self.shape), ("label", "<i4"), ("at", "<i8"), ("size", "<i4")])


@dataclass(frozen=True)
class Part:
    """What was read from one part. labels: those that occur; a record holds the place of its own in this list, or -1.

    rates: of the samples that name theirs. bad: (reason, name) of each sample that could not be used. notes: topic and
    text of each note, of how many files it was said, and of which first.
    """

    count: int
    labels: list[str | int]
    rates: list[float]
    bad: list[tuple[str, str]]
    notes: list[tuple[str, str, int, str]]

    @classmethod
    def load(cls, path: Path) -> Part:
        return cls(**json.loads(path.read_text()))


def checked(items: Iterator[Item], form: Form | None = None) -> Iterator[Item]:
    """The same items with x as stored; Bad where it is of no use or, given a form, of another one."""
    for number, item in enumerate(items):
        if isinstance(item, Bad | Note):
            yield item
            continue
        try:
            x = stored(item.x)
        except BadSample as error:
            yield Bad(str(error), _name(item, number))
            continue
        if form is None or (x.dtype.name, x.shape) == (form.dtype, form.shape):
            yield item._replace(x=x)
        else:
            reason = SHAPE if x.dtype.name == form.dtype else "dtype"
            found, wanted = (f"{dtype} {list(shape)}" for dtype, shape in ((x.dtype.name, x.shape), astuple(form)))
            yield Bad(reason, f"{_name(item, number)}: {found} and not {wanted}")


def _name(item: Sample, number: int) -> str:
    """By where it comes from, else by its number in its part."""
    names = [str(item.attributes[key]) for key in ("path", "file", "start") if key in item.attributes]
    return " at ".join(names) or f"sample {number}"


def write_part(path: Path, items: Iterator[Item], form: Form) -> None:
    """`path`.records, `path`.attributes and, once they are whole, `path`.json."""
    labels: dict[str | int, int] = {}
    rates: set[float] = set()
    bad: list[tuple[str, str]] = []
    notes: list[Note] = []
    count = at = 0
    with path.with_suffix(".records").open("wb") as records, path.with_suffix(".attributes").open("wb") as attributes:
        for item in checked(items, form):
            if isinstance(item, Bad):
                bad.append(item)
                continue
            if isinstance(item, Note):
                notes.append(item)
                continue
            text = json.dumps(item.attributes, separators=(",", ":")).encode() if item.attributes else b""
            label = -1 if item.label is None else labels.setdefault(item.label, len(labels))
            records.write(item.x.tobytes())
            records.write(np.array([(label, at, len(text))], "<i4,<i8,<i4").tobytes())
            attributes.write(text)
            if "rate" in item.attributes:
                rates.add(item.attributes["rate"])
            at += len(text)
            count += 1
    for file in (records, attributes):
        flush(Path(file.name))
    write_json(path.with_suffix(".json"), asdict(Part(count, list(labels), sorted(rates), bad, counted(notes))))


def counted(notes: Sequence[Note]) -> list[tuple[str, str, int, str]]:
    """Each topic and text once, with how often it was said and of which file first."""
    first = {(note.topic, note.text): note.name for note in reversed(notes)}
    counts = Counter((note.topic, note.text) for note in notes)
    return [(topic, text, n, first[topic, text]) for (topic, text), n in counts.items()]


class Mapped:
    """The values of a file, read as they are looked at."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        with path.open("rb") as file:
            empty = not path.stat().st_size
            self._mapping = None if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.values = np.empty(0, dtype) if self._mapping is None else np.frombuffer(self._mapping, dtype)

    def forget(self) -> None:
        """Give back the memory of what was read: else a file that is larger than the memory would fill it."""
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTNEED)


class Spool:
    """The records of several parts as one sequence.

    parts: (path, count) of each. labels: for each part the class numbers of its `Part.labels`.
    """

    def __init__(self, parts: Sequence[tuple[Path, int]], labels: Sequence[Sequence[int]], form: Form) -> None:
        self.paths, self.form = [path for path, _ in parts], form
        self.labels = [np.array([*numbers, -1], np.int64) for numbers in labels]  # -1 takes the last
        self.ends = np.cumsum([count for _, count in parts])
        self.size = int(self.ends[-1]) if parts else 0
        self.kept: np.ndarray | None = None
        self._open = lru_cache(OPEN_PARTS)(self._map)

    def _map(self, part: int) -> tuple[Mapped, Mapped]:
        records = Mapped(self.paths[part].with_suffix(".records"), self.form.record())
        return records, Mapped(self.paths[part].with_suffix(".attributes"), np.dtype(np.uint8))

    def keep_labels(self, count: int, seed: int) -> None:
        """Leave `count` samples their label, drawn class by class in turn, and none to the others; DataError if fewer.

        Memory: 16 bytes per sample while it chooses, one byte of them stays.
        """
        y = np.concatenate([self.labels[i][self._open(i)[0].values["label"]] for i in range(len(self.paths))])
        shuffled = permutation(self.size, seed, LABELS)
        shuffled = shuffled[y[shuffled] >= 0]
        if len(shuffled) < count:
            raise DataError(f"--labelled {count}: only {len(shuffled)} samples have a label; ask for fewer")
        by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
        _, first, sizes = np.unique(y[by_class], return_index=True, return_counts=True)
        turn = np.arange(len(by_class)) - np.repeat(first, sizes)  # how many of its class come before it
        self.kept = np.zeros(self.size, bool)
        self.kept[by_class[np.argsort(turn, kind="stable")[:count]]] = True

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """x [n, ...], y int64 [n] and the attributes of the rows."""
        x = np.empty((len(rows), *self.form.shape), self.form.dtype)
        y = np.empty(len(rows), np.int64)
        attributes: list[dict[str, Any]] = [{}] * len(rows)
        parts = np.searchsorted(self.ends, rows, side="right")
        for part in np.unique(parts).tolist():
            here = np.flatnonzero(parts == part)
            records, text = self._open(part)
            first = int(self.ends[part]) - len(records.values)
            chosen = records.values[rows[here] - first]
            x[here], y[here] = chosen["x"], self.labels[part][chosen["label"]]
            for i, at, size in zip(here.tolist(), chosen["at"].tolist(), chosen["size"].tolist(), strict=True):
                if size:
                    attributes[i] = json.loads(text.values[at : at + size].tobytes())
            records.forget()
            text.forget()
        if self.kept is not None:
            y[~self.kept[rows]] = -1
        return x, y, attributes
