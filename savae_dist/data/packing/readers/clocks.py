"""Columns of a table that tell the time: they are no channels, and give the sampling rate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from savae_dist.data.packing.readers.signal import Unreadable

TIMES = {"time", "t", "timestamp", "date", "datetime", "elapsed", "elapsed time", "x_value", "seconds", "sec", "zeit"}
COUNTERS = {"", "index", "sample", "samples", "row", "no", "no.", "nr", "n", "id", "unnamed: 0"}
UNITS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
EPOCHS = {"ns": 1e17, "us": 1e14, "ms": 1e11}  # more than so many of them since 1970; 1e11 s are 3,000 years
PARTS = ((0, 23, 3600.0), (0, 59, 60.0), (0, 60, 1.0))  # hour, minute, second: lowest, highest, in seconds
STEP_TOLERANCE = 0.25  # share of a step by which a time may be off: written times are rounded
MIN_ROWS = 8  # fewer rise in equal steps by chance


class Column(NamedTuple):
    """A column of a table: its name and unit, "" where there is none, and its values: numbers or text."""

    name: str
    unit: str
    values: np.ndarray


@dataclass(frozen=True)
class Clock:
    """columns: the places of what tells the time. times: in seconds; None where it only counts rows. told: in words."""

    columns: tuple[int, ...]
    times: np.ndarray | None
    told: str


def find_clocks(columns: Sequence[Column], named: bool) -> list[Clock]:
    """All clocks and counters of a table. A column of no telling name is one if it rises in equal steps."""
    if not named and (clock := _split_time(columns)):
        return [clock]
    clocks = [clock for i, column in enumerate(columns) if (clock := _one_column(i, column, named))]
    return _joined(clocks, columns)


def _joined(clocks: list[Clock], columns: Sequence[Column]) -> list[Clock]:
    """The same, a date and the time of day in the column after it as one."""
    found = list(clocks)
    for date, time in pairwise(clocks):
        (i,), (j,) = date.columns, time.columns
        texts = all(columns[k].values.dtype.kind not in "fiu" for k in (i, j))
        if not (texts and j == i + 1 and _base(columns[i].name) == "date"):
            continue
        if date.times is not None and time.times is not None:
            told = f"{columns[i].name}, {columns[j].name} (date and time)"
            both = Clock((i, j), date.times + time.times, told)
            found = [both if one is date else one for one in found if one is not time]
    return found


def rate_of(times: np.ndarray) -> tuple[float, bool]:
    """The rate in Hz of times in seconds, and whether their steps are equal but for rounding."""
    if len(times) < 2 or not np.isfinite(times).all() or times[-1] <= times[0]:
        return 0.0, False
    step = (times[-1] - times[0]) / (len(times) - 1)
    regular = np.abs(times - (times[0] + step * np.arange(len(times)))).max() <= STEP_TOLERANCE * step
    return float(f"{1 / step:.6g}"), bool(regular)  # six digits: the written times carry no more


def refuse_irregular(column: str, times: np.ndarray) -> Unreadable:
    steps = np.diff(times)
    several = ", or if it goes back where another recording begins --id COLUMN" * bool((steps < 0).any())
    found = f"steps of {column} go from {steps.min():g} to {steps.max():g} s"
    return Unreadable("irregular times", f"{found}; --irregular-times interpolate|ignore{several}")


def _one_column(place: int, column: Column, named: bool) -> Clock | None:
    plain, unit = _base(column.name), column.unit.strip(" []()").lower() or _unit_in(column.name)
    values = column.values
    if plain in TIMES:
        if values.dtype.kind not in "fiu":
            return Clock((place,), _moments(values), f"{column.name} (time)")
        since = "" if unit in UNITS else _since_1970(values)
        how = f" in {unit}" if unit in UNITS else f" in {since} since 1970" if since else ", taken as seconds"
        return Clock((place,), values * UNITS.get(since or unit, 1.0), f"{column.name} (time{how})")
    if values.dtype.kind not in "fiu":
        return None
    rises = len(values) >= MIN_ROWS and _equal_steps(values)
    shown = column.name or f"column {place + 1}"
    if not rises:
        return None
    if (named and plain in COUNTERS) or values[1] - values[0] == 1:
        return Clock((place,), None, f"{shown} (counts rows)")
    return Clock((place,), values * UNITS.get(unit, 1.0), f"{shown} (rises in equal steps: time, taken as seconds)")


def _since_1970(values: np.ndarray) -> str:
    """The unit of times that are so large that they count from 1970 in parts of a second, as many computers do."""
    middle = float(np.median(values)) if len(values) and np.isfinite(values).all() else 0.0
    return next((unit for unit, least in EPOCHS.items() if middle > least), "")


def _split_time(columns: Sequence[Column]) -> Clock | None:
    """Hour, minute, second and perhaps microsecond in columns of their own without names, as FEMTO writes them."""
    if len(columns) < 5 or any(column.values.dtype.kind not in "fiu" for column in columns[:4]):
        return None
    seconds = np.zeros(len(columns[0].values))
    for (low, high, scale), column in zip(PARTS, columns, strict=False):
        x = column.values
        if not np.isfinite(x).all() or x.min() < low or x.max() > high or (x != np.floor(x)).any():
            return None
        seconds = seconds + x * scale
    micro = columns[3].values
    if not np.isfinite(micro).all() or micro.min() < 0 or micro.max() >= 1e6:
        return None
    seconds = seconds + micro * 1e-6
    if len(seconds) < MIN_ROWS or np.median(np.diff(seconds)) <= 0:
        return None
    return Clock((0, 1, 2, 3), seconds, "columns 1 to 4 (hour, minute, second, microsecond)")


def _equal_steps(values: np.ndarray) -> bool:
    x = values.astype(np.float64)
    step = (x[-1] - x[0]) / (len(x) - 1)
    return bool(np.isfinite(x).all() and step > 0 and np.abs(np.diff(x) - step).max() <= 1e-3 * step + _digit(x))


def _digit(x: np.ndarray) -> float:
    """What rounding of the written values may add to a step: their last decimal, up to nine."""
    for digits in range(10):
        if np.allclose(x, np.round(x, digits), rtol=0, atol=1e-12 * max(1.0, np.abs(x).max())):
            return 0.0 if digits == 0 else 1.01 * 10.0**-digits
    return 0.0


def _moments(text: np.ndarray) -> np.ndarray | None:
    """Dates and times of day in seconds from the first; None where any cannot be read."""
    import pandas as pd

    moments = pd.to_datetime(pd.Series(text), errors="coerce", format="mixed")
    if moments.isna().any():
        return None
    return (moments - moments.iloc[0]).dt.total_seconds().to_numpy()


def _base(name: str) -> str:
    """`Time [ms]`, `time (s)`, `time_ms` -> `time`."""
    plain = re.sub(r"[\[(].*[\])]", "", name).strip().lower()
    return re.sub(r"[_ ](s|sec|ms|us|ns)$", "", plain)


def _unit_in(name: str) -> str:
    match = re.search(r"[\[(]\s*([^\])]*?)\s*[\])]|[_ ](s|sec|ms|us|ns)$", name.strip().lower())
    return (match.group(1) or match.group(2) or "") if match else ""
