"""What people give to a pipeline, as its raw samples: arrays, PIL images, files, folders, URLs and recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import numpy as np
import torch
from torch import Tensor

from savae_dist.pipeline.inputs.sources import files_in
from savae_dist.preprocess import DataSpec

if TYPE_CHECKING:
    from PIL import Image

Samples = np.ndarray | Tensor  # raw, in the stored layout: see preprocess.normalise
One = Union[bytes, str, Path, np.ndarray, "Image.Image"]  # one picture or one recording
Given = Samples | One | Sequence[One]


class Named(NamedTuple):
    """Raw samples x of one file, or some of its windows: its name, and where each window begins, in samples."""

    name: str
    starts: list[int]
    x: np.ndarray


def is_batch(given: object, spec: DataSpec) -> bool:
    """Whether this is an array of raw samples already, and not one picture or one recording."""
    if not isinstance(given, np.ndarray | Tensor):
        return False
    axes = len(spec.shape)
    return given.ndim == axes + 1 or (given.ndim == axes and spec.shape[0] == 1)


def raw_samples(given: Given, spec: DataSpec, **reading: Any) -> Samples:
    """Raw samples of whatever is given; ValueError in one line where something is wrong with it.

    reading: see `recordings.Reading`, for signals.
    """
    if is_batch(given, spec) and not reading:
        assert isinstance(given, np.ndarray | Tensor)
        return checked(given, spec)
    parts = [part.x for part in named_samples(given, spec, **reading)]
    if not parts:
        raise ValueError("nothing was given: give at least one sample")
    return np.concatenate(parts)


def named_samples(given: Given, spec: DataSpec, at_once: int = 1 << 30, **reading: Any) -> Iterator[Named]:
    """The same, file by file, a recording in pieces of at most `at_once` windows: it may be larger than the memory."""
    if spec.kind == "image":
        from savae_dist.data.formats.picture_files import EXTENSIONS  # here, since it loads OpenCV
        from savae_dist.pipeline.inputs import pictures

        if reading:
            raise ValueError(f"{', '.join(reading)}: only recordings are read so, and this pipeline takes images")
        for number, one in enumerate(_listed(given, EXTENSIONS)):
            yield Named(pictures.shown(number, one), [0], pictures.prepared(number, one, spec)[None])
        return
    from savae_dist.data.packing.readers import READERS  # here, since it loads scipy
    from savae_dist.pipeline.inputs import recordings

    for number, recording in enumerate(_listed(given, tuple(READERS))):
        if not isinstance(recording, str | Path | np.ndarray):
            raise ValueError(f"this pipeline takes signals: files or arrays, not a {type(recording).__name__}")
        name = str(recording) if isinstance(recording, str | Path) else f"recording {number}"
        starts: list[int] = []
        kept: list[np.ndarray] = []
        for start, window in recordings.windows(recording, spec, recordings.Reading(**reading)):
            starts.append(start)
            kept.append(window)
            if len(kept) == at_once:
                yield Named(name, starts, np.stack(kept))
                starts, kept = [], []
        if kept:
            yield Named(name, starts, np.stack(kept))


def _listed(given: Given, ends: Sequence[str]) -> list[One]:
    """One thing, or several, with the files of a folder in its place."""
    from PIL import Image  # here: a pipeline that is given arrays needs none

    items = list(given) if isinstance(given, list | tuple) else [given]
    found: list[One] = []
    for one in items:
        if isinstance(one, str | Path):
            found += files_in([one], ends)
        elif isinstance(one, bytes | np.ndarray | Image.Image):
            found.append(one)
        elif isinstance(one, Tensor):
            found.append(one.numpy(force=True))
        else:
            raise ValueError(f"a {type(one).__name__} is no sample: give arrays, files, folders, URLs or PIL images")
    return found


def checked(x: Samples, spec: DataSpec) -> Samples:
    """Raw samples whose form and values the networks can take; ValueError says what was given and what is expected."""
    channels, *size = spec.shape
    plain, full = tuple(size), (*size, channels) if spec.kind == "image" else spec.shape
    wanted = [full] if channels > 1 else [plain, full]
    if tuple(x.shape[1:]) not in wanted:
        names = ("height", "width") if spec.kind == "image" else ("length",)
        expected = " or ".join(f"[n, {', '.join(map(str, one))}]" for one in wanted)
        raise ValueError(
            f"samples are {list(x.shape)}, and must be {expected}: n, then {' and '.join(names)} as stored"
        )
    if isinstance(x, Tensor):
        finite = not x.is_floating_point() or bool(x.isfinite().all())
    else:
        finite = x.dtype.kind != "f" or bool(np.isfinite(x).all())
    if not finite:
        flat = np.asarray(x.cpu() if isinstance(x, Tensor) else x).reshape(len(x), -1)
        first = int(np.flatnonzero(~np.isfinite(flat).all(1))[0])
        raise ValueError(f"sample {first} holds NaN or infinite values: leave it out or mend it")
    return x


def as_tensor(x: Samples) -> Tensor:
    """A tensor that shares the array's memory where it can (a read-only or strided array is copied)."""
    return x if isinstance(x, Tensor) else torch.from_numpy(np.require(x, requirements=["C", "W"]))
