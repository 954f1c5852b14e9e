"""Pictures as people have them, as the raw samples of a pipeline: by the functions that packing and training used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from savae_dist.data.formats.axes import form
from savae_dist.data.formats.images import decode_picture
from savae_dist.data.formats.picture_files import read_file, read_pixels
from savae_dist.data.formats.resize import as_sample, read_picture
from savae_dist.errors import BadSample
from savae_dist.origin import PictureFiles
from savae_dist.pipeline.inputs.sources import content_of
from savae_dist.preprocess import DataSpec

Picture = bytes | str | Path | np.ndarray | Image.Image


def shown(number: int, picture: Picture) -> str:
    """What a picture is called in messages and tables."""
    return str(picture) if isinstance(picture, str | Path) else f"picture {number}"


def prepared(number: int, picture: Picture, spec: DataSpec) -> np.ndarray:
    """The raw sample [h, w] or [h, w, 3] of the content of a file, a path, a URL, a PIL image or pixels.

    What a set was packed with comes first, then what the run made of its samples. Without either it must have the size
    that the networks take. ValueError names the picture, by its number if it has no name.
    """
    try:
        if isinstance(picture, Image.Image):
            picture = _pixels(picture)
        x = _from_pixels(picture, spec) if isinstance(picture, np.ndarray) else _from_file(picture, spec)
    except BadSample as error:
        origin = spec.origin if isinstance(spec.origin, PictureFiles) else PictureFiles()
        size = f"{spec.shape[1]}x{spec.shape[2]}"
        fixed = spec.pictures is None and origin.size is None
        hint = f": the networks were trained without --size or data.size, on {size} only" * fixed
        found = f" ({form(picture.dtype, picture.shape)})" if isinstance(picture, np.ndarray) else ""
        raise ValueError(f"{shown(number, picture)}{found} cannot be used: {error}{hint}") from error
    return x


def _from_file(picture: bytes | str | Path, spec: DataSpec) -> np.ndarray:
    data = picture if isinstance(picture, bytes) else content_of(picture)
    if spec.origin is None and spec.pictures is not None:
        return read_picture(data, spec.pictures)
    if isinstance(spec.origin, PictureFiles):
        x = read_file(data, spec.origin, None if spec.pictures else spec.shape[1:])
        return x if spec.pictures is None else as_sample(x, spec.pictures)
    return decode_picture(data, "gray" if spec.shape[0] == 1 else "rgb", spec.shape[1:])


def _from_pixels(x: np.ndarray, spec: DataSpec) -> np.ndarray:
    """Pixels that have the form of a sample already are one."""
    if spec.pictures is None and x.dtype == np.uint8 and x.shape == stored_shape(spec):
        return x
    if isinstance(spec.origin, PictureFiles):
        x = read_pixels(x, spec.origin, x.shape[:2] if spec.pictures else spec.shape[1:])
    if spec.pictures is not None:
        return as_sample(x, spec.pictures)
    if x.shape != stored_shape(spec):
        raise BadSample("shape")
    return x


def stored_shape(spec: DataSpec) -> tuple[int, ...]:
    """Of one sample, [h, w] or [h, w, channels]."""
    channels, *size = spec.shape
    return tuple(size) if channels == 1 else (*size, channels)


def _pixels(image: Image.Image) -> np.ndarray:
    """uint8 or uint16 pixels of a picture, upright, opaque on black, as a file with these pixels would be read."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        x = np.asarray(image)
        if x.min() < 0 or x.max() > np.iinfo(np.uint16).max:
            raise BadSample(f"pixels of type {image.mode}")
        return x.astype(np.uint16)
    if image.mode == "F":
        return np.asarray(image)
    gray = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), above)
    return np.asarray(image.convert("L" if gray else "RGB"))
