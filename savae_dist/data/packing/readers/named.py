"""A recording out of named arrays (`.npz`, `.mat`, HDF5): which are its channels, and which number is its rate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from savae_dist.data.packing.readers.clocks import TIMES, rate_of
from savae_dist.data.packing.readers.signal import (
    DEPTH,
    Choice,
    Signal,
    Unreadable,
    Variable,
    chosen,
    not_asked_for,
    part_of,
)

# Names of a sampling rate in Hz, the surest first: some sets call a shaft's speed `rate`.
RATES = ("fs", "sr", "sampling_rate", "sample_rate", "samplerate", "sampling_frequency", "samplingfrequency", "rate")


def from_arrays(
    variables: Sequence[Variable], choice: Choice, stem: str, time_axis: str = "", files: ExitStack | None = None
) -> Signal:
    """The arrays that were asked for, else `x` or the only one of numbers that is no time, as one signal."""
    rate, single = _single_numbers(variables)
    # Names of a struct array's elements are part of the paths.
    unread = [one for one in variables if one.values.dtype.kind not in "fiubc" and _field(one) != "name"]
    other = tuple(f"{one.name} ({_what(one)})" for one in unread)
    arrays = [one for one in variables if one.values.dtype.kind in "fiubc" and np.prod(one.values.shape) > 1]
    times = [one for one in arrays if _field(one) in TIMES and 1 in (len(one.values.shape), *one.values.shape)]
    candidates = [one for one in arrays if one not in times] if not choice.variables else arrays
    if not candidates:
        held = ", ".join([*(f"{one.name} ({_what(one)})" for one in unread), *single, *(one.name for one in times)])
        raise Unreadable(
            "no variable", f"it holds no array of numbers with more than one value, but {held or 'nothing'}"
        )
    taken = chosen(candidates, choice.variables, stem)
    parts = [part_of(one, time_axis or choice.time_axis) for one in taken]
    left_out = not_asked_for([one for one in arrays if one not in times], taken)
    clock = next((one for one in times if one not in taken), None)
    if clock is not None and not rate:
        rate, regular = rate_of(np.ravel(clock.values[()]).astype(np.float64))
        rate = rate if regular else 0.0
        left_out += (f"{clock.name} (time, taken as seconds)" if regular else f"{clock.name} (no equal steps)",)
    return Signal(parts, rate, (*left_out, *single, *other), files=files or ExitStack())


def _what(variable: Variable) -> str:
    """In words, why an array holds no signal."""
    dtype = variable.values.dtype
    if dtype == np.dtype("V1"):
        return f"nested deeper than {DEPTH}, not looked at"
    if dtype.kind == "O":
        return "an object of MATLAB, such as a table: save its columns as arrays"
    return "text" if dtype.kind in "US" else f"values of type {dtype}"


def _field(variable: Variable) -> str:
    return variable.name.rpartition(".")[2].lower()


def _single_numbers(variables: Sequence[Variable]) -> tuple[float, tuple[str, ...]]:
    """The sampling rate by its name, and the other single numbers in words."""
    single = [one for one in variables if one.values.dtype.kind in "fiu" and np.prod(one.values.shape) == 1]
    values = {one.name: float(np.ravel(one.values[()])[0]) for one in single}
    rates = sorted((RATES.index(_field(one)), one.name) for one in single if _field(one) in RATES)
    name = rates[0][1] if rates else ""
    why = f"; {name} is the rate" if len(rates) > 1 else ""
    others = [f"{other} = {value:g}{why * (other in {r for _, r in rates})}" for other, value in values.items()]
    told = tuple(text for other, text in zip(values, others, strict=True) if other != name)
    return values.get(name, 0.0), told
