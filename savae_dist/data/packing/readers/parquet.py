"""Recordings in Parquet tables."""

from __future__ import annotations

from pathlib import Path

from savae_dist.data.packing.readers.clocks import Column
from savae_dist.data.packing.readers.signal import Choice, Signal
from savae_dist.data.packing.readers.table import from_columns, kept


def read_parquet(path: Path, choice: Choice) -> Signal:
    """One row per sample, one column per channel, as in a table of text."""
    columns, named = kept(parquet_columns, path) if choice.recording else parquet_columns(path)
    return from_columns(columns, choice, path.stem, named)


def parquet_columns(path: Path) -> tuple[list[Column], bool]:
    """All columns, and that their names are the file's own."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = [Column(name, "", table.column(name).to_numpy()) for name in table.column_names]
    return [
        one._replace(values=one.values.astype(str)) if one.values.dtype.kind == "O" else one for one in columns
    ], True
