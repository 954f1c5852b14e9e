"""The rows of array files, one after the other: `.npy`, an array of an `.npz`, idx files, plain or gzipped."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

import numpy as np

from savae_dist.errors import DataError

UNREADABLE = (OSError, ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile)
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
HINT = "write it with numpy.savez(path, x=x, y=y)"


def open_rows(path: Path, member: str, stack: ExitStack) -> tuple[IO[bytes], np.dtype, tuple[int, ...]]:
    """A file at the first value of its array (of an `.npz`: `member`), its dtype and shape."""
    try:
        file: IO[bytes] = stack.enter_context(path.open("rb"))
        if path.suffix.lower() == ".npy":
            return _npy(file, path)
        if zipfile.is_zipfile(path):
            file = stack.enter_context(stack.enter_context(zipfile.ZipFile(file)).open(f"{member}.npy"))
            return _npy(file, path)
        if path.suffix == ".gz":
            file = stack.enter_context(cast(IO[bytes], gzip.GzipFile(fileobj=file)))
        zeros, code, dims = struct.unpack(">HBB", file.read(4))
        if zeros or code not in IDX_TYPES:
            raise ValueError("it does not begin as an idx file does")
        return file, np.dtype(IDX_TYPES[code]), struct.unpack(f">{dims}I", file.read(4 * dims))
    except (*UNREADABLE, KeyError) as error:
        raise unreadable(path, error) from error


def _npy(file: IO[bytes], path: Path) -> tuple[IO[bytes], np.dtype, tuple[int, ...]]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy version {version}")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if fortran and len(shape) > 1:  # stored by columns: no row of it is in one piece, so it is read as a whole
        count = int(np.prod(shape, dtype=np.int64))
        columns = np.frombuffer(read_exactly(file, count * dtype.itemsize, path), dtype).reshape(shape, order="F")
        file = io.BytesIO(columns.tobytes())
    return file, dtype, shape


def read_exactly(file: IO[bytes], size: int, path: str | os.PathLike[str]) -> bytes:
    try:
        data = file.read(size)
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    if len(data) != size:
        raise DataError(f"{path} is cut short; copy or make it again")
    return data


def load_array(path: Path, name: str = "") -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return loaded[name]
    except (*UNREADABLE, KeyError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str | os.PathLike[str], error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({' '.join(str(error).split())}); {HINT}")
