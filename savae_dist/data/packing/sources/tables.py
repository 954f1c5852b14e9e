"""Tables: Parquet and Arrow files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from savae_dist.data.packing.sources.base import Source, identity
from savae_dist.data.packing.sources.columns import (
    Columns,
    Piece,
    class_names,
    digest,
    divided,
    read_items,
    top_of,
)
from savae_dist.data.packing.sources.listing import kinds_of
from savae_dist.data.packing.splits import Splits
from savae_dist.errors import DataError

ROWS = 256  # read at once
ENDS = (".parquet", ".arrow")
OTHERS = "`hub csv --data-files FILE` and the like, or `recordings`"


def table(source: str | os.PathLike[str], columns: Columns, splits: Splits | None = None) -> Source:
    """A `.parquet` or `.arrow` file, or a folder of them; the parts are row groups and record batches."""
    path = Path(source).absolute()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in ENDS)
    if not path.exists():
        raise DataError(f"{path} does not exist; name a file or folder of {' or '.join(ENDS)}")
    if not files or files[0].suffix not in ENDS:
        held = kinds_of([one.name for one in (path.rglob("*") if path.is_dir() else [path]) if one.is_file()])
        raise DataError(f"{path} holds {held or 'no files'} and none of {' '.join(ENDS)}; for others see {OTHERS}")
    try:
        pieces = [Piece(file, number) for file in files for number in range(_pieces(file))]
        schema = pq.read_schema(files[0]) if files[0].suffix == ".parquet" else _reader(files[0])[0].schema
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); make it again") from error
    columns = columns.named(schema, str(files[0]))
    read = partial(_read, schema)
    found = divided(pieces, [""] * len(pieces), read, columns, splits or Splits())
    made = {"source": "table", "columns": columns, "pieces": digest(found)}
    return Source(
        partial(read_items, found.pieces, read, columns),
        found.sets,
        identity(made, files),
        class_names(schema, columns.y),
        (*columns.notes(schema), *found.notes),
        found.labels,
        columns.files if columns.size else None,
    )


def _read(schema: pa.Schema, piece: Piece, paths: Sequence[str]) -> Iterator[pa.RecordBatch]:
    names = list(dict.fromkeys(top_of(schema, path) for path in paths))
    file = Path(piece.where)
    try:
        if file.suffix == ".parquet":
            yield from pq.ParquetFile(file).iter_batches(ROWS, row_groups=[piece.number], columns=names)
            return
        reader, _ = _reader(file)
        for batch in reader if isinstance(reader, pa.RecordBatchStreamReader) else [reader.get_batch(piece.number)]:
            for start in range(0, batch.num_rows, ROWS):
                yield batch.slice(start, ROWS)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read ({error}); make it again") from error


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
