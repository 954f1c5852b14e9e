"""Picture files and pixels of any size as the raw samples of a pipeline, by the function that training used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from savae_dist.data.formats.images import decode_picture
from savae_dist.data.formats.resize import as_sample, read_picture
from savae_dist.errors import BadSample
from savae_dist.preprocess import DataSpec


def prepared(pictures: Sequence[bytes | str | Path | np.ndarray], spec: DataSpec) -> np.ndarray:
    """Raw samples `[n, h, w(, 3)]` of pictures: contents of files, paths, or pixels [h, w] or [h, w, 3].

    Without `spec.pictures` they must have the size that the networks take. ValueError names the first that is bad.
    """
    if spec.kind != "image":
        raise ValueError("this pipeline takes signals, as an array [n, length] or [n, channels, length], no list")
    return np.stack([_one(number, picture, spec) for number, picture in enumerate(pictures)])


def _one(number: int, picture: bytes | str | Path | np.ndarray, spec: DataSpec) -> np.ndarray:
    name = str(picture) if isinstance(picture, str | Path) else f"picture {number}"
    try:
        if isinstance(picture, np.ndarray):
            return picture if spec.pictures is None else as_sample(picture, spec.pictures)
        content = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
        if spec.pictures is not None:
            return read_picture(content, spec.pictures)
        return decode_picture(content, "gray" if spec.shape[0] == 1 else "rgb", spec.shape[1:])
    except BadSample as error:
        size = f"{spec.shape[1]}x{spec.shape[2]}"
        hint = f": the networks were trained without data.size, on {size} only" * (spec.pictures is None)
        raise ValueError(f"{name} cannot be used: {error}{hint}") from error
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from error
