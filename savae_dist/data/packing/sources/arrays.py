"""Arrays: `.npz`, `.npy` and the idx files of MNIST, plain or compressed, read row by row."""

from __future__ import annotations

import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, cast

import numpy as np

from savae_dist.data.formats.npy import as_stored
from savae_dist.data.packing.sources.base import Item, Sample, Source, as_label, identity
from savae_dist.errors import BadSample, DataError

Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...]]
ROWS = 8192  # rows per part
UNREADABLE = (OSError, ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile)
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
HINT = "write it with numpy.savez(path, x=x, y=y)"


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
        raise _unreadable(path, error) from error
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


def arrays(path: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None) -> Source:
    """An `.npz` with `x`, `y` and `class_names` (both optional), or an `.npy`; `labels`: an `.npy` in place of `y`."""
    path = Path(path).absolute()
    names: tuple[str, ...] = ()
    compressed = path.suffix.lower() != ".npy"
    if compressed:
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path} is missing or not an .npz; {HINT}")
        with np.load(path, allow_pickle=False) as archive:
            held = set(archive.files)
            if "x" not in held:
                raise DataError(f"{path} holds no array x; {HINT}")
            if "class_names" in held:
                names = tuple(str(name) for name in _load(path, "class_names").ravel())
        y = _load(path, "y") if "y" in held and labels is None else None
    else:
        y = None
    return _rows(path, y if labels is None else _load(Path(labels)), compressed, names)


def idx(path: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None) -> Source:
    """An idx file (`train-images-idx3-ubyte`, also `.gz`); labels: by default the `labels-idx1` file beside it."""
    path = Path(path).absolute()
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels is None and beside != path and beside.exists():
        labels = beside
    y = None
    if labels is not None:
        with ExitStack() as stack:
            file, dtype, shape = _open(Path(labels), stack)
            y = np.frombuffer(_exactly(file, int(np.prod(shape)) * dtype.itemsize, labels), dtype).reshape(shape)
    return _rows(path, y, path.suffix == ".gz")


def _rows(path: Path, y: np.ndarray | None, compressed: bool, names: tuple[str, ...] = ()) -> Source:
    """Parts of `ROWS` rows; one part where the file is compressed, since it opens only from its start."""
    with ExitStack() as stack:
        file, dtype, shape = _open(path, stack)
    if not shape or (dtype.kind not in "fbu" and dtype.newbyteorder("=") != np.int16):
        raise DataError(f"{path}: x is {dtype} {shape}; give uint8 or bool images, or float or int16 windows")
    if y is not None and y.shape != shape[:1]:
        raise DataError(f"{path}: y is {y.shape}; give one label per sample of x ({shape[0]}), -1 where unlabelled")
    step = max(shape[0], 1) if compressed or isinstance(file, io.BytesIO) else ROWS
    options = {"source": "arrays", "y": None if y is None else [as_label(label) for label in y.tolist()]}
    read = partial(_read_rows, path, y, step)
    return Source(read, ("",) * max(1, -(-shape[0] // step)), identity(options, [path]), names)


def _read_rows(path: Path, y: np.ndarray | None, step: int, part: int) -> Iterator[Item]:
    with ExitStack() as stack:
        file, dtype, shape = _open(path, stack)
        size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        if part:
            file.seek(part * step * size, os.SEEK_CUR)
        for row in range(part * step, min(part * step + step, shape[0])):
            x = np.frombuffer(_exactly(file, size, path), dtype).reshape(shape[1:])
            yield Sample(x, None if y is None else as_label(y[row].item()), {})


def _open(path: Path, stack: ExitStack) -> tuple[IO[bytes], np.dtype, tuple[int, ...]]:
    """The array of an `.npz` (its `x`), `.npy`, idx or idx.gz file at its first value; its dtype and shape."""
    try:
        file: IO[bytes] = stack.enter_context(path.open("rb"))
        if path.suffix.lower() == ".npy":
            return _npy(file, path)
        if zipfile.is_zipfile(path):
            file = stack.enter_context(stack.enter_context(zipfile.ZipFile(file)).open("x.npy"))
            return _npy(file, path)
        if path.suffix == ".gz":
            file = stack.enter_context(cast(IO[bytes], gzip.GzipFile(fileobj=file)))
        zeros, code, dims = struct.unpack(">HBB", file.read(4))
        if zeros or code not in IDX_TYPES:
            raise ValueError("it does not begin as an idx file does")
        return file, np.dtype(IDX_TYPES[code]), struct.unpack(f">{dims}I", file.read(4 * dims))
    except (*UNREADABLE, KeyError) as error:
        raise _unreadable(path, error) from error


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
        columns = np.frombuffer(_exactly(file, count * dtype.itemsize, path), dtype).reshape(shape, order="F")
        file = io.BytesIO(columns.tobytes())
    return file, dtype, shape


def _exactly(file: IO[bytes], size: int, path: str | os.PathLike[str]) -> bytes:
    try:
        data = file.read(size)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if len(data) != size:
        raise DataError(f"{path} is cut short; copy or make it again")
    return data


def _load(path: Path, name: str = "") -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            return loaded[name]
    except (*UNREADABLE, KeyError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | os.PathLike[str], error: Exception) -> DataError:
    return DataError(f"{path} cannot be read ({' '.join(str(error).split())}); {HINT}")
