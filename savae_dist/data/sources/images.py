"""Image files of any common kind to uint8 pixels: gray or RGB, upright, opaque, of one size."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageOps

from savae_dist.data.decode import MAX_PIXELS, PNG_MAGIC, BadSample
from savae_dist.data.sources.base import Bad, Item, Label, Sample, Source, as_label, by_name, find_files, read_table
from savae_dist.data.sources.base import identity as identity_of

Mode = Literal["auto", "gray", "rgb"]
EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
FILES = 256  # of a part
ORIENTATION, BITS_PER_SAMPLE = 0x0112, 258  # EXIF and TIFF tags
BROKEN = (OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, ArithmeticError, struct.error, zlib.error)
Listed = tuple[Path, str, Label]


def images(source: str | os.PathLike[str], size: tuple[int, int] | None = None, mode: Mode = "auto") -> Source:
    """A folder in which each sub-folder is a class, or a CSV with the columns path (relative to it) and label.

    size: (height, width); other images are scaled and cropped to it. mode: `auto` keeps gray gray.
    """
    path = Path(source).absolute()
    if path.suffix.lower() == ".csv":
        rows = read_table(path, ("path", "label"))
        files: list[Listed] = [(path.parent / row["path"], row["path"], as_label(row["label"])) for row in rows]
        names: tuple[str, ...] = ()
    else:
        files = find_files(path, EXTENSIONS)
        names = by_name(str(label) for _, _, label in files if label is not None)
    options = {"source": "images", "size": size, "mode": mode, "labels": [label for _, _, label in files]}
    return Source(
        partial(_read_files, files, size, mode),
        ("",) * -(-len(files) // FILES),
        identity_of(options, (file for file, _, _ in files)),
        names,
    )


def _read_files(files: list[Listed], size: tuple[int, int] | None, mode: Mode, part: int) -> Iterator[Item]:
    for path, name, label in files[part * FILES : (part + 1) * FILES]:
        try:
            yield Sample(decode_picture(path.read_bytes(), size, mode), label, {"path": name})
        except FileNotFoundError:
            yield Bad("missing", str(path))
        except OSError as error:
            yield Bad(f"unreadable: {error.strerror}", str(path))
        except BadSample as error:
            yield Bad(str(error), str(path))


def decode_picture(data: bytes, size: tuple[int, int] | None = None, mode: Mode = "auto") -> np.ndarray:
    """uint8 [h, w] or [h, w, 3]; BadSample with the reason where there is none.

    16 bits are scaled to 8 (rounded), palette and CMYK become RGB, alpha is composited on black, and the EXIF
    orientation is applied, so that pixels stand as viewers show them. With a size, other images are cropped around
    the centre to its proportions and scaled by Lanczos with antialiasing; those of that size stay bit for bit.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about odd metadata and many pixels: the limit is checked here
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadSample("too many pixels")
                orientation = image.getexif().get(ORIENTATION, 1)
                x = _deep(data) if _is_deep(image, data) else _shallow(image)
    except Image.DecompressionBombError as error:
        raise BadSample("too many pixels") from error
    except (*BROKEN, cv2.error) as error:
        raise BadSample("undecodable") from error
    x = _upright(_on_black(x), orientation)
    if x.ndim == 2 and mode == "rgb":
        x = np.repeat(x[..., None], 3, axis=2)
    if x.ndim == 3 and mode == "gray":
        x = np.asarray(Image.fromarray(np.ascontiguousarray(x)).convert("L"))  # ITU-R 601 luma
    if size is not None and x.shape[:2] != tuple(size):
        picture = Image.fromarray(np.ascontiguousarray(x))
        x = np.asarray(ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(x)


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """16 bits per channel: Pillow cuts those of colour images to 8, OpenCV keeps them."""
    if data.startswith(PNG_MAGIC):
        return data[24] == 16
    if image.format == "TIFF":
        return np.ravel(image.getexif().get(BITS_PER_SAMPLE, 8))[0] == 16
    return False


def _deep(data: bytes) -> np.ndarray:
    x = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if x is None or x.dtype != np.uint16:
        raise BadSample("undecodable")
    x = ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257: to the nearest
    if x.ndim == 3:
        x = x[..., [2, 1, 0, 3][: x.shape[2]]]
        if data.startswith(PNG_MAGIC) and data[25] == 4:  # gray with alpha, which OpenCV makes colour
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
