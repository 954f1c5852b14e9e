"""Encoded images to pixels, for packing and for reading alike: gray or RGB, upright, opaque, 8 bits or 16."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from PIL import Image

from savae_dist.data.formats.headers import (
    FORMATS,
    GRAY_MODES,
    JPEG_MAGIC,
    PNG_MAGIC,
    check_pixels,
    check_scans,
    depth,
    opened,
    plain,
    white,
)
from savae_dist.errors import BadSample

Mode = Literal["auto", "gray", "rgb"]
GRAY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
DEEPEST = 65535


def decode_picture(
    data: bytes,
    mode: Mode = "auto",
    size: tuple[int, ...] | None = None,
    formats: tuple[str, ...] = FORMATS,
    bits: int = 8,
) -> np.ndarray:
    """uint8 [h, w] or [h, w, 3], uint16 with 16 bits; BadSample with the reason where there is none.

    With 8 bits those of 16 are scaled (rounded), with 16 they stay and 8-bit ones are scaled by 257. Palette and CMYK
    become RGB, alpha is composited on black, and the EXIF orientation is applied, so that pixels stand as viewers show
    them. mode: `auto` keeps gray gray. size: the (height, width) that it must have. Both sizes and the pixel limit are
    known before a pixel is decoded.
    """
    if data.startswith(JPEG_MAGIC):
        check_scans(data)
    found = plain(data)
    if found is None:
        x = _pillow(data, size, formats, bits)
    else:
        _check_size(found.height, found.width, size)
        x = opencv(data, GRAY if found.channels == 1 else RGB)
    x = in_mode(in_depth(x, bits), mode)
    return x if x.flags.c_contiguous else np.ascontiguousarray(x)


def in_depth(x: np.ndarray, bits: int, most: int = DEEPEST) -> np.ndarray:
    """uint8 or uint16 pixels with 8 or 16 bits, scaled and rounded; most: the value of white in uint16 pixels."""
    if bits == 16 and x.dtype == np.uint8:
        return x * np.uint16(257)
    if bits == 8 and x.dtype == np.uint16:
        return ((x.astype(np.uint32) * 255 + most // 2) // most).clip(max=255).astype(np.uint8)
    return x


def in_mode(x: np.ndarray, mode: Mode) -> np.ndarray:
    """Pixels [h, w] or [h, w, 3] in that mode; BadSample where there are other channels."""
    if x.ndim == 3 and x.shape[2] == 1:
        x = x[..., 0]
    if x.ndim == 3 and x.shape[2] != 3:
        raise BadSample("shape")
    if x.ndim == 2 and mode == "rgb":
        return np.repeat(x[..., None], 3, axis=2)
    if x.ndim == 3 and mode == "gray":
        if x.dtype == np.uint8:
            return np.asarray(Image.fromarray(np.ascontiguousarray(x)).convert("L"))  # ITU-R 601 luma
        red, green, blue = np.moveaxis(x.astype(np.uint32), 2, 0)  # the same, which Pillow has for 8 bits only
        return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint16)
    return x


def _check_size(height: int, width: int, size: tuple[int, ...] | None) -> None:
    check_pixels(height, width)
    if size is not None and (height, width) != size:
        raise BadSample("shape")


def opencv(data: bytes, flag: int) -> np.ndarray:
    try:
        x = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:
        raise BadSample("undecodable") from error
    if x is None:
        raise BadSample("undecodable")
    return x


def _pillow(data: bytes, size: tuple[int, ...] | None, formats: tuple[str, ...], bits: int) -> np.ndarray:
    with opened(data, formats) as (image, orientation):
        if size is not None and sorted(size) != sorted((image.height, image.width)):
            raise BadSample("shape")
        x = _deep(data, bits) if depth(image, data) == 16 else _shallow(image)
        x = upright(_on_black(x), orientation)
    _check_size(len(x), len(x[0]), size)
    return x


def _deep(data: bytes, bits: int) -> np.ndarray:
    x = opencv(data, cv2.IMREAD_UNCHANGED)
    if x.dtype != np.uint16:
        raise BadSample("undecodable")
    x = in_depth(x, bits, white(data) or DEEPEST)
    if x.ndim == 3:
        x = x[..., [2, 1, 0, 3][: x.shape[2]]]
        if data.startswith(PNG_MAGIC) and data[25] in (0, 4):  # gray with alpha, which OpenCV makes colour
            x = x[..., [0, 3]]
    return x


def _shallow(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise BadSample(f"pixels of type {image.mode}")
    gray = image.mode in GRAY_MODES
    alpha = "A" if image.has_transparency_data else ""
    return np.asarray(image.convert(("L" if gray else "RGB") + alpha))


def _on_black(x: np.ndarray) -> np.ndarray:
    """[h, w, 2 or 4] with alpha last to [h, w] or [h, w, 3]."""
    if x.ndim == 2 or x.shape[2] == 3:
        return x
    most = np.iinfo(x.dtype).max
    colour, alpha = x[..., :-1].astype(np.uint32), x[..., -1:].astype(np.uint32)
    x = ((colour * alpha + most // 2) // most).astype(x.dtype)
    return x[..., 0] if x.shape[2] == 1 else x


def upright(x: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation 1..8: where the first row and column of the file lie in the picture."""
    if orientation in (5, 6, 7, 8):
        x = x.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        x = x[:, ::-1]
    if orientation in (3, 4, 7, 8):
        x = x[::-1]
    return x
