"""Arrays: `.npz`, `.npy` and the idx files of MNIST, plain or compressed, read row by row."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from savae_dist.data.formats.axes import Kind, Reading, read_axes
from savae_dist.data.formats.npy import as_stored
from savae_dist.data.packing.array_files import HINT, UNREADABLE, load_array, open_rows, read_exactly, unreadable
from savae_dist.data.packing.sources.base import Bad, Item, Label, Note, Sample, Source, as_label, grouped, identity
from savae_dist.data.packing.splits import Splits, as_set, sets_of
from savae_dist.errors import BadSample, ConfigError, DataError
from savae_dist.origin import PictureFiles

Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...]]
ROWS = 8192  # rows per part
# Set, samples and labels as Keras and MedMNIST call them.
SETS = (
    ("train", "x_train", "y_train"),
    ("test", "x_test", "y_test"),
    ("train", "train_images", "train_labels"),
    ("validation", "val_images", "val_labels"),
    ("test", "test_images", "test_labels"),
)


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """An `.npz` with `x`, `y` (missing: all unlabelled) and `class_names` (optional), as arrays in memory.

    x: uint8 or bool images [n, h, w(, c)], or float or int16 windows [n, (channels,) length].
    """
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is missing or not an .npz; {HINT}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("x", "y", "class_names") if name in archive}
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if "x" not in arrays or arrays["x"].ndim == 0:
        raise DataError(f"{path} holds no array x; {HINT}")
    try:
        x = as_stored(arrays["x"])
    except BadSample as error:
        raise DataError(
            f"{path}: x is {arrays['x'].dtype}; give uint8 or bool images, or float or int16 windows"
        ) from error
    y = arrays.get("y", np.full(len(x), -1))
    if y.dtype.kind == "f" and np.isfinite(y).all() and (y == np.round(y)).all():
        y = y.astype(np.int64)
    return x, y, tuple(str(name) for name in arrays.get("class_names", np.empty(0, str)).ravel())


def read_digits() -> Arrays:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries, 0..16 scaled to 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return x, digits.target.astype(np.int64), tuple(str(name) for name in digits.target_names)


@dataclass(frozen=True)
class Meant:
    """Which arrays of an `.npz` are meant, and how their samples are understood.

    x, y, group: names; "": `x` and `y`, or the sets of Keras (`x_train`, `y_train`, ...) and MedMNIST (`train_images`,
    ...). group: what goes to one set, one value a sample (of an `.npy` or idx file: a file `.npy`); without it each
    sample is on its own. kind, limits: see `axes.read_axes`. An array `split` names the set of each sample.
    """

    x: str = ""
    y: str = ""
    group: str = ""
    kind: Kind = ""
    limits: tuple[float, float] | None = None

    def sets(self, held: Collection[str], path: Path) -> list[tuple[str, str, str]]:
        """Set, name of the samples and name of the labels ("": unlabelled); DataError where they are not there."""
        found = [(split, x, y if y in held else "") for split, x, y in SETS if x in held]
        if found and not self.x and "x" not in held:
            if self.group:
                raise ConfigError(f"{path} names its sets itself; leave --group-by away, or name one array with --x")
            return found
        x, y = self.x or "x", self.y or ("y" if "y" in held else "")
        for option, name in (("x", x), ("y", y or x), ("group-by", self.group or x)):
            if name not in held:
                there = ", ".join(held) or "nothing"
                raise DataError(f"{path} holds no array {name}, but {there}; name one with --{option}, or {HINT}")
        return [("", x, y)]


class Rows(NamedTuple):
    """Some rows of an array in a file, which go to one set. groups: of each row, empty where there are none."""

    path: Path
    member: str
    rows: np.ndarray
    labels: list[Label]
    groups: list[str]
    split: str


class Table(NamedTuple):
    """An array of samples with what is said of each of them.

    origin: of the labels, in words. named: the set of all of them, or one for each, "" where the file names none.
    """

    member: str
    labels: np.ndarray | None
    origin: str
    named: str | list[str] = ""
    groups: np.ndarray | None = None


def arrays(
    path: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    meant: Meant | None = None,
    splits: Splits | None = None,
) -> Source:
    """An `.npz` with `x`, `y` and `class_names` (both optional), or an `.npy`; `labels`: an `.npy` in place of `y`."""
    path, meant = Path(path).absolute(), meant or Meant()
    given = None if labels is None else load_array(Path(labels))
    if path.suffix.lower() == ".npy":
        return _source(path, [Table("", given, _file(labels), groups=_beside(meant))], meant, splits or Splits())
    if not zipfile.is_zipfile(path):
        what = f"it ends in {path.suffix or 'nothing'}" if path.exists() else "it does not exist"
        raise DataError(f"{path} is missing or not an .npz ({what}); {HINT}")
    with np.load(path, allow_pickle=False) as archive:
        held = archive.files
    sets = meant.sets(held, path)
    names = tuple(str(name) for name in load_array(path, "class_names").ravel()) if "class_names" in held else ()
    own = "split" in held and len(sets) == 1
    unused = set(held) - {"class_names", meant.group} - {name for _, x, y in sets for name in (x, y)}
    unused -= {"split"} if own else set()
    notes = [Note("passed over", f"arrays {', '.join(sorted(unused))} of {path.name}", "")] if unused else []
    tables = [
        Table(
            x,
            given if given is not None else load_array(path, y) if y else None,
            _file(labels) or (f"the array {y}" if y else ""),
            [as_set(str(name)) for name in load_array(path, "split").ravel()] if own else split,
            load_array(path, meant.group) if meant.group else None,
        )
        for split, x, y in sets
    ]
    return _source(path, tables, meant, splits or Splits(), names, notes)


def idx(
    path: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    meant: Meant | None = None,
    splits: Splits | None = None,
) -> Source:
    """An idx file (`train-images-idx3-ubyte`, also `.gz`); labels: by default the `labels-idx1` file beside it."""
    path, meant = Path(path).absolute(), meant or Meant()
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels is None and beside != path and beside.exists():
        labels = beside
    y = None
    if labels is not None:
        with ExitStack() as stack:
            file, dtype, shape = open_rows(Path(labels), "", stack)
            y = np.frombuffer(read_exactly(file, int(np.prod(shape)) * dtype.itemsize, labels), dtype).reshape(shape)
    return _source(path, [Table("", y, _file(labels), groups=_beside(meant))], meant, splits or Splits())


def _file(labels: str | os.PathLike[str] | None) -> str:
    """The file of labels, in words."""
    return "" if labels is None else Path(labels).name


def _beside(meant: Meant) -> np.ndarray | None:
    """The groups of samples whose own file holds nothing else."""
    return load_array(Path(meant.group)) if meant.group else None


def _source(
    path: Path,
    tables: Sequence[Table],
    meant: Meant,
    splits: Splits,
    names: tuple[str, ...] = (),
    notes: Sequence[Note] = (),
) -> Source:
    parts: list[Rows] = []
    told = list(notes)
    readings = {}
    for table in tables:
        member = table.member
        with ExitStack() as stack:
            file, dtype, shape = open_rows(path, member, stack)
        if not shape:
            raise DataError(f"{path}: {member or 'x'} is a single {dtype}; give one sample a row")
        readings[member] = _reading(path, member, dtype, shape[1:], meant)
        labels, how = labels_of(table.labels, shape[0], path)
        sets, groups, divided = _sets(path, table, labels, meant, splits)
        named = f"{table.named}: {member}" if table.named and isinstance(table.named, str) else ""
        told += [Note("understood", text, "") for text in (readings[member].told, how, named) if text]
        told += [Note("labels from", table.origin or "nowhere", "")]
        told += divided
        whole = path.suffix in (".gz", ".npz") or isinstance(file, io.BytesIO)  # it opens only from its start
        parts += _parts(path, member, labels, groups, sets, max(shape[0], 1) if whole else ROWS)
    options = {
        "source": "arrays",
        "meant": meant,
        "parts": [(p.member, p.split, sha256(p.rows.tobytes()).hexdigest(), p.labels, p.groups) for p in parts],
    }
    read = partial(_read_rows, parts, readings)
    found = frozenset(label for part in parts for label in part.labels if label is not None)
    origin = PictureFiles(range=meant.limits) if meant.limits else None
    return Source(read, tuple(p.split for p in parts), identity(options, [path]), names, tuple(told), found, origin)


def labels_of(y: np.ndarray | None, count: int, path: Path) -> tuple[list[Label], str]:
    """The label of each of `count` samples, and in words what was done to find it.

    y: [count], or [count, 1], or one-hot [count, classes].
    """
    if y is None:
        return [None] * count, ""
    how = ""
    if y.shape == (count, 1):
        y = y[:, 0]
    elif y.ndim == 2 and len(y) == count and count and y.shape[1] > 1:
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise DataError(
                f"{path}: y is {y.shape} and not one-hot; several labels a sample are no classes: choose one"
            )
        how, y = f"labels are one-hot, {y.shape[1]} classes", y.argmax(axis=1)
    if y.shape != (count,):
        raise DataError(f"{path}: y is {y.shape}; give one label per sample of x ({count}), -1 where unlabelled")
    return [as_label(label) for label in y.tolist()], how


def _reading(path: Path, member: str, dtype: np.dtype, shape: tuple[int, ...], meant: Meant) -> Reading:
    try:
        return read_axes(dtype, shape, meant.kind, meant.limits)
    except ConfigError as error:
        raise DataError(f"{path}, {member or 'x'}: {error}") from error


def _sets(
    path: Path, table: Table, labels: Sequence[Label], meant: Meant, splits: Splits
) -> tuple[np.ndarray, list[str], list[Note]]:
    """The set of each row, its group (none where they have none), and how they were divided, in words."""
    count = len(labels)
    given = [table.named] * count if isinstance(table.named, str) else table.named
    groups = [] if table.groups is None else [str(group) for group in table.groups.ravel().tolist()]
    for option, values in ((f"--group-by {meant.group}", groups or [""] * count), ("split", given)):
        if len(values) != count:
            raise DataError(f"{path}: {option} has {len(values)} values, and there are {count} samples")
    by = meant.group or "sample"
    sets, told = sets_of(groups or [str(i) for i in range(count)], given, labels, splits, by)
    # Do not repeat the names of sets: for a file of several sets they have been reported already.
    already = isinstance(table.named, str) and table.named
    return np.array(sets, dtype="<U10"), groups, [] if already else told


def _parts(path: Path, member: str, labels: list[Label], groups: list[str], sets: np.ndarray, step: int) -> list[Rows]:
    """Rows of one set each, `step` rows of the file at most."""
    parts = []
    for split in dict.fromkeys(sets.tolist()) or [""]:
        for start in range(0, max(len(sets), 1), step):
            rows = start + np.flatnonzero(sets[start : start + step] == split)
            if len(rows) or not len(sets):
                own = [labels[row] for row in rows.tolist()]
                parts.append(Rows(path, member, rows, own, [groups[row] for row in rows.tolist() if groups], split))
    return parts


def _read_rows(parts: Sequence[Rows], readings: dict[str, Reading], part: int) -> Iterator[Item]:
    path, member, rows, labels, groups, _ = parts[part]
    apply, at = readings[member].apply, 0
    with ExitStack() as stack:
        file, dtype, shape = open_rows(path, member, stack)
        size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        for row, label, group in zip(rows.tolist(), labels, groups or [""] * len(labels), strict=True):
            if row > at:
                file.seek((row - at) * size, os.SEEK_CUR)
            at = row + 1
            x = np.frombuffer(read_exactly(file, size, path), dtype).reshape(shape[1:])
            try:
                yield Sample(apply(x), label, grouped(group))
            except BadSample as error:
                found = f": from {x.min():g} to {x.max():g}; --range LOW,HIGH" * (str(error) == "range")
                yield Bad(str(error), f"{path} row {row}{found}")
