"""What shards are made from: one small function per kind of source, each to (x, y, class names)."""

from __future__ import annotations

import os
import zipfile
import zlib

import numpy as np

from savae_dist.data.decode import BadSample, as_stored
from savae_dist.errors import DataError

Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...]]


def read_arrays(path: str | os.PathLike[str]) -> Arrays:
    """An `.npz` with `x`, `y` (missing: all unlabelled) and `class_names` (optional).

    x: uint8 or bool images [n, h, w(, c)], or float or int16 windows [n, (channels,) length].
    """
    hint = "write it with numpy.savez(path, x=x, y=y)"
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is missing or not an .npz; {hint}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("x", "y", "class_names") if name in archive}
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read ({' '.join(str(error).split())}); {hint}") from error
    if "x" not in arrays or arrays["x"].ndim == 0:
        raise DataError(f"{path} holds no array x; {hint}")
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
