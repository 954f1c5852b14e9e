"""Raw samples as files that other programs open: pictures, sound, arrays, or shards to train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from savae_dist.errors import ConfigError
from savae_dist.preprocess import DataSpec

Format = Literal["png", "wav", "npz", "shards"]
FORMATS: tuple[Format, ...] = get_args(Format)


def write_samples(
    x: np.ndarray, y: np.ndarray, names: Sequence[str], out: Path, form: Format, spec: DataSpec, overwrite: bool = False
) -> list[Path]:
    """Write raw samples `[n, ...]` into the folder `out`, and return the files.

    y int `[n]`: classes, -1 where unknown; kept by `npz` and `shards`. names: of the files, for `png` and `wav`.
    form: see `usual_format`. ConfigError where `out` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        raise ConfigError(f"{out} exists and is not empty; name another folder or pass --overwrite")
    if form == "shards":
        from savae_dist.data.packing.pack import pack  # here, since it loads the indexing

        pack(x, y, out, class_names=spec.class_names, rate=spec.rate, overwrite=overwrite)
        return [out]
    out.mkdir(parents=True, exist_ok=True)
    if form == "npz":
        path = out / "samples.npz"
        np.savez(path, x=x, y=y, class_names=np.array(spec.class_names, dtype=str))
        return [path]
    paths = [out / f"{name}.{form}" for name in names]
    for path, one in zip(paths, x, strict=True):
        _write_picture(path, one) if form == "png" else _write_sound(path, one, spec.rate)
    return paths


def usual_format(form: Format | None, spec: DataSpec) -> Format:
    """The form that is asked for, or the usual one; ConfigError where samples of that kind have no such file."""
    if form is None:
        return "png" if spec.kind == "image" and spec.shape[0] in (1, 3) else "npz"
    if form == "png" and (spec.kind != "image" or spec.shape[0] not in (1, 3)):
        raise ConfigError(f"--format png: {spec.kind}s of {spec.shape[0]} channels are no picture; take npz or shards")
    if form == "wav" and (spec.kind != "signal" or not spec.rate):
        raise ConfigError("--format wav: it takes signals whose sampling rate is known; take npz or shards")
    return form


def _write_picture(path: Path, x: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(x).save(path)


def _write_sound(path: Path, x: np.ndarray, rate: float) -> None:
    """32-bit floats in the unit of the samples, so that nothing is cut off."""
    from scipy.io import wavfile

    wavfile.write(path, round(rate), x.T if x.ndim == 2 else x)
