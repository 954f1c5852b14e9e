"""HDF5 files, and MATLAB's of version 7.3, which are such: arrays by path, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from savae_dist.data.packing.readers.named import from_arrays
from savae_dist.data.packing.readers.signal import DEPTH, Choice, OnDisk, Signal, Variable, deeper, not_installed

SIGNATURE = b"\x89HDF\r\n\x1a\n"
STARTS = (0, 512, 1024, 2048)  # the signature stands at one of these: a block of the user's may come before it
TURNED = {"longer": "longer", "first": "last", "last": "first"}  # MATLAB stores its arrays with their axes turned


def is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(STARTS[-1] + len(SIGNATURE))
    return any(head[start:].startswith(SIGNATURE) for start in STARTS)


def read_hdf5(path: Path, choice: Choice) -> Signal:
    """Arrays by path with dots for slashes: `run.acc`; MATLAB's structs and cells as in its older files."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise not_installed(path, "h5py") from error

    with ExitStack() as stack:
        file = stack.enter_context(h5py.File(path, "r"))
        matlab = any("MATLAB_class" in file[name].attrs for name in file)
        variables = [one for name in file if not name.startswith("#") for one in _flatten(file, name, file[name])]
        axis = TURNED[choice.time_axis] if matlab else choice.time_axis
        return from_arrays(variables, choice, path.stem, axis, files=stack.pop_all())


def _flatten(file: Any, name: str, node: Any, depth: int = 0) -> Iterator[Variable]:
    """The arrays below a node; what MATLAB keeps by reference (struct arrays, cells) is followed."""
    import h5py

    if depth > DEPTH:
        yield deeper(name)
    elif isinstance(node, h5py.Group):
        yield from _group(file, name, node, depth)
    elif h5py.check_ref_dtype(node.dtype) is h5py.Reference:  # texts have an equal dtype of another meaning
        for i, reference in enumerate(np.ravel(node[()])):
            yield from _flatten(file, f"{name}{{{i + 1}}}", file[reference], depth + 1)
    elif node.dtype.names and len(node.shape) == 1:
        yield from (_field(name, node, field) for field in node.dtype.names)
    else:
        yield Variable(name, np.empty(0, "U1") if _is_text(node) else node)
        yield from _attributes(name, node)


def _field(name: str, table: Any, field: str) -> Variable:
    """A column of a table, such as PyTables writes it."""
    column = table.fields(field)
    return Variable(f"{name}.{field}", OnDisk(table.shape, table.dtype[field], lambda start, stop: column[start:stop]))


def _attributes(name: str, node: Any) -> Iterator[Variable]:
    """The numbers that are written to an array, such as its rate."""
    for key, value in node.attrs.items():
        if not key.startswith("MATLAB_") and np.size(value) == 1 and np.asarray(value).dtype.kind in "fiu":
            yield Variable(f"{name}.{key}", np.asarray(value))


def _group(file: Any, name: str, group: Any, depth: int) -> Iterator[Variable]:
    """A struct; a struct array where its fields hold references, one for each element."""
    from savae_dist.data.packing.readers.matlab import NAMES, element_names

    lists = {f: group[f] for f in group if _is_references(group[f])}
    labels = next((_texts(file, lists[f]) for f in NAMES if f in lists), [])
    for field in group:
        if field not in lists:
            yield from _flatten(file, f"{name}.{field}", group[field], depth + 1)
            continue
        references = np.ravel(lists[field][()])
        for node, reference in zip(element_names(name, len(references), labels), references, strict=True):
            yield from _flatten(file, f"{node}.{field}", file[reference], depth + 1)


def _is_references(node: Any) -> bool:
    """References that are no cell: MATLAB marks a cell with its class."""
    import h5py

    references = isinstance(node, h5py.Dataset) and h5py.check_ref_dtype(node.dtype) is h5py.Reference
    return references and _class(node) != "cell"


def _class(node: Any) -> str:
    kind = node.attrs.get("MATLAB_class", b"")
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def _is_text(node: Any) -> bool:
    return _class(node) == "char" or node.dtype.kind in "SO"


def _texts(file: Any, node: Any) -> list[str]:
    held = [file[reference] for reference in np.ravel(node[()])]
    return ["".join(map(chr, np.ravel(one[()]))) if _is_text(one) else "" for one in held]
