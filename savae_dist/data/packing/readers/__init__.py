"""Recordings of every kind of file: one reader a kind, and `READERS`, by which the end of a name chooses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from savae_dist.data.packing.readers.arrays import read_npy, read_npz
from savae_dist.data.packing.readers.audio import read_flac, read_wav
from savae_dist.data.packing.readers.clocks import Column
from savae_dist.data.packing.readers.hdf5 import read_hdf5
from savae_dist.data.packing.readers.matlab import read_mat
from savae_dist.data.packing.readers.parquet import parquet_columns, read_parquet
from savae_dist.data.packing.readers.signal import BROKEN, Choice, Signal, undecodable
from savae_dist.data.packing.readers.tdms import read_tdms
from savae_dist.data.packing.readers.text import long_columns, read_text
from savae_dist.errors import BadSample, ConfigError

Reader = Callable[[Path, Choice], Signal]

READERS: dict[str, Reader] = {
    ".wav": read_wav,
    ".flac": read_flac,
    ".npy": read_npy,
    ".npz": read_npz,
    ".mat": read_mat,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
    ".tdms": read_tdms,
    ".parquet": read_parquet,
    ".csv": read_text,
    ".tsv": read_text,
    ".txt": read_text,
    ".dat": read_text,
    ".asc": read_text,
    ".lvm": read_text,
    ".csv.gz": read_text,
    ".txt.gz": read_text,
}
# The readers of tables: one file may hold several recordings.
TABLES: dict[Reader, Callable[[Path], tuple[list[Column], bool]]] = {
    read_text: long_columns,
    read_parquet: parquet_columns,
}


def kind_of(name: str) -> str:
    """The longest end of a file's name that has a reader, "" if none has."""
    ends = [end for end in READERS if name.lower().endswith(end)]
    return max(ends, key=len, default="")


def read_recording(path: Path, choice: Choice, kind: str = "", reader: Reader | None = None) -> Signal:
    """The signal of a file; BadSample with the reason where there is none.

    kind: the end of a name by which to read it, where its own says nothing. reader: one of the user's own.
    """
    read = reader or READERS[kind or kind_of(path.name)]
    try:
        return read(path, choice)
    except FileNotFoundError as error:
        raise BadSample("missing") from error
    except BROKEN as error:
        raise undecodable(error) from error


def columns_of(path: Path, kind: str) -> list[Column]:
    """All columns of a table; ConfigError where files of this kind are none, Unreadable where it cannot be read."""
    if READERS[kind] not in TABLES:
        tables = " ".join(end for end, read in READERS.items() if read in TABLES)
        raise ConfigError(f"--id: {path} is no table; there are {tables}")
    try:
        return TABLES[READERS[kind]](path)[0]
    except BROKEN as error:
        raise undecodable(error) from error
