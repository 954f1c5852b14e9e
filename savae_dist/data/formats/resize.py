"""Pictures of any size to samples of one form: the same function in training, in the packer and in a pipeline.

A JPEG is decoded at the smallest of the scales 1, 1/2, 1/4 and 1/8 at which it is still as large as the sample, which
its cosine transform gives for a fraction of the time; what is left to shrink is averaged over areas.
"""

from __future__ import annotations

import cv2
import numpy as np

from savae_dist.data.formats.headers import JPEG_END, JPEG_MAGIC, Header, header
from savae_dist.data.formats.images import GRAY, RGB, decode_picture, in_depth, in_mode, opencv, upright
from savae_dist.errors import BadSample
from savae_dist.origin import Resize
from savae_dist.preprocess import Pictures

# Worker processes are forked: OpenCV's own threads would not come with them, and take the cores of the other workers.
cv2.setNumThreads(0)
# OpenCV's own constants name the scale and its order of colours together, and none of them RGB.
SCALES = {8: cv2.IMREAD_REDUCED_GRAYSCALE_8, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2}
AVERAGED = 1.5  # shrunk by more than this, an area is averaged; less needs no more than the nearest four pixels


def read_picture(data: bytes, pictures: Pictures) -> np.ndarray:
    """An encoded picture to a sample: uint8 [h, w] or [h, w, 3], uint16 with 16 bits; BadSample as `decode_picture`."""
    found = header(data) if data.startswith(JPEG_MAGIC) and data.endswith(JPEG_END) and pictures.bits == 8 else None
    scale = _scale(found, pictures) if found is not None and found.simple else 1
    if found is None or scale == 1:
        return fitted(decode_picture(data, pictures.mode, bits=pictures.bits), pictures.size, pictures.resize)
    colours = RGB if found.channels == 3 and pictures.mode == "rgb" else GRAY
    x = in_mode(opencv(data, SCALES[scale] | colours), pictures.mode)
    # As it lies in the file, where its last row and column may go beyond the picture.
    extent, size = (found.height / scale, found.width / scale), pictures.size
    if found.orientation > 4:
        extent, size = extent[::-1], size[::-1]
    return np.ascontiguousarray(upright(fitted(x, size, pictures.resize, extent), found.orientation))


def as_sample(x: np.ndarray, pictures: Pictures) -> np.ndarray:
    """Pixels [h, w], [h, w, 1] or [h, w, 3] to a sample; BadSample where they are neither uint8 nor uint16."""
    if x.dtype not in (np.uint8, np.uint16):
        raise BadSample("dtype")
    if x.ndim not in (2, 3) or not x.size:
        raise BadSample("shape")
    return fitted(in_mode(in_depth(x, pictures.bits), pictures.mode), pictures.size, pictures.resize)


def _scale(found: Header, pictures: Pictures) -> int:
    """The part, one in so many, of a JPEG's width that suffices."""
    factor = min(_factors(found.height, found.width, pictures.size, pictures.resize))
    return next((scale for scale in SCALES if scale <= factor), 1)


def _factors(height: float, width: float, size: tuple[int, int], resize: Resize) -> tuple[float, float]:
    """By how much a picture shrinks, up and down and across."""
    factors = height / size[0], width / size[1]
    if resize == "stretch":
        return factors
    one = min(factors) if resize == "crop" else max(factors)
    return one, one


def fitted(
    x: np.ndarray, size: tuple[int, int], resize: Resize = "crop", extent: tuple[float, float] | None = None
) -> np.ndarray:
    """Pixels [h, w] or [h, w, c] brought to (height, width); those of that size stay bit for bit.

    extent: how much of x, down and across, is the picture; None: all.
    """
    height, width = extent or x.shape[:2]
    if (height, width) == tuple(size):
        return np.ascontiguousarray(x[: size[0], : size[1]])
    down, across = _factors(height, width, size, resize)
    if resize == "pad":
        inner = (min(size[0], max(1, round(height / down))), min(size[1], max(1, round(width / across))))
        made = np.zeros((*size, *x.shape[2:]), x.dtype)
        top, left = ((whole - part) // 2 for whole, part in zip(size, inner, strict=True))
        made[top : top + inner[0], left : left + inner[1]] = _scaled(x, (0.0, 0.0, height, width), inner)
        return made
    tall, wide = min(height, size[0] * down), min(width, size[1] * across)
    return _scaled(x, ((height - tall) / 2, (width - wide) / 2, tall, wide), size)


def _scaled(x: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """The box (top, left, height, width) of a picture, of the given size."""
    top, left, tall, wide = box
    factors = tall / size[0], wide / size[1]
    if max(factors) > AVERAGED:  # to the nearest pixel: each of the new ones is the mean of more than one of them
        rows, columns = slice(round(top), round(top + tall)), slice(round(left), round(left + wide))
        x = np.ascontiguousarray(x[rows, columns])
        first = tuple(new if f > AVERAGED else old for f, new, old in zip(factors, size, x.shape, strict=False))
        x = cv2.resize(x, first[::-1], interpolation=cv2.INTER_AREA)
        if first == tuple(size):
            return x
        (tall, wide), top, left = x.shape[:2], 0.0, 0.0
    down, across = tall / size[0], wide / size[1]
    if max(down, across) <= 1:
        how = cv2.INTER_CUBIC
    else:
        how = cv2.INTER_LINEAR
    # Map the centre of each new pixel into the picture; the box begins and ends between pixels.
    place = np.array([[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]])
    return cv2.warpAffine(
        np.ascontiguousarray(x), place, size[::-1], flags=how | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
