"""The bytes of one member as an array of the stored shape: images by `images.decode_picture`, windows as npy."""

from __future__ import annotations

import io
import math
import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from savae_dist.data.formats.axes import channels_last, form
from savae_dist.errors import BadSample
from savae_dist.preprocess import Pictures
from savae_dist.untrusted import regular

IMAGES = ("png", "jpg", "jpeg", "webp")
MORE_IMAGES = ("bmp", "tif", "tiff", "gif", "pgm", "ppm")  # other writers' tars have them, the packer's do not
NPY_MAGIC = b"\x93NUMPY"
NPY_HEAD = 1 << 16  # bytes within which a header ends
# All that a plain array needs to say. numpy evaluates a header as a Python literal, which is slower and takes more.
NPY_KEYS = (
    re.compile(rb"['\"]descr['\"]\s*:\s*['\"]([<>|=]?[a-zA-Z?]\d{0,3})['\"]"),
    re.compile(rb"['\"]fortran_order['\"]\s*:\s*(True|False)\b"),
    re.compile(rb"['\"]shape['\"]\s*:\s*\(([\d\sL,]{0,200})\)"),
)


def npy_header(data: bytes, size: int | None = None) -> tuple[np.dtype, tuple[int, ...], int]:
    """dtype, shape and where the values start; ValueError unless it is a plain C-order array that is all there.

    size: bytes of the whole member, where `data` is only its first `NPY_HEAD`.
    """
    dtype, shape, start = npy_claims(data)
    if (len(data) if size is None else size) - start != dtype.itemsize * math.prod(shape):
        raise ValueError("cut short")
    return dtype, shape, start


def npy_claims(data: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    """As `npy_header`, but without checking that the values are complete."""
    head = data[:NPY_HEAD]
    if head[:6] != NPY_MAGIC or head[6:7] not in (b"\1", b"\2", b"\3"):
        raise ValueError("no npy header")
    start = 10 if head[6] == 1 else 12
    end = start + int.from_bytes(head[8:start], "little")
    found = [key.search(head, start, end) for key in NPY_KEYS]
    if end > len(head) or None in found:
        raise ValueError("not the header of a plain array")
    descr, fortran, numbers = (match[1] for match in found if match is not None)
    try:
        dtype = np.dtype(descr.decode())
        shape = tuple(int(number.strip(b" \tL")) for number in numbers.split(b",") if number.strip())
    except (TypeError, ValueError) as error:
        raise ValueError("not the header of a plain array") from error
    if dtype.kind not in "biufc":
        raise ValueError(f"an array of {dtype}, not of numbers")
    if fortran == b"True" and len(shape) > 1:
        raise ValueError("an array in Fortran order")
    return dtype, shape, end


TABLE = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': (.+), 'fortran_order': False, 'shape': \((\d{1,15}),\), \} *\n", re.DOTALL
)


def table_claims(head: bytes, dtype: np.dtype) -> tuple[int, int]:
    """Rows of a table as np.save writes it, and where they start; ValueError unless it is one of this dtype.

    numpy's own reader takes the header for a Python literal and fails in many ways where that is damaged.
    """
    found = TABLE.match(head)
    if found is None or int.from_bytes(head[8:10], "little") + 10 != found.end():
        raise ValueError("not the header of a table")
    if found[1] != repr(np.lib.format.dtype_to_descr(dtype)).encode():
        raise ValueError(f"its columns are {found[1][:200].decode('ascii', 'backslashreplace')}")
    return int(found[2]), found.end()


def open_table(path: Path, dtype: np.dtype) -> np.ndarray:
    """The rows `[n]` of a table; ValueError unless they and the header are all that the file holds."""
    regular(path)
    with path.open("rb") as file:
        rows, start = table_extent(file, dtype)
        file.seek(start)
        table = np.fromfile(file, dtype, rows)
    if len(table) < rows:
        raise ValueError("it was cut short while it was read")
    return table


def table_extent(file: BinaryIO, dtype: np.dtype) -> tuple[int, int]:
    """Rows of a table that is whole, and where they start; ValueError where the file is shorter or longer."""
    rows, start = table_claims(os.pread(file.fileno(), 4096, 0), dtype)
    need, size = start + rows * dtype.itemsize, os.fstat(file.fileno()).st_size
    if size != need:
        raise ValueError(f"{rows:,} rows need {need:,} bytes, it has {size:,}")
    return rows, start


def as_stored(x: np.ndarray) -> np.ndarray:
    """Values in the type that is stored: uint8 images, float32 windows."""
    if x.dtype == np.bool_:
        return x.astype(np.uint8) * np.uint8(255)
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind == "f" or x.dtype.newbyteorder("=") == np.int16:
        with np.errstate(
            over="ignore"
        ):  # values beyond float32 become infinite, and the check for finite values rejects them
            return x.astype(np.float32, copy=False)
    raise BadSample("dtype", f"{form(x.dtype, x.shape)}: images are uint8, windows float or int16")


def stored(x: np.ndarray) -> np.ndarray:
    """A sample as it is stored; BadSample where it is neither a uint8 image nor a float window of finite values."""
    x = as_stored(x)
    x = x[..., 0] if x.dtype == np.uint8 and x.ndim == 3 and x.shape[2] == 1 else x
    if not storable(x.dtype, x.shape):
        raise BadSample("shape", f"{form(x.dtype, x.shape)}, neither an image nor a window")
    if x.dtype == np.float32 and not np.isfinite(x).all():
        raise BadSample("finite")
    return x


def storable(dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    """Whether samples can have this form: uint8 [h, w] or [h, w, c], float32 [length] or [channels, length]."""
    return len(shape) in {"uint8": (2, 3), "float32": (1, 2)}.get(dtype.name, ()) and math.prod(shape) > 0


def decode_npy(data: bytes) -> np.ndarray:
    try:
        dtype, shape, start = npy_header(data)
        return as_stored(np.frombuffer(data, dtype, offset=start).reshape(shape))
    except ValueError as error:
        raise BadSample("undecodable", str(error)) from error


def decode(data: bytes, shape: tuple[int, ...] | None = None, dtype: np.dtype | None = None) -> np.ndarray:
    """One sample as stored; BadSample unless it has `shape` and `dtype` (None: any that can be stored).

    An image becomes gray or RGB as `shape` has it.
    """
    if data[:6] == NPY_MAGIC:
        x = decode_npy(data)
        if x.shape != shape and (shape is None or x.dtype == np.uint8):
            x = channels_last(x)
        if shape is None or x.shape != shape or x.dtype == np.float32:
            x = stored(x)
    else:
        from savae_dist.data.formats.images import decode_picture  # here, so that packed sets never load OpenCV

        if dtype is not None and dtype != np.uint8:
            raise BadSample("dtype")
        if shape is None:
            return decode_picture(data)
        x = decode_picture(data, "gray" if len(shape) == 2 else "rgb", shape[:2])
    if dtype is not None and x.dtype != dtype:
        raise BadSample("dtype", f"{x.dtype}, not {dtype}")
    if shape is not None and x.shape != shape:
        raise BadSample("shape", f"{form(x.dtype, x.shape)}, not {'x'.join(map(str, shape))}")
    return x


def decode_any(data: bytes, pictures: Pictures) -> np.ndarray:
    """One picture of any size, or array of pixels, as a sample; BadSample with the reason where there is none."""
    from savae_dist.data.formats.resize import as_sample, read_picture

    if data[:6] != NPY_MAGIC:
        return read_picture(data, pictures)
    x = decode_npy(data)
    if x.dtype != np.uint8:
        raise BadSample("dtype", f"{x.dtype}, not uint8")
    return as_sample(channels_last(x), pictures)


def as_samples(x: np.ndarray, pictures: Pictures) -> np.ndarray:
    """Images [n, ...] of one form as samples."""
    from savae_dist.data.formats.resize import as_sample

    return np.stack([as_sample(one, pictures) for one in x])


def encode_image(image: np.ndarray) -> bytes:
    """PNG of a uint8 image [h, w] or [h, w, 3]."""
    import cv2

    done, data = cv2.imencode(".png", image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1]))
    assert done
    return data.tobytes()


def npy_head(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """What `encode_npy` writes before the values of such an array."""
    stream = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def encode_npy(x: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(x), version=(1, 0), allow_pickle=False)
    return stream.getvalue()
