"""From the bytes of one member to an array of the stored shape: images by OpenCV, windows by their npy header."""

from __future__ import annotations

import io
import struct

import numpy as np

IMAGES = ("png", "jpg", "jpeg", "webp")
NPY_MAGIC = b"\x93NUMPY"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 1 << 26


class BadSample(Exception):
    """A sample that cannot be used; its text is the reason: undecodable, shape, dtype, finite, label or crc."""


def npy_header(data: bytes | memoryview) -> tuple[np.dtype, tuple[int, ...], int]:
    """dtype, shape and where the values start; ValueError unless it is a plain C-order array that is all there."""
    stream = io.BytesIO(bytes(data[:65536]))
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"npy version {version}")
    shape, fortran, dtype = readers[version](stream)
    start = stream.tell()
    size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if dtype.hasobject or (fortran and len(shape) > 1) or len(data) - start != size:
        raise ValueError("not a plain array in C order, or cut short")
    return dtype, tuple(shape), start


def as_stored(x: np.ndarray) -> np.ndarray:
    """Values in the type that is stored: uint8 images, float32 windows."""
    if x.dtype == np.bool_:
        return x.astype(np.uint8) * np.uint8(255)
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind == "f" or x.dtype.newbyteorder("=") == np.int16:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is found as such
            return x.astype(np.float32, copy=False)
    raise BadSample("dtype")


def decode_npy(data: bytes) -> np.ndarray:
    try:
        dtype, shape, start = npy_header(data)
    except ValueError as error:
        raise BadSample("undecodable") from error
    return as_stored(np.frombuffer(data, dtype, offset=start).reshape(shape))


def decode_image(data: bytes, channels: int | None) -> np.ndarray:
    """uint8 [h, w] for one channel, [h, w, 3] for three; None keeps gray as gray and makes all else RGB."""
    import cv2  # here, so that packed sets never load it

    if data.startswith(PNG_MAGIC) and len(data) > 24:
        width, height = struct.unpack(">II", data[16:24])
        if width * height > MAX_PIXELS:
            raise BadSample("shape")
    pixels = np.frombuffer(data, np.uint8)
    try:
        if channels is None:
            probe = cv2.imdecode(pixels, cv2.IMREAD_UNCHANGED)
            channels = 1 if probe is not None and probe.ndim == 2 else 3
        flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR_RGB
        image = cv2.imdecode(pixels, flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise BadSample("undecodable") from error
    if image is None:
        raise BadSample("undecodable")
    return image


def decode(data: bytes, shape: tuple[int, ...] | None = None, dtype: np.dtype | None = None) -> np.ndarray:
    """One sample as stored; BadSample unless it has `shape` and `dtype` (None: anything goes)."""
    if data[:6] == NPY_MAGIC:
        x = decode_npy(data)
    else:
        x = decode_image(data, None if shape is None else 1 if len(shape) == 2 else 3)
    if dtype is not None and x.dtype != dtype:
        raise BadSample("dtype")
    if shape is not None and x.shape != tuple(shape):
        raise BadSample("shape")
    if x.dtype == np.float32 and not np.isfinite(x).all():
        raise BadSample("finite")
    return x


def encode_image(image: np.ndarray) -> bytes:
    """PNG of a uint8 image [h, w] or [h, w, 3]."""
    import cv2

    done, data = cv2.imencode(".png", image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1]))
    assert done
    return data.tobytes()


def encode_npy(x: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(x), version=(1, 0), allow_pickle=False)
    return stream.getvalue()
