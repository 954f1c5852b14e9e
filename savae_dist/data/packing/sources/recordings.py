"""Recordings of signals to windows; the sets are split by recording or machine, since windows of one are alike."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from savae_dist import origin
from savae_dist.data.packing.readers import READERS, kind_of, read_recording
from savae_dist.data.packing.readers.own import OwnReader
from savae_dist.data.packing.readers.signal import Choice, Signal, Unreadable
from savae_dist.data.packing.sources.annotations import Segment, label_at, main_label, number, read_annotations
from savae_dist.data.packing.sources.base import Bad, Item, Label, Note, Sample, Source, grouped, identity
from savae_dist.data.packing.sources.listing import Listed, Rules, label_origin, list_files
from savae_dist.data.packing.sources.long_tables import aside, of_files, recordings_of
from savae_dist.data.packing.splits import Splits, sets_of
from savae_dist.data.packing.windows import windows_of
from savae_dist.errors import BadSample, ConfigError, DataError

HINT = "--as .csv reads them as tables of text, --reader FILE.py:function by a function of yours"


@dataclass(frozen=True)
class Recording:
    """One file, as listed. Files with the same `name` belong together.

    rate: in Hz as the list says, 0 if it does not. variables: that the list names for this file alone. group: what goes
    to one set with others, its machine where nothing else is said; "": nothing but itself. rows, aside: where its file
    holds several, its (column, value), and the columns that say something of it.
    """

    path: Path
    file: str
    name: str
    label: Label
    machine: str = ""
    rate: float = 0.0
    variables: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()
    rows: tuple[str, str] | None = None
    aside: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Windows:
    """length, hop: in samples at `rate`. rate: in Hz, 0: as recorded. source_rate: where a file does not say its own.

    choice: which arrays of a file are channels. kind: the end of a name by which to read all files that have no reader.
    reader: one of the user's own, for all files. id: the column that tells the recordings of one table apart.
    """

    length: int
    hop: int
    rate: float = 0.0
    source_rate: float = 0.0
    choice: Choice = field(default_factory=Choice)
    kind: str = ""
    reader: OwnReader | None = None
    id: str = ""

    def __post_init__(self) -> None:
        if min(self.length, self.hop) < 1 or not (0 <= self.rate < math.inf and 0 <= self.source_rate < math.inf):
            raise ConfigError("--length and --hop must be at least 1 sample, --rate and --source-rate positive")
        if self.kind and self.kind not in READERS:
            raise ConfigError(f"--as {self.kind}: there is a reader for {' '.join(READERS)}")
        if self.id and self.reader:
            raise ConfigError("--id is of tables, and --reader gives one recording a file: leave one of them out")

    def origin(self, listed: set[tuple[str, ...]]) -> origin.Recordings:
        """For the index. listed: the variables that a list names for each file, or none."""
        choice, named = self.choice, next(iter(listed)) if len(listed) == 1 else ()
        return origin.Recordings(
            self.length,
            self.hop,
            self.source_rate,
            named or choice.variables,
            choice.time_axis,
            choice.irregular_times,
            self.kind,
            self.id,
            self.reader is not None,
        )

    def usable(self, name: str) -> bool:
        """Whether a file of that name is read."""
        return bool(self.kind or self.reader or kind_of(name))


def recordings(
    source: str | os.PathLike[str],
    windows: Windows,
    *,
    annotations: str | os.PathLike[str] | None = None,
    rules: Rules | None = None,
    splits: Splits | None = None,
) -> Source:
    """A folder in which each sub-folder is a class, or a CSV with the columns path and label.

    The CSV may also have the columns recording, machine, rate (Hz), variable and split; where it names splits, they
    hold. annotations: a CSV with the columns path, start, end, label. A window has the label of the annotation that it
    lies in as a whole, else none; the label of its recording counts only where that has no annotations.
    splits: what belongs together is what `rules` say, else the machine where there is one, else the recording.
    """
    path, rules, splits = Path(source).absolute(), rules or Rules(), splits or Splits()
    listed, notes = _listed(path, windows, rules)
    found = [_recording(one, path, windows, rules) for one in listed]
    origin = [label_origin(path, rules)] if not windows.id else []
    if annotations is not None:
        origin = [Note("labels from", f"the intervals of {Path(annotations).name}", "")]
        segments = read_annotations(Path(annotations), {one.file for one in found})
        found = [replace(one, segments=segments.get(one.file, ())) for one in found]
    by = rules.group or ("machine" if any(one.machine for one in found) else "recording")
    labels = [main_label(one.segments) if one.segments else one.label for one in found]
    sets, told = sets_of([one.group or one.name for one in found], [one.split for one in listed], labels, splits, by)
    options = {"source": "recordings", "windows": windows, "recordings": found, "splits": sets}
    return Source(
        partial(_read_windows, found, windows),
        sets,
        identity(options, (one.path for one in found)),
        notes=(*origin, *notes, *told),
        labels=frozenset(one.label for one in found if one.label is not None and not one.segments),
        origin=windows.origin({one.variables for one in found}),
    )


def _listed(path: Path, windows: Windows, rules: Rules) -> tuple[list[Listed], list[Note]]:
    """The files of a source; with `windows.id` the recordings in them, and the source may be such a file itself."""
    if not windows.id:
        return list_files(path, windows.usable, rules, HINT)
    if path.is_file():
        files, notes = [Listed(path, path.name, None)], list[Note]()
    else:
        files, notes = list_files(path, windows.usable, of_files(rules), HINT)
    found, told = recordings_of(files, windows.id, rules, windows.kind)
    return found, notes + told


def _recording(one: Listed, source: Path, windows: Windows, rules: Rules) -> Recording:
    if not windows.usable(one.path.name):
        raise DataError(f"{source}: {one.name} is none of {' '.join(READERS)}; {HINT}")
    row = one.columns
    variables = (row["variable"],) if row.get("variable") else ()
    rate = number(row.get("rate") or "0", source)
    name = row.get("recording") or one.name
    machine = row.get("machine", "")
    made = Recording(one.path, one.name, name, one.label, machine, rate, variables, group=one.group or machine)
    if not windows.id:
        return made
    return replace(made, rows=(windows.id, row[windows.id]), aside=aside(list(row), windows.id, rules))


def _read_windows(found: Sequence[Recording], windows: Windows, part: int) -> Iterator[Item]:
    """The windows of one recording, which is read in pieces: it may be larger than the memory."""
    one = found[part]
    choice = replace(windows.choice, recording=one.rows, aside=one.aside)
    choice = replace(choice, variables=one.variables) if one.variables else choice
    kind = kind_of(one.path.name) or windows.kind
    try:
        with read_recording(one.path, choice, kind, windows.reader) as signal:
            yield Note("channels", ", ".join(signal.channels), one.file)
            yield from (Note("left out", text, one.file) for text in signal.left_out)
            yield from _windows_of(one, signal, windows)
    except Unreadable as error:
        yield Bad(str(error), f"{one.path}: {error.found}")
    except BadSample as error:
        yield Bad(str(error), str(one.path))


def _windows_of(one: Recording, signal: Signal, windows: Windows) -> Iterator[Item]:
    recorded = one.rate or signal.rate or windows.source_rate
    if one.rate and signal.rate and one.rate != signal.rate:
        yield Note("rate", f"{one.rate:g} Hz as the list says, not the file's {signal.rate:g}", one.file)
    if windows.rate and not recorded:
        raise BadSample("sampling rate unknown, give --source-rate")
    rate = windows.rate or recorded
    kept = {"recording": one.name, "file": one.file, "machine": one.machine, "rate": rate, "source_rate": recorded}
    kept |= grouped(one.group) | signal.attributes
    for start, window in windows_of(signal, recorded, rate, windows.length, windows.hop):
        segments = one.segments
        label = label_at(segments, start, start + windows.length, rate) if segments else one.label
        yield Sample(window, label, {**kept, "start": start})
