"""What happens when in a recording: a CSV of intervals with labels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from savae_dist.data.packing.sources.base import Label, as_label, read_table
from savae_dist.errors import DataError

EDGE = 1e-6  # tolerance in samples: seconds written as decimals are rounded


class Segment(NamedTuple):
    """What is going on from `start` to `end`, in seconds of the recording (in samples if its rate is unknown)."""

    start: float
    end: float
    label: Label


def read_annotations(path: Path, files: Collection[str]) -> dict[str, tuple[Segment, ...]]:
    """The segments of each file: in order, neighbours of one label joined, contradictions refused.

    A CSV with the columns path, start, end, label; files: those of the source, under the names that it has there.
    """
    segments = defaultdict(list)
    for row in read_table(path, ("path", "start", "end", "label")):
        one = Segment(number(row["start"], path), number(row["end"], path), as_label(row["label"]))
        if one.start >= one.end:
            raise DataError(f"{path}: {row['path']} from {one.start:g} to {one.end:g} is no interval; correct it")
        segments[row["path"]].append(one)
    if unknown := segments.keys() - set(files):
        raise DataError(f"{path} names {min(unknown)}, which is no recording here; write paths as in the source")
    return {file: _joined(found, f"{path}: {file}") for file, found in segments.items()}


def number(text: str, path: Path) -> float:
    """A number from 0 on in a CSV."""
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{path}: {text!r} is no number; correct it") from error
    if not 0 <= value < math.inf:
        raise DataError(f"{path}: {text} is not a number from 0 on; correct it")
    return value


def label_at(segments: Sequence[Segment], first: int, end: int, rate: float) -> Label:
    """The label of the segment that holds the samples first .. end - 1 at `rate` Hz as a whole; None if none does."""
    scale = rate or 1.0
    for segment in segments:
        if segment.start * scale <= first + EDGE and end <= segment.end * scale + EDGE:
            return segment.label
    return None


def main_label(segments: Sequence[Segment]) -> Label:
    """The label of most of the annotated time."""
    time: defaultdict[Label, float] = defaultdict(float)
    for segment in segments:
        time[segment.label] += segment.end - segment.start
    return max(sorted(time, key=str), key=lambda label: time[label])


def _joined(segments: Sequence[Segment], where: str) -> tuple[Segment, ...]:
    joined: list[Segment] = []
    for one in sorted(segments, key=lambda segment: segment[:2]):
        if joined and one.start <= joined[-1].end and one.label == joined[-1].label:
            one = Segment(joined[-1].start, max(one.end, joined[-1].end), one.label)
            joined.pop()
        elif joined and one.start < joined[-1].end:
            raise DataError(f"{where} has two labels at {one.start:g}; correct one")
        joined.append(one)
    return tuple(joined)
