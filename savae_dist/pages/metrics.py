"""Metrics as the rows of a table: the value, its interval, which way is better, and the baseline beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from savae_dist.config.metric_names import BASELINES, DIRECTIONS, SHARES
from savae_dist.pages.page import number

INTERVALS, COUNTS = "intervals", "n"  # keys of metrics.json: metric -> [low, high], metric -> number of samples
NO_METRICS = ("seed", "training_hours")
Z = 1.959964  # 97.5 % quantile of the normal distribution, for 95 % intervals


@dataclass(frozen=True)
class Row:
    """interval: 95 %, as text; "" where none is known. baseline: its value and name, as text; "" for none.

    count: how many samples it is of; None where that is not known.
    """

    name: str
    value: float
    count: int | None
    interval: str
    better: str
    baseline: str


@dataclass(frozen=True)
class Table:
    """A table of text; the first cell of a row is its name."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The metrics among the values of a summary or an evaluation: the numbers, but for the seed and the like."""
    known = ((name, value) for name, value in values.items() if name not in NO_METRICS and not isinstance(value, bool))
    return {name: value for name, value in known if isinstance(value, int | float)}


def rows(values: Mapping[str, Any], data: Mapping[str, Any]) -> list[Row]:
    """A row for each metric that is no baseline of another. data: `facts` of the set that was measured.

    A share of counted samples whose interval is not given gets Wilson's (1927).
    """
    found, given = numbers(values), table_of(values.get(INTERVALS))
    baselines = {BASELINES[name] for name in found if name in BASELINES}
    made = []
    for name, value in found.items():
        if name in baselines:
            continue
        count = table_of(values.get(COUNTS)).get(name) or counted(name, data) or None
        ends = given.get(name) or wilson(value, counted(name, data))
        interval = f"{number(float(ends[0]))} to {number(float(ends[1]))}" if ends else ""
        made.append(Row(name, value, count, interval, DIRECTIONS.get(name, ""), beside(name, found, data)))
    return made


def beside(name: str, found: Mapping[str, float], data: Mapping[str, Any]) -> str:
    """The baseline of a metric, in words."""
    if name == "accuracy" and (share := most_frequent(data)):
        return f"{number(share)}: always the most frequent class"
    other = BASELINES.get(name, "")
    return f"{number(found[other])}: {other}" if other in found else ""


def counted(name: str, data: Mapping[str, Any]) -> int:
    """How many samples a share is of; 0 if that is not known."""
    unlabelled = sum(row[2] for row in data.get("classes", []) if row[0] < 0)
    of = {"all": data.get("count", 0), "labelled": data.get("count", 0) - unlabelled}
    return of[SHARES[name]] if name in SHARES else 0


def most_frequent(data: Mapping[str, Any]) -> float:
    """The share of the labelled samples that are of the most frequent class; 0 if that is not known."""
    sizes = [row[2] for row in data.get("classes", []) if row[0] >= 0]
    return max(sizes) / sum(sizes) if sum(sizes) else 0.0


def wilson(share: float, count: int) -> tuple[float, float] | None:
    """Wilson's interval (1927, 95 %) of a share of independent samples; None without a count, or for no share."""
    if not count or not 0 <= share <= 1:
        return None
    middle, scale = share + Z**2 / (2 * count), 1 + Z**2 / count
    half = Z * sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def tables(values: Mapping[str, Any], within: str = "") -> list[Table]:
    """The groups of values that name several things to compare, such as classifiers, each as a table, at any depth.

    within: the title of the group that these are of.
    """
    found = []
    for title, group in values.items():
        members = {name: table_of(one) for name, one in table_of(group).items() if title != INTERVALS}
        compared = {name: one for name, one in members.items() if numbers(one)}
        if compared:
            head = list(dict.fromkeys(name for one in compared.values() for name in numbers(one)))
            lines = [[name, *(cell(one, column) for column in head)] for name, one in compared.items()]
            note = group.get("note", "")
            named = within + title.replace("_", " ")
            found.append(Table(named, ["", *head], lines, note if isinstance(note, str) else ""))
        if title != INTERVALS:
            found += tables(table_of(group), f"{within}{title.replace('_', ' ')}: ")
    return found


def cell(values: Mapping[str, Any], name: str) -> str:
    """A value with its interval."""
    ends, value = table_of(values.get(INTERVALS)).get(name), number(values.get(name))
    return f"{value} [{number(float(ends[0]))}, {number(float(ends[1]))}]" if ends else value


def table_of(value: Any) -> Mapping[str, Any]:
    """The value if it is a table; else an empty one."""
    return value if isinstance(value, Mapping) else {}
