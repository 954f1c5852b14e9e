"""MATLAB's files: structs, struct arrays and cells by path, of versions 4 to 7 and 7.3 (which is HDF5)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from savae_dist.data.packing.readers.hdf5 import is_hdf5, read_hdf5
from savae_dist.data.packing.readers.named import from_arrays
from savae_dist.data.packing.readers.signal import DEPTH, Choice, Signal, Variable, deeper, undecodable

NAMES = ("Name", "name")  # the field that tells the elements of a struct array apart


def read_mat(path: Path, choice: Choice) -> Signal:
    """Arrays by path: `bearing.gs`, `Y[2].Data` (counted from 1), `Y[vibration_1].Data` (by its Name), `data{1}`.

    The content decides which version it is, not the text at the beginning of the file.
    """
    if is_hdf5(path):
        return read_hdf5(path, choice)
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        held = loadmat(path)
    except (MatReadError, NotImplementedError) as error:
        raise undecodable(error) from error
    variables = [one for name in held if not name.startswith("__") for one in flatten(name, held[name])]
    return from_arrays(variables, choice, path.stem)


def flatten(name: str, value: np.ndarray, depth: int = 0) -> Iterator[Variable]:
    """The arrays and texts in a value, each under its path."""
    from scipy.io.matlab import MatlabFunction, MatlabOpaque

    if depth > DEPTH:
        yield deeper(name)
    elif isinstance(value, MatlabOpaque | MatlabFunction):  # its fields are numbers of objects, and no values
        yield Variable(name, np.empty(0, "O"))
    elif value.dtype.names:
        for element, node in zip(value.ravel(), element_names(name, value.size, _labels(value)), strict=True):
            for field in value.dtype.names:
                yield from flatten(f"{node}.{field}", np.asarray(element[field]), depth + 1)
    elif value.dtype.kind == "O":
        for i, element in enumerate(value.ravel()):
            yield from flatten(f"{name}{{{i + 1}}}", np.asarray(element), depth + 1)
    else:
        yield Variable(name, value)


def element_names(name: str, count: int, labels: list[str]) -> list[str]:
    """The paths of a struct array's elements: by their labels where each has one of its own, else by number."""
    if count == 1:
        return [name]
    usable = len(labels) == count == len(set(labels)) and all(labels)
    return [f"{name}[{label}]" for label in (labels if usable else range(1, count + 1))]


def _labels(value: np.ndarray) -> list[str]:
    field = next((name for name in NAMES if name in (value.dtype.names or ())), None)
    if field is None:
        return []
    texts = [np.ravel(element[field]) for element in value.ravel()]
    return [str(text[0]) if text.dtype.kind == "U" and text.size else "" for text in texts]
