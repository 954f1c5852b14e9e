"""What the header of a picture says, before a pixel is decoded: its size, colours, bits and how it is turned."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image

from savae_dist.errors import BadSample

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
MAX_PIXELS = 1 << 26
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
# Encoders write up to a dozen scans; a thumbnail in the metadata has some of its own.
JPEG_MAGIC, JPEG_END, SCAN, MAX_SCANS = b"\xff\xd8\xff", b"\xff\xd9", b"\xff\xda", 64
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 258  # EXIF and TIFF tags
# Eight bits, gray or RGB, not interlaced; and the chunks that change no pixel.
PNG_PLAIN = {b"\x08\0\0\0\0": 1, b"\x08\2\0\0\0": 3}
PNG_CHUNKS = {b"IDAT", b"IEND", b"pHYs", b"tIME", b"sRGB", b"gAMA", b"cHRM", b"bKGD", b"sBIT"}
PNG_TURNED = (b"eXIf", b"iTXt", b"tEXt", b"zTXt")  # the chunks that can hold EXIF or XMP
PNG_CHUNK, PNG_SIZE, JPEG_MARKER = struct.Struct(">I4s"), struct.Struct(">II"), struct.Struct(">BBH")
JPEG_FRAMES, JPEG_SCAN = (0xC0, 0xC1, 0xC2), 0xDA
JPEG_ODD = (0xE1, 0xEE)  # APP1: EXIF and XMP, which may turn it; APP14: Adobe's colours
# Netpbm: kind, width, height and the value of white, with comments between them.
PNM = re.compile(rb"P([2356])" + rb"(?:\s|#[^\n]*\n)+(\d{1,9})" * 3 + rb"\s")
GRAY_MODES = ("1", "L", "LA", "La", "I", "F")
PAGES = {"TIFF": "pages"}  # the word for several pictures in one file; other formats call them frames


class Header(NamedTuple):
    """height, width: as it stands upright. channels: 1 or 3, without alpha. bits: 8 or 16.

    orientation: EXIF's, 1 to 8. simple: eight bits, gray or RGB, and opaque.
    """

    height: int
    width: int
    channels: int
    bits: int = 8
    orientation: int = 1
    simple: bool = False


def header(data: bytes, formats: tuple[str, ...] = FORMATS) -> Header:
    """BadSample with the reason where it is no picture, or one of too many pixels or of several frames."""
    if data.startswith(JPEG_MAGIC):
        check_scans(data)
    found = plain(data)
    if found is None:
        with opened(data, formats) as (image, orientation):
            height, width = (image.width, image.height) if orientation > 4 else (image.height, image.width)
            bits, simple = depth(image, data), image.mode in ("L", "RGB") and not image.has_transparency_data
            channels = 1 if is_gray(image, data) else 3
            found = Header(height, width, channels, bits, orientation, simple and bits == 8)
    check_pixels(found.height, found.width)
    return found


def check_pixels(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise BadSample("too many pixels")


def check_scans(data: bytes) -> None:
    """Each scan of a progressive JPEG goes over all its pixels, and costs the file a few bytes only."""
    if data.count(SCAN) > MAX_SCANS:
        raise BadSample("too many scans")


# Plain files: all that OpenCV gets to see as a whole. It is 2 to 8 times as fast as Pillow and gives the same pixels.


def plain(data: bytes) -> Header | None:
    """Of a whole file of 8 bits, gray or RGB, upright and opaque; None for all others."""
    try:
        found = _plain(data)
    except (struct.error, IndexError):  # cut short: what is left is for Pillow to refuse
        return None
    return found and Header(*found, simple=True)


def _plain(data: bytes) -> tuple[int, int, int] | None:
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
    if not data.endswith(JPEG_END):
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


@contextmanager
def opened(data: bytes, formats: tuple[str, ...]) -> Iterator[tuple[Image.Image, int]]:
    """Pillow's view of a file of one picture, of which no pixel is decoded yet, and its EXIF orientation.

    BadSample where there is none, and of whatever goes wrong inside.
    """
    try:
        if data[:4] == b"RIFF":
            check_pixels(*_webp_size(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, and of many pixels, which are checked here
            with Image.open(io.BytesIO(data), formats=formats) as image:
                check_pixels(image.height, image.width)
                _check_frames(image)
                yield image, _orientation(image, data)
    except BadSample:
        raise
    except Image.DecompressionBombError as error:
        raise BadSample("too many pixels") from error
    except Exception as error:  # hostile bytes make Pillow raise anything, from SyntaxError to MemoryError
        raise BadSample("undecodable") from error


def _orientation(image: Image.Image, data: bytes) -> int:
    if image.format == "TIFF":  # whoever reads one turns it upright at once, and tells the size that it has then
        return 1
    if image.format == "PNG" and not any(chunk in data for chunk in PNG_TURNED):
        return 1  # Pillow would decode it to see whether EXIF comes after the pixels
    return image.getexif().get(ORIENTATION, 1)


def _check_frames(image: Image.Image) -> None:
    """BadSample with the count where the file holds several pictures: the first is no better than the others.

    MPO is a JPEG whose first picture is by its standard the one to show; what follows are previews and depth maps.
    """
    if image.format in ("GIF", "TIFF", "WEBP", "PNG") and (count := image.n_frames) > 1:  # type: ignore[attr-defined]
        raise BadSample(f"{count} {PAGES.get(image.format, 'frames')}")


def depth(image: Image.Image, data: bytes) -> int:
    """16 where the file has 16 bits per channel: Pillow cuts those of colour images to 8, OpenCV keeps them."""
    if data.startswith(PNG_MAGIC):
        return 16 if data[24] == 16 else 8
    if image.format == "TIFF":
        return 16 if np.ravel(image.getexif().get(BITS_PER_SAMPLE, 8))[0] == 16 else 8
    return 16 if white(data) > 255 else 8


def white(data: bytes) -> int:
    """The value of white that a Netpbm file names; 0 for other files."""
    found = PNM.match(data[:1000])
    return int(found[4]) if found else 0


def is_gray(image: Image.Image, data: bytes) -> bool:
    if data.startswith(PNG_MAGIC):
        return data[25] in (0, 4)
    return image.mode in GRAY_MODES or image.mode.startswith("I;")
