"""A table as a recording: which columns are channels, which tell the time, which are left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from savae_dist.data.packing.readers.clocks import Clock, Column, find_clocks, rate_of, refuse_irregular
from savae_dist.data.packing.readers.signal import Choice, Part, Signal, Unreadable, Variable, chosen, not_asked_for

NUMBERS = "fiub"  # kinds of dtype


Columns = tuple[list[Column], bool]  # the columns, and whether the file gives their names itself


def kept(read: Callable[[Path], Columns], path: Path) -> Columns:
    """The columns of a table; the last one is kept, for its recordings are read one after the other."""
    state = path.stat()
    return _last(read, path, state.st_size, state.st_mtime_ns)


@lru_cache(1)
def _last(read: Callable[[Path], Columns], path: Path, size: int, changed: int) -> Columns:
    return read(path)


def from_columns(columns: Sequence[Column], choice: Choice, stem: str, named: bool = True) -> Signal:
    """The signal of a table: the columns that were asked for, else all that hold numbers and do not tell the time.

    named: whether the names are the file's own; columns without one are called `column 1` and so on.
    """
    left_out: tuple[str, ...] = ()
    if choice.recording is not None:
        columns, left_out = _rows_of(columns, *choice.recording), (f"{choice.recording[0]} (tells recordings apart)",)
        left_out += tuple(f"{one.name} (said of the recording)" for one in columns if one.name in choice.aside)
        columns = [one for one in columns if one.name not in choice.aside]
    clocks = find_clocks(columns, named)
    of_clocks = {i for clock in clocks for i in clock.columns}
    names = [column.name or f"column {i + 1}" for i, column in enumerate(columns)]
    every = [Variable(name, column.values) for name, column in zip(names, columns)]
    numbers = [one for i, one in enumerate(every) if one.values.dtype.kind in NUMBERS and i not in of_clocks]
    if choice.variables:
        taken = chosen(every, choice.variables, stem)
        left_out += not_asked_for(numbers, taken)
    else:
        # If all columns look like clocks, take them as signals: somebody recorded a ramp.
        taken = numbers or [one for one in every if one.values.dtype.kind in NUMBERS]
    if not taken:
        raise Unreadable("no column of numbers", f"it holds {', '.join(names)}")
    left_out += tuple(f"{one.name} (text)" for i, one in enumerate(every) if _is_text(one) and i not in of_clocks)
    asked = {one.name for one in taken}
    clocks = [clock for clock in clocks if not asked & {names[i] for i in clock.columns}]
    return _timed(taken, clocks, choice, left_out)


def _timed(taken: Sequence[Variable], clocks: Sequence[Clock], choice: Choice, left_out: tuple[str, ...]) -> Signal:
    """The chosen columns with the rate that the first clock gives, brought to equal steps if that is wished."""
    left_out += tuple(clock.told for clock in clocks)
    parts = [Part((one.name,), one.values) for one in taken]
    timed = next((clock for clock in clocks if clock.times is not None), None)
    if timed is None or timed.times is None or choice.irregular_times == "ignore":
        return Signal(parts, left_out=left_out)
    rate, regular = rate_of(timed.times)
    if not regular and choice.irregular_times == "refuse":
        raise refuse_irregular(timed.told, timed.times)
    if not regular:
        order = np.argsort(timed.times, kind="stable")
        times = timed.times[order]
        step = float(np.median(np.diff(times)))
        even = times[0] + step * np.arange(int((times[-1] - times[0]) / step + 1e-6) + 1)
        parts = [part._replace(values=np.interp(even, times, part.values[order])) for part in parts]
        rate = float(f"{1 / step:.6g}")
    return Signal(parts, rate, left_out)


def _rows_of(columns: Sequence[Column], name: str, value: str) -> list[Column]:
    """The rows in which the column `name` holds `value`, without that column."""
    key = next((column for column in columns if column.name == name), None)
    if key is None:
        raise Unreadable(f"no column {name}", f"it holds {', '.join(column.name for column in columns)}")
    rows = key.values.astype(str) == value
    return [Column(one.name, one.unit, one.values[rows]) for one in columns if one is not key]


def _is_text(variable: Variable) -> bool:
    return variable.values.dtype.kind not in NUMBERS
