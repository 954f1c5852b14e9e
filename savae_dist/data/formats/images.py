"""Encoded images to uint8 pixels, for packing and for reading alike: gray or RGB, upright, opaque, 8 bits."""

from __future__ import annotations

import io
import struct
import warnings
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from savae_dist.errors import BadSample

Mode = Literal["auto", "gray", "rgb"]
MEMBERS = ("PNG", "JPEG", "WEBP")  # formats that are read from shards
FORMATS = (*MEMBERS, "BMP", "TIFF")  # formats that the packer accepts
MAX_PIXELS = 1 << 26
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Encoders write up to a dozen scans; a thumbnail in the metadata has some of its own.
JPEG_MAGIC, SCAN, MAX_SCANS = b"\xff\xd8\xff", b"\xff\xda", 64
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 258  # EXIF and TIFF tags
# Eight bits, gray or RGB, not interlaced; and the chunks that change no pixel.
PNG_PLAIN = {b"\x08\0\0\0\0": 1, b"\x08\2\0\0\0": 3}
PNG_CHUNKS = {b"IDAT", b"IEND", b"pHYs", b"tIME", b"sRGB", b"gAMA", b"cHRM", b"bKGD", b"sBIT"}
PNG_CHUNK, PNG_SIZE, JPEG_MARKER = struct.Struct(">I4s"), struct.Struct(">II"), struct.Struct(">BBH")
JPEG_FRAMES, JPEG_SCAN = (0xC0, 0xC1, 0xC2), 0xDA
GRAY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
JPEG_ODD = (0xE1, 0xEE)  # APP1: EXIF and XMP, which may turn it; APP14: Adobe's colours


def decode_picture(
    data: bytes, mode: Mode = "auto", size: tuple[int, ...] | None = None, formats: tuple[str, ...] = FORMATS
) -> np.ndarray:
    """uint8 [h, w] or [h, w, 3]; BadSample with the reason where there is none.

    16 bits are scaled to 8 (rounded), palette and CMYK become RGB, alpha is composited on black, and the EXIF
    orientation is applied, so that pixels stand as viewers show them. mode: `auto` keeps gray gray. size: the
    (height, width) that it must have. Both sizes and the pixel limit are known before a pixel is decoded.
    """
    if data.startswith(JPEG_MAGIC):
        _check_scans(data)
    try:
        plain = _plain(data)
    except (struct.error, IndexError):  # cut short: what is left is for Pillow to refuse
        plain = None
    if plain is None:
        x = _pillow(data, size, formats)
    else:
        height, width, channels = plain
        _check_size(height, width, size)
        x = _opencv(data, GRAY if channels == 1 else RGB)
    if x.ndim == 2 and mode == "rgb":
        x = np.repeat(x[..., None], 3, axis=2)
    if x.ndim == 3 and mode == "gray":
        x = np.asarray(Image.fromarray(np.ascontiguousarray(x)).convert("L"))  # ITU-R 601 luma
    return x if x.flags.c_contiguous else np.ascontiguousarray(x)


def _check_size(height: int, width: int, size: tuple[int, ...] | None) -> None:
    if height * width > MAX_PIXELS:
        raise BadSample("too many pixels")
    if size is not None and (height, width) != size:
        raise BadSample("shape")


def _check_scans(data: bytes) -> None:
    """Each scan of a progressive JPEG goes over all its pixels, and costs the file a few bytes only."""
    if data.count(SCAN) > MAX_SCANS:
        raise BadSample("too many scans")


def _opencv(data: bytes, flag: int) -> np.ndarray:
    try:
        x = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise BadSample("undecodable") from error
    if x is None:
        raise BadSample("undecodable")
    return x


# Plain files: all that OpenCV gets to see. It is 2 to 8 times as fast as Pillow and gives the same pixels.


def _plain(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, channels) of a whole file of 8 bits, gray or RGB, upright and opaque; None for all others."""
    if data.startswith(PNG_MAGIC):
        return _plain_png(data)
    if data.startswith(JPEG_MAGIC):
        return _plain_jpeg(data)
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8 ":
        height, width = _webp_size(data)
        whole = int.from_bytes(data[4:8], "little") + 8 <= len(data)
        return (height, width, 3) if whole else None
    return None


def _plain_png(data: bytes) -> tuple[int, int, int] | None:
    channels = PNG_PLAIN.get(data[24:29])
    if channels is None or data[8:16] != b"\0\0\0\rIHDR":
        return None
    position, kind = 33, b""
    while kind != b"IEND":
        length, kind = PNG_CHUNK.unpack_from(data, position)
        if kind not in PNG_CHUNKS:
            return None
        position += 12 + length
    width, height = PNG_SIZE.unpack_from(data, 16)
    return (height, width, channels) if position <= len(data) else None


def _plain_jpeg(data: bytes) -> tuple[int, int, int] | None:
    if not data.endswith(b"\xff\xd9"):
        return None
    position, found = 2, None
    while True:
        mark, marker, length = JPEG_MARKER.unpack_from(data, position)
        if mark != 0xFF or marker in JPEG_ODD or not (0xC0 <= marker <= 0xFE) or 0xD0 <= marker <= 0xD9:
            return None
        if marker == JPEG_SCAN:
            return found
        if marker in JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, position + 4)
            if found is not None or bits != 8 or channels not in (1, 3):
                return None
            found = height, width, channels
        position += 2 + length


def _webp_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a WebP's first chunk: Pillow makes room for the canvas before it tells its size."""
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return height & 0x3FFF, width & 0x3FFF


# All others.


def _pillow(data: bytes, size: tuple[int, ...] | None, formats: tuple[str, ...]) -> np.ndarray:
    try:
        if data[:4] == b"RIFF":
            height, width = _webp_size(data)
            _check_size(height, width, None)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # Pillow warns of odd metadata and of many pixels; the pixel limit is checked below
            with Image.open(io.BytesIO(data), formats=formats) as image:
                _check_size(image.height, image.width, None)
                if size is not None and sorted(size) != sorted((image.height, image.width)):
                    raise BadSample("shape")
                orientation = image.getexif().get(ORIENTATION, 1)
                x = _deep(data) if _is_deep(image, data) else _shallow(image)
    except BadSample:
        raise
    except Image.DecompressionBombError as error:
        raise BadSample("too many pixels") from error
    except Exception as error:  # hostile bytes make Pillow raise anything, from SyntaxError to MemoryError
        raise BadSample("undecodable") from error
    x = _upright(_on_black(x), orientation)
    _check_size(len(x), len(x[0]), size)
    return x


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """16 bits per channel: Pillow cuts those of colour images to 8, OpenCV keeps them."""
    if data.startswith(PNG_MAGIC):
        return data[24] == 16
    if image.format == "TIFF":
        return np.ravel(image.getexif().get(BITS_PER_SAMPLE, 8))[0] == 16
    return False


def _deep(data: bytes) -> np.ndarray:
    x = _opencv(data, cv2.IMREAD_UNCHANGED)
    if x.dtype != np.uint16:
        raise BadSample("undecodable")
    x = ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257: to the nearest
    if x.ndim == 3:
        x = x[..., [2, 1, 0, 3][: x.shape[2]]]
        if data.startswith(PNG_MAGIC) and data[25] in (0, 4):  # gray with alpha, which OpenCV makes colour
            x = x[..., [0, 3]]
    return x


def _shallow(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise BadSample(f"pixels of type {image.mode}")
    gray = image.mode in ("1", "L", "LA", "La")
    alpha = "A" if image.has_transparency_data else ""
    return np.asarray(image.convert(("L" if gray else "RGB") + alpha))


def _on_black(x: np.ndarray) -> np.ndarray:
    """[h, w, 2 or 4] with alpha last to [h, w] or [h, w, 3]."""
    if x.ndim == 2 or x.shape[2] == 3:
        return x
    colour, alpha = x[..., :-1].astype(np.uint32), x[..., -1:]
    x = ((colour * alpha + 127) // 255).astype(np.uint8)
    return x[..., 0] if x.shape[2] == 1 else x


def _upright(x: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation 1..8: where the first row and column of the file lie in the picture."""
    if orientation in (5, 6, 7, 8):
        x = x.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    return x
