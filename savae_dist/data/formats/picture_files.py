"""Picture files as the packer reads them, to uint8 pixels; a pipeline reads them by the same functions."""

from __future__ import annotations

import numpy as np

from savae_dist.data.formats.headers import header
from savae_dist.data.formats.images import decode_picture
from savae_dist.data.formats.resize import as_sample, read_picture
from savae_dist.errors import BadSample
from savae_dist.origin import PictureFiles
from savae_dist.preprocess import Pictures

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")


def read_file(data: bytes, files: PictureFiles, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """uint8 [h, w] or [h, w, 3] of an encoded picture; BadSample as `decode_picture`.

    With a size it is what a run makes of tars with `data.size` (`formats.resize`). shape: the (height, width) that it
    must have otherwise, None: any.
    """
    bits = 8 if files.range is None else header(data).bits
    if files.size is None:
        return _spread(decode_picture(data, files.mode, shape, bits=bits), files)
    own = files.mode if files.mode != "auto" else "gray" if header(data).channels == 1 else "rgb"
    return _spread(read_picture(data, Pictures(files.size, files.resize, own, bits)), files)


def read_pixels(x: np.ndarray, files: PictureFiles, shape: tuple[int, ...]) -> np.ndarray:
    """The same of pixels [h, w] or [h, w, 3] of any type, as an array source has them; BadSample as `as_sample`.

    shape: the (height, width) of a sample.
    """
    if x.dtype not in (np.uint8, np.uint16) and files.range is None:
        raise BadSample("dtype")
    if files.size is None and x.shape[:2] != shape:
        raise BadSample("shape")
    bits = 16 if files.range is not None and x.dtype != np.uint8 else 8
    if files.range is not None and x.dtype not in (np.uint8, np.uint16):
        x, files = _spread(x, files), PictureFiles(files.size, files.resize, files.mode)
        bits = 8
    wanted = Pictures(files.size or (shape[0], shape[1]), files.resize, "gray" if files.mode == "gray" else "rgb", bits)
    return _spread(as_sample(x, wanted), files)


def _spread(x: np.ndarray, files: PictureFiles) -> np.ndarray:
    """Values from the first to the second of `range` as 0 to 255, to the nearest."""
    if files.range is None:
        return x
    low, high = files.range
    return ((x.astype(np.float64) - low) * (255 / (high - low))).round().clip(0, 255).astype(np.uint8)
