"""Rows of a table to samples: which column holds what, and which set each row goes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from savae_dist.data.formats.images import Mode
from savae_dist.data.formats.npy import NPY_MAGIC, decode_npy
from savae_dist.data.formats.picture_files import read_file
from savae_dist.data.packing.sources.base import Bad, Item, Label, Note, Sample, as_label, grouped
from savae_dist.data.packing.sources.listing import Rules, group_of
from savae_dist.data.packing.splits import SPLITS, Splits, as_set, sets_of
from savae_dist.errors import BadSample, ConfigError, DataError
from savae_dist.origin import PictureFiles, Resize

X_COLUMNS, Y_COLUMNS = ("x", "image", "img", "signal"), ("y", "label", "cls")
KEY, SET = "__key__", "split"  # the column of a sample's name in WebDataset's tars; the column that names sets
Batch: TypeAlias = pa.RecordBatch | pa.Table


@dataclass(frozen=True)
class Columns:
    """Which column holds the samples and which the labels ("": the usual names), and how a sample is understood.

    A field of a column of structs is named by its path, `json.label`. x holds images as bytes (or {bytes, path}, as
    `datasets` stores them), `.npy` as bytes, or (nested) lists of numbers: uint8 pixels or float values. shape: of flat
    lists. size, mode, resize: of encoded images.

    group: what goes to one set: a column, or `folder`, or a regular expression with one group, both of which take a
        sample's name: its `__key__`, or the path of its image.
    split: the column that names the set of each row, "" if there is none. name: the column of a sample's name.
    """

    x: str = ""
    y: str = ""
    shape: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    mode: Mode = "auto"
    group: str = ""
    split: str = ""
    name: str = ""
    resize: Resize = "crop"

    def __post_init__(self) -> None:
        Rules(group=self.group)  # refuses a wrong expression

    @property
    def files(self) -> PictureFiles:
        """How encoded images are read."""
        return PictureFiles(self.size, self.resize, self.mode)

    def named(self, schema: pa.Schema, where: str, sets: bool = True) -> Columns:
        """With all names settled; y stays empty where the table has no labels. sets: whether `split` may name them."""
        held = schema.names
        usual = next((name for name in X_COLUMNS if name in held), "")
        x = self.x or usual or _only([name for name in held if _holds_images(schema.field(name).type)])
        y = self.y or next((name for name in Y_COLUMNS if name in held), "")
        name = KEY if KEY in held else f"{x}.path"
        by_name = self.group == "folder" or "(" in self.group
        for option, path in (("--x", x), ("--y", y or x), ("--group-by", (name if by_name else self.group) or x)):
            if type_of(schema, path) is None:
                there = ", ".join(_paths(schema))
                raise ConfigError(f"{where} has the columns {there}; name one with {option}")
        split = SET if sets and SET in held and SET not in (x, y) else ""
        return replace(self, x=x, y=y, split=split, name=name if by_name else "")

    def wanted(self) -> list[str]:
        """The columns that samples are made of."""
        return [path for path in (self.x, self.y, self.name or self.group) if path]

    def telling(self) -> list[str]:
        """The columns that tell which set a row goes to."""
        return [path for path in (self.y, self.name or self.group, self.split) if path]

    def notes(self, schema: pa.Schema) -> list[Note]:
        """Where the labels come from, and what is not used."""
        origin = f"the column {self.y}{', with the names of its ClassLabel' * bool(class_names(schema, self.y))}"
        used = {top_of(schema, path) for path in (*self.wanted(), self.split) if path}
        unused = [name for name in schema.names if name not in used]
        told = [Note("passed over", f"columns {', '.join(unused)}", "")] if unused else []
        return [Note("labels from", origin if self.y else "nowhere", ""), *told]


class Piece(NamedTuple):
    """Some rows of a table that are read together: `number` of `where`; rows: bool, those that are meant, None: all."""

    where: Path | str
    number: int
    rows: np.ndarray | None = None


Read = Callable[[Piece, Sequence[str]], Iterator[Batch]]  # the rows of a piece in batches, with some columns


class Divided(NamedTuple):
    """Pieces of one set each, the set of each, what is to be told, and the labels that occur, where they are known."""

    pieces: list[Piece]
    sets: tuple[str, ...]
    notes: list[Note]
    labels: frozenset[str | int]


def divided(pieces: Sequence[Piece], named: Sequence[str], read: Read, columns: Columns, splits: Splits) -> Divided:
    """The rows by the sets that they go to. named: the set that the source names for each piece, "" for none.

    Where sets are asked for, the columns that tell them apart are read once before all else.
    """
    if not (splits.wanted or columns.split or (any(named) and columns.group)):
        return Divided(list(pieces), tuple(named), [], frozenset())
    rows = [_told(read(piece, columns.telling()), columns) for piece in pieces]
    labels = [label for some in rows for label in some[0]]
    groups = [group or str(i) for i, group in enumerate(group for some in rows for group in some[1])]
    given = [own or name for some, name in zip(rows, named, strict=True) for own in some[2]]
    by = columns.group or "row"
    sets, notes = sets_of(groups, given, labels, splits, by)
    parts: list[Piece] = []
    own_sets: list[str] = []
    start = 0
    for piece, some in zip(pieces, rows, strict=True):
        own = np.array(sets[start : start + len(some[0])])
        start += len(own)
        for name in dict.fromkeys(own.tolist()):
            parts.append(piece._replace(rows=own == name))
            own_sets.append(name)
    # By set, so that the packer finds them in this order.
    order = sorted(range(len(parts)), key=lambda i: SPLITS.index(own_sets[i]))
    found = frozenset(label for label in labels if label is not None)
    return Divided([parts[i] for i in order], tuple(own_sets[i] for i in order), notes, found)


def read_items(pieces: Sequence[Piece], read: Read, columns: Columns, part: int) -> Iterator[Item]:
    """The samples of a piece."""
    piece = pieces[part]
    first = 0
    for batch in read(piece, columns.wanted()):
        chosen = range(batch.num_rows) if piece.rows is None else np.flatnonzero(piece.rows[first:][: batch.num_rows])
        yield from _items(batch, columns, f"{piece.where} part {piece.number} row", first, [int(row) for row in chosen])
        first += batch.num_rows


def digest(found: Divided) -> list[Any]:
    """What was divided how, for `identity`."""
    return [
        (str(piece.where), piece.number, own, "" if piece.rows is None else sha256(piece.rows.tobytes()).hexdigest())
        for piece, own in zip(found.pieces, found.sets, strict=True)
    ]


def class_names(schema: pa.Schema, y: str) -> tuple[str, ...]:
    """Class names of a ClassLabel column, which `datasets` keeps in the metadata of the schema."""
    from datasets import ClassLabel, Features

    if not y:
        return ()
    feature: Any = Features.from_arrow_schema(schema)[top_of(schema, y)]
    for field in y[len(top_of(schema, y)) + 1 :].split(".") if y not in schema.names else ():
        feature = feature[field]
    return tuple(feature.names) if isinstance(feature, ClassLabel) else ()


def column_of(batch: Batch, path: str) -> pa.Array | pa.ChunkedArray:
    """A column, or a field of one by its path."""
    top = top_of(batch.schema, path)
    values = batch.column(top)
    for field in path[len(top) + 1 :].split(".") if path != top else ():
        values = pc.struct_field(values, field)
    return values


def top_of(schema: pa.Schema, path: str) -> str:
    """The column that a path begins with, "" if none does; names may hold dots themselves, `left.png`."""
    return max((name for name in schema.names if path == name or path.startswith(f"{name}.")), key=len, default="")


def type_of(schema: pa.Schema, path: str) -> pa.DataType | None:
    """The type of a column or field; None if there is none of that path."""
    top = top_of(schema, path)
    if not top:
        return None
    kind = schema.field(top).type
    for field in path[len(top) + 1 :].split(".") if path != top else ():
        if not pa.types.is_struct(kind) or kind.get_field_index(field) < 0:
            return None
        kind = kind.field(field).type
    return kind


def _paths(schema: pa.Schema) -> list[str]:
    """All that can be named: columns, and the fields of structs that are no images."""
    return [path for name in schema.names for path in _below(name, schema.field(name).type)]


def _below(path: str, kind: pa.DataType) -> list[str]:
    if not pa.types.is_struct(kind) or _holds_images(kind):
        return [path]
    return [
        inner for i in range(kind.num_fields) for inner in _below(f"{path}.{kind.field(i).name}", kind.field(i).type)
    ]


def _holds_images(kind: pa.DataType) -> bool:
    """As `datasets` stores them."""
    return pa.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}


def _only(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ""


def _told(batches: Iterable[Batch], columns: Columns) -> tuple[list[Label], list[str], list[str]]:
    """Label, group and set of each row, "" where there is none."""
    labels: list[Label] = []
    groups: list[str] = []
    sets: list[str] = []
    for batch in batches:
        labels += _labels(batch, columns)
        groups += _groups(batch, columns)
        given = column_of(batch, columns.split).to_pylist() if columns.split else [""] * batch.num_rows
        sets += [as_set("no set" if one is None else str(one)) if columns.split else "" for one in given]
    return labels, groups, sets


def _labels(batch: Batch, columns: Columns) -> list[Label]:
    values = column_of(batch, columns.y).to_pylist() if columns.y else [None] * batch.num_rows
    return [as_label(value) for value in values]


def _groups(batch: Batch, columns: Columns) -> list[str]:
    if not columns.group:
        return [""] * batch.num_rows
    values = column_of(batch, columns.name or columns.group).to_pylist()
    if not columns.name:
        return ["" if value is None else str(value) for value in values]
    if None in values:
        raise DataError(f"--group-by {columns.group}: samples of {columns.name} have no name; name a column")
    return [group_of(value, columns.group, {}) for value in values]


def _items(batch: Batch, columns: Columns, where: str, first: int, rows: Sequence[int]) -> Iterator[Item]:
    x, labels, groups = column_of(batch, columns.x), _labels(batch, columns), _groups(batch, columns)
    for row in rows:
        try:
            yield Sample(_value(x.slice(row, 1), columns), labels[row], grouped(groups[row]))
        except BadSample as error:
            yield Bad(str(error), f"{where} {first + row}")


def _value(cell: pa.Array | pa.ChunkedArray, columns: Columns) -> np.ndarray:
    """The one value of a column cut to one row."""
    if isinstance(cell, pa.ChunkedArray):
        cell = cell.combine_chunks()
    if isinstance(cell, pa.ExtensionArray):  # Array2D ... of `datasets`
        cell = cell.storage
    if cell.null_count:
        raise BadSample("missing")
    if pa.types.is_struct(cell.type) or pa.types.is_binary(cell.type) or pa.types.is_large_binary(cell.type):
        data = _bytes(cell[0].as_py())
        if data.startswith(NPY_MAGIC):
            return decode_npy(data)
        return read_file(data, columns.files)
    shape = []
    while pa.types.is_list(cell.type) or pa.types.is_large_list(cell.type) or pa.types.is_fixed_size_list(cell.type):
        lengths = pc.list_value_length(cell).unique()
        if len(lengths) != 1 or cell.null_count:
            raise BadSample("shape")
        shape.append(lengths[0].as_py())
        cell = cell.flatten()
    if not shape or cell.null_count:
        raise BadSample("missing" if shape else "dtype")
    values = cell.to_numpy(zero_copy_only=False)
    if columns.shape and int(np.prod(columns.shape)) != len(values):
        raise BadSample("shape")
    return values.reshape(columns.shape or shape)


def _bytes(value: bytes | dict[str, Any]) -> bytes:
    """The bytes of an image in the table, or of the file that it names."""
    if isinstance(value, bytes):
        return value
    if value.get("bytes") is not None:
        return value["bytes"]
    if value.get("path") is None:
        raise BadSample("missing")
    try:
        with fsspec.open(value["path"], "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise BadSample("missing") from error
