"""What a packer says beside its shards: the samples that it dropped, and what it understood of the source."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from savae_dist.data.packing.sources.base import Note, Source
from savae_dist.data.packing.spool import SHAPE, Part
from savae_dist.errors import DataError

DROPPED, NOTES = "dropped.csv", "notes.csv"
FIRST = 5  # shown in messages


def told(bad: Sequence[tuple[str, str]]) -> str:
    """`shape: 3, undecodable: 1 (a.png, b.png, ...)`, "" where none is bad."""
    reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(Counter(reason for reason, _ in bad).items()))
    return f"{reasons} ({', '.join(name for _, name in bad[:FIRST])}{', ...' * (len(bad) > FIRST)})" if bad else ""


def check_budget(bad: Sequence[tuple[str, str]], budget: int) -> None:
    """DataError where more samples are bad than may be left out."""
    if len(bad) > budget:
        shape = "give --mode rgb where only some images are grey, and --size HxW where their sizes differ; otherwise "
        raise DataError(
            f"unusable samples so far: {told(bad)}: more than --bad-budget {budget}; "
            f"{shape * any(reason == SHAPE for reason, _ in bad)}"
            "repair or remove them, or leave out up to N samples with --bad-budget N"
        )


def save(folder: Path, source: Source, parts: Sequence[Part], class_names: Sequence[str] = ()) -> None:
    """Write both tables into a folder; a set without bad samples has no table of them.

    class_names: as the user gives them.
    """
    bad = [one for part in parts for one in part.bad]
    if bad:
        _write(folder / DROPPED, ("reason", "name"), bad)
    found = {label for part in parts for label in part.labels}
    lost = sorted(str(label) for label in source.labels if label not in found)
    notes = list(source.notes)
    if class_names:
        notes.append(Note("labels from", f"named by --class-names {','.join(class_names)}", ""))
    if lost:
        notes.append(Note("labels", f"lost as a whole, since no sample of them can be used: {', '.join(lost)}", ""))
    rows = [(note.topic, note.text, 0, note.name) for note in notes]
    sums: dict[tuple[str, str], tuple[int, str]] = {}
    for topic, text, n, name in (row for part in parts for row in part.notes):
        before, first = sums.get((topic, text), (0, name))
        sums[topic, text] = before + n, first
    rows += [(topic, text, n, name) for (topic, text), (n, name) in sums.items()]
    if rows:
        _write(folder / NOTES, ("topic", "text", "files", "first"), rows)


def channels(folder: Path, count: int) -> tuple[str, ...]:
    """What each of so many channels is; nothing where the files say different things, or none."""
    said = [row["text"].split(", ") for row in _read(folder / NOTES) if row["topic"] == "channels"]
    return tuple(said[0]) if len(said) == 1 and len(said[0]) == count else ()


def read(folder: Path) -> dict[str, Any]:
    """Both tables in words, by topic."""
    lines: dict[str, list[str]] = {}
    for row in _read(folder / NOTES):
        files = int(row["files"])
        where = f" ({files} files, {row['first']} first)" if files > 1 else f" ({row['first']})" * (files == 1)
        lines.setdefault(row["topic"], []).append(row["text"] + where)
    result = {
        topic: "; ".join([*texts[:FIRST], f"{len(texts) - FIRST} more in {NOTES}"] if len(texts) > FIRST else texts)
        for topic, texts in lines.items()
    }
    bad = [(row["reason"], row["name"]) for row in _read(folder / DROPPED)]
    return {**result, "dropped": f"{len(bad)}, {told(bad)}, all in {folder / DROPPED}"} if bad else result


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
