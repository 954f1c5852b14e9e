"""Tables: Parquet and Arrow files, and every data set that `datasets.load_dataset` can stream, Hub or local."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from savae_dist.data.formats.images import Mode
from savae_dist.data.formats.npy import NPY_MAGIC, decode_npy
from savae_dist.data.packing.sources.base import Bad, Item, Sample, Source, as_label, identity
from savae_dist.data.packing.sources.images import fitted
from savae_dist.errors import BadSample, ConfigError, DataError

ROWS = 256  # read at once
X_COLUMNS, Y_COLUMNS = ("x", "image", "img", "signal"), ("y", "label")


@dataclass(frozen=True)
class Columns:
    """Which column holds the samples and which the labels ("": the usual names), and how a sample is understood.

    x holds images as bytes (or {bytes, path}, as `datasets` stores them), `.npy` as bytes, or (nested) lists of
    numbers: uint8 pixels or float values. shape: of flat lists. size, mode: of encoded images.
    """

    x: str = ""
    y: str = ""
    shape: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    mode: Mode = "auto"

    def named(self, held: Sequence[str], where: str) -> Columns:
        """With both names settled; y stays empty where the table has no labels."""
        x = self.x or next((name for name in X_COLUMNS if name in held), "")
        y = self.y or next((name for name in Y_COLUMNS if name in held), "")
        for option, name in (("--x", x), ("--y", y or x)):
            if name not in held:
                raise ConfigError(f"{where} has the columns {', '.join(held)}; name one with {option}")
        return Columns(x, y, self.shape, self.size, self.mode)

    def wanted(self) -> list[str]:
        return [self.x, *([self.y] if self.y else [])]


def table(source: str | os.PathLike[str], columns: Columns) -> Source:
    """A `.parquet` or `.arrow` file, or a folder of them; the parts are row groups and record batches."""
    path = Path(source).absolute()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in (".parquet", ".arrow"))
    if not files:
        raise DataError(f"{path} holds no .parquet or .arrow files; name another file or folder")
    try:
        parts = [(file, number) for file in files for number in range(_pieces(file))]
        schema = pq.read_schema(files[0]) if files[0].suffix == ".parquet" else _reader(files[0])[0].schema
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); make it again") from error
    columns = columns.named(schema.names, str(files[0]))
    return Source(
        partial(_read_table, parts, columns),
        ("",) * len(parts),
        identity({"source": "table", "columns": columns}, files),
        _class_names(schema, columns.y),
    )


def hub(
    name: str,
    columns: Columns,
    *,
    split: str = "train",
    config: str | None = None,
    data_files: str | list[str] | None = None,
    revision: str | None = None,
) -> Source:
    """Any data set of the Hugging Face Hub, or local files by the same call (`parquet`, `imagefolder`, ...), streamed.

    The parts are its files; it is never downloaded as a whole.
    """
    from datasets import load_dataset, load_dataset_builder
    from datasets.exceptions import DatasetsError

    given: dict[str, Any] = {"name": config, "data_files": data_files, "revision": revision}
    try:
        files = load_dataset_builder(name, **given).config.data_files or {}
        data = load_dataset(name, split=split, streaming=True, **given)
        first = data.with_format("arrow").take(1).iter(batch_size=1)
        schema = data.features.arrow_schema if data.features else next(first).schema
    except (DatasetsError, OSError, ValueError, StopIteration) as error:
        reason = " ".join(str(error).split()) or "it is empty"
        raise DataError(f"{name} cannot be streamed ({reason}); correct the name or the options") from error
    columns = columns.named(schema.names, name)
    # Commit, etag or time of every file.
    state = {str(part): [list(files[part]), files[part].origin_metadata] for part in files}
    made = {**given, "source": "hub", "path": name, "split": split, "columns": columns, "state": state}
    read = partial(_read_stream, data, columns)
    return Source(read, ("",) * data.num_shards, identity(made, ()), _class_names(schema, columns.y))


def _class_names(schema: pa.Schema, y: str) -> tuple[str, ...]:
    """Class names of a ClassLabel column, which `datasets` keeps in the metadata of the schema."""
    from datasets import ClassLabel, Features

    if not y:
        return ()
    feature = Features.from_arrow_schema(schema)[y]
    return tuple(feature.names) if isinstance(feature, ClassLabel) else ()


def _reader(path: Path) -> tuple[Any, int]:
    """A reader of an Arrow file and how many parts it has: a stream is one, since it opens only from its start."""
    data = pa.memory_map(str(path))
    try:
        file = pa.ipc.open_file(data)
        return file, file.num_record_batches
    except pa.ArrowInvalid:
        data.seek(0)
        return pa.ipc.open_stream(data), 1


def _pieces(path: Path) -> int:
    return pq.ParquetFile(path).num_row_groups if path.suffix == ".parquet" else _reader(path)[1]


def _batches(path: Path, number: int, columns: Columns) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".parquet":
        yield from pq.ParquetFile(path).iter_batches(ROWS, row_groups=[number], columns=columns.wanted())
        return
    reader, _ = _reader(path)
    for batch in reader if isinstance(reader, pa.RecordBatchStreamReader) else [reader.get_batch(number)]:
        for start in range(0, batch.num_rows, ROWS):
            yield batch.slice(start, ROWS)


def _read_table(parts: list[tuple[Path, int]], columns: Columns, part: int) -> Iterator[Item]:
    path, number = parts[part]
    row = 0
    try:
        for batch in _batches(path, number, columns):
            yield from _items(batch, columns, f"{path} part {number} row", row)
            row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); make it again") from error


def _read_stream(data: Any, columns: Columns, part: int) -> Iterator[Item]:
    shard = data.select_columns(columns.wanted()).shard(num_shards=data.num_shards, index=part)
    row = 0
    try:
        for batch in shard.with_format("arrow").iter(batch_size=ROWS):
            yield from _items(batch, columns, f"part {part} row", row)
            row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"the stream broke off ({reason}); run the same command again to go on") from error


def _items(batch: pa.RecordBatch | pa.Table, columns: Columns, where: str, first: int) -> Iterator[Item]:
    x = batch.column(columns.x)
    labels = batch.column(columns.y).to_pylist() if columns.y else [None] * batch.num_rows
    for row, label in enumerate(labels):
        try:
            yield Sample(_value(x.slice(row, 1), columns), as_label(label), {})
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
        return decode_npy(data) if data.startswith(NPY_MAGIC) else fitted(data, columns.size, columns.mode)
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
