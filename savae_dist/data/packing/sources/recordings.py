"""Recordings of signals to windows; the sets are split by recording, since windows of one overlap."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from savae_dist.data.order.permutation import PACK, permutation
from savae_dist.data.packing.sources.base import (
    Bad,
    Item,
    Label,
    Sample,
    Source,
    as_label,
    find_files,
    identity,
    read_table,
)
from savae_dist.data.packing.sources.signals import EXTENSIONS, read_signal, resample
from savae_dist.errors import BadSample, ConfigError, DataError

SPLITS = ("train", "validation", "test")
EDGE = 1e-6  # tolerance in samples: seconds written as decimals are rounded


class Segment(NamedTuple):
    """What is going on from `start` to `end`, in seconds of the recording (in samples if its rate is unknown)."""

    start: float
    end: float
    label: Label


@dataclass(frozen=True)
class Recording:
    """One file, as listed. Files with the same `name` belong together and go to the same set."""

    path: Path
    file: str
    name: str
    label: Label
    machine: str = ""
    rate: float = 0.0
    split: str = ""
    segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class Windows:
    """length, hop: in samples at `rate`. rate: in Hz, 0: as recorded. source_rate: where a file does not say its own.

    variables: see `signals.read_signal`.
    """

    length: int
    hop: int
    rate: float = 0.0
    source_rate: float = 0.0
    variables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.length, self.hop) < 1 or not (0 <= self.rate < math.inf and 0 <= self.source_rate < math.inf):
            raise ConfigError("--length and --hop must be at least 1 sample, --rate and --source-rate positive")


def recordings(
    source: str | os.PathLike[str],
    windows: Windows,
    *,
    annotations: str | os.PathLike[str] | None = None,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
) -> Source:
    """A folder in which each sub-folder is a class, or a CSV with the columns path and label.

    The CSV may also have the columns recording, machine, rate (Hz) and split; where it names splits, they hold.
    annotations: a CSV with the columns path, start, end, label. A window has the label of the annotation that it lies
    in as a whole, else none; the label of its recording counts only where that has no annotations.
    shares: of the recordings in `validation` and `test`; the rest is `train`. None or zeros: one set.
    """
    path = Path(source).absolute()
    found = _listed(path) if path.suffix.lower() == ".csv" else _in_folder(path)
    if annotations is not None:
        found = _annotated(found, Path(annotations))
    splits = _given_splits(found) or split(found, shares or {}, seed)
    options = {"source": "recordings", "windows": windows, "recordings": found, "splits": splits}
    return Source(partial(_read_windows, found, windows), splits, identity(options, (one.path for one in found)))


def _in_folder(folder: Path) -> list[Recording]:
    return [Recording(path, name, name, label) for path, name, label in find_files(folder, EXTENSIONS)]


def _listed(path: Path) -> list[Recording]:
    found = []
    for row in read_table(path, ("path", "label"), ("recording", "machine", "rate", "split")):
        file = path.parent / row["path"]
        if file.suffix.lower() not in EXTENSIONS:
            raise DataError(f"{path}: {row['path']} is none of {' '.join(EXTENSIONS)}; convert it")
        name, rate = row["recording"] or row["path"], _number(row["rate"] or "0", path)
        found.append(Recording(file, row["path"], name, as_label(row["label"]), row["machine"], rate, row["split"]))
    return found


def _number(text: str, path: Path) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{path}: {text!r} is no number; correct it") from error
    if not 0 <= value < math.inf:
        raise DataError(f"{path}: {text} is not a number from 0 on; correct it")
    return value


def _annotated(found: list[Recording], path: Path) -> list[Recording]:
    """The recordings with their segments: in order, neighbours of one label joined, contradictions refused."""
    segments = defaultdict(list)
    for row in read_table(path, ("path", "start", "end", "label")):
        one = Segment(_number(row["start"], path), _number(row["end"], path), as_label(row["label"]))
        if one.start >= one.end:
            raise DataError(f"{path}: {row['path']} from {one.start:g} to {one.end:g} is no interval; correct it")
        segments[row["path"]].append(one)
    if unknown := segments.keys() - {one.file for one in found}:
        raise DataError(f"{path} names {min(unknown)}, which is no recording here; write paths as in the source")
    return [replace(one, segments=_joined(segments[one.file], f"{path}: {one.file}")) for one in found]


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


def _given_splits(found: Sequence[Recording]) -> tuple[str, ...]:
    splits = {one.name: one.split for one in found}
    if not any(splits.values()):
        return ()
    for one in found:
        if one.split not in SPLITS or splits[one.name] != one.split:
            raise DataError(f"recording {one.name} is in {one.split!r}; give each one of {', '.join(SPLITS)}, always")
    return tuple(one.split for one in found)


def main_label(one: Recording) -> Label:
    """The label of the recording, or that of most of its annotated time."""
    if not one.segments:
        return one.label
    time: defaultdict[str, float] = defaultdict(float)
    for segment in one.segments:
        time[str(segment.label)] += segment.end - segment.start
    return max(sorted(time), key=lambda label: time[label])


def split(found: Sequence[Recording], shares: Mapping[str, float], seed: int) -> tuple[str, ...]:
    """The set of every recording: of each class the share nearest to what is asked, at least one where there is one.

    A class with fewer recordings than sets is in `train` first, then in `validation`.
    """
    if not any(shares.values()):
        return ("",) * len(found)
    rest = 1 - sum(shares.values())
    if min(shares.values()) < 0 or rest <= 0:
        raise ConfigError(f"the shares of {' and '.join(shares)} must be from 0 on and sum to less than 1")
    wanted = {name: share for name in SPLITS if (share := {"train": rest, **shares}.get(name, 0.0)) > 0}
    by_class = defaultdict(list)
    for name, label in sorted({one.name: str(main_label(one)) for one in reversed(found)}.items()):
        by_class[label].append(name)
    chosen: dict[str, str] = {}
    for number, label in enumerate(sorted(by_class)):
        names = [by_class[label][i] for i in permutation(len(by_class[label]), seed, PACK, number)]
        counts = apportion(len(names), list(wanted.values()))
        chosen |= dict(zip(names, np.repeat(list(wanted), counts).tolist(), strict=True))
    if missing := wanted.keys() - set(chosen.values()):
        raise ConfigError(f"{len(chosen)} recordings are too few for a {' and a '.join(sorted(missing))} set; lower it")
    return tuple(chosen[one.name] for one in found)


def apportion(n: int, shares: Sequence[float]) -> list[int]:
    """`n` by largest remainders; then who has none takes one from who has most, as long as that keeps one."""
    counts = [math.floor(n * share + EDGE) for share in shares]
    remainders = sorted(range(len(shares)), key=lambda i: (counts[i] - n * shares[i], i))
    for i in remainders[: n - sum(counts)]:
        counts[i] += 1
    for i, count in enumerate(counts):
        most = counts.index(max(counts))
        if count == 0 and counts[most] > 1:
            counts[i], counts[most] = 1, counts[most] - 1
    return counts


def _read_windows(found: Sequence[Recording], windows: Windows, part: int) -> Iterator[Item]:
    """The windows of one recording, which is in memory as a whole: what bounds the memory is the longest one."""
    one = found[part]
    try:
        x, own = read_signal(one.path, windows.variables)
        recorded = one.rate or own or windows.source_rate
        if windows.rate and not recorded:
            raise BadSample("sampling rate unknown, give --source-rate")
        rate = windows.rate or recorded
        x = (resample(x, recorded, rate) if rate else x).astype(np.float32)
        if x.shape[1] < windows.length:
            raise BadSample("shorter than a window")
    except BadSample as error:
        yield Bad(str(error), str(one.path))
        return
    kept = {"recording": one.name, "file": one.file, "machine": one.machine, "rate": rate, "source_rate": recorded}
    for start in range(0, x.shape[1] - windows.length + 1, windows.hop):
        window = x[:, start : start + windows.length]
        label = label_at(one, start, start + windows.length, rate)
        yield Sample(window if len(window) > 1 else window[0], label, {**kept, "start": start})


def label_at(one: Recording, first: int, end: int, rate: float) -> Label:
    """The label of the samples first .. end - 1 at `rate` Hz."""
    if not one.segments:
        return one.label
    scale = rate or 1.0
    for segment in one.segments:
        if segment.start * scale <= first + EDGE and end <= segment.end * scale + EDGE:
            return segment.label
    return None
