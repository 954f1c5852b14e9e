"""Recordings in files of arrays: NumPy's `.npy` and `.npz`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from savae_dist.data.packing.readers.named import from_arrays
from savae_dist.data.packing.readers.signal import Choice, Signal, Unreadable, Variable, part_of


def read_npy(path: Path, choice: Choice) -> Signal:
    """One array; it is mapped, so that it may be larger than the memory."""
    x = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(x, np.ndarray):
        raise Unreadable("undecodable", "it is an .npz under the name of an .npy")
    return Signal([part_of(Variable("", x), choice.time_axis)])


def read_npz(path: Path, choice: Choice) -> Signal:
    """Named arrays, one of them perhaps the sampling rate."""
    if not zipfile.is_zipfile(path):
        raise Unreadable("undecodable", "it is no .npz")
    with np.load(path, allow_pickle=False) as archive:
        variables = [Variable(name, archive[name]) for name in archive.files]
    return from_arrays(variables, choice, path.stem)
