"""Audio files: `.wav` of integers or floats, and `.flac`."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from savae_dist.data.packing.readers.signal import Choice, OnDisk, Part, Signal, not_installed


def read_wav(path: Path, choice: Choice) -> Signal:
    """Values of integers are scaled to [-1, 1). Mapped where the width of a value allows it, so not with 24 bits."""
    from scipy.io import wavfile

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks that it does not know
        try:
            rate, x = wavfile.read(path, mmap=True)
        except ValueError:  # 24 bits cannot be mapped
            rate, x = wavfile.read(path)
    zero, scale = 0.0, 1.0
    if x.dtype.kind in "iu":
        bits = 8 * x.dtype.itemsize
        zero, scale = (128.0, 1 / 128) if x.dtype == np.uint8 else (0.0, 2.0 ** (1 - bits))
    return Signal([Part(_names(1 if x.ndim == 1 else x.shape[1]), x, 0, zero, scale)], float(rate))


def read_flac(path: Path, choice: Choice) -> Signal:
    """Values are scaled to [-1, 1); read piece by piece."""
    try:
        import soundfile
    except ModuleNotFoundError as error:
        raise not_installed(path, "soundfile") from error
    with ExitStack() as stack:
        file = stack.enter_context(soundfile.SoundFile(path))

        def piece(start: int, stop: int) -> np.ndarray:
            file.seek(start)
            return file.read(stop - start, dtype="float64", always_2d=True)

        x = OnDisk((len(file), file.channels), np.dtype(np.float64), piece)
        return Signal([Part(_names(file.channels), x)], float(file.samplerate), files=stack.pop_all())


def _names(count: int) -> tuple[str, ...]:
    return ("sound",) if count == 1 else tuple(f"channel {i + 1}" for i in range(count))
