"""The page of a sweep: its table over the seeds, and its runs side by side."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from savae_dist.files import read_object, write_json
from savae_dist.pages.comparison import content, folders_in, names
from savae_dist.pages.folder import RunFolder
from savae_dist.pages.metrics import Table
from savae_dist.pages.page import REPORT, pictures, write

RESULTS, TABLE = "results.csv", "table.json"


def is_sweep(folder: Path) -> bool:
    return (folder / RESULTS).is_file()


def note_sweep(folder: Path, lines: Sequence[Sequence[str]], command: str) -> None:
    """Write beside results.csv the table that was printed, its head first, and the command."""
    write_json(folder / TABLE, {"lines": lines, "command": command})


def write_sweep(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a sweep to `out`, None for `report.html` in its folder; OSError where it cannot be."""
    noted = read_object(folder / TABLE)
    lines = noted.get("lines") or [[""]]
    with (folder / RESULTS).open(newline="") as file:
        found = folders_in(Path(row["folder"]) for row in csv.DictReader(file) if row.get("folder"))
    runs = dict(zip(names(found), (RunFolder(one) for one in found), strict=True)) if found else {}
    return write(
        out or folder / REPORT,
        "sweep.html",
        name=folder.absolute().name,
        table=Table("Mean ± standard deviation over the seeds", lines[0], lines[1:]),
        command=str(noted.get("command", "")),
        drawn=pictures(folder),
        **content(runs),
    )
