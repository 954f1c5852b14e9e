"""The page of an evaluation: the numbers, beside what they are to be compared with, and the figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from savae_dist.files import read_object, write_json
from savae_dist.pages import metrics
from savae_dist.pages.page import REPORT, figures, write

ASKED = "about.json"
METRICS, ANOMALY = "metrics.json", "anomaly.json"


def is_evaluation(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (METRICS, ANOMALY))


def note_evaluation(
    folder: Path, pipeline: str, system: Mapping[str, Any], data: Mapping[str, Any], command: str
) -> None:
    """Write beside the numbers what they are of. data: `facts` of the set that was measured on."""
    values = {"pipeline": pipeline, "system": dict(system), "data": dict(data), "command": command}
    write_json(folder / ASKED, values)


def write_evaluation(folder: Path, out: Path | None = None) -> Path:
    """Write the page of what `evaluate` wrote to `out`, None for `report.html` there; OSError where it cannot be."""
    about, found = read_object(folder / ASKED), read_object(folder / METRICS)
    alarms = read_object(folder / ANOMALY)
    return write(
        out or folder / REPORT,
        "evaluation.html",
        name=str(about.get("pipeline", folder.name)),
        about=about,
        rows=metrics.rows(found or alarms, metrics.table_of(about.get("data"))),
        tables=metrics.tables(found or alarms),
        protocol=metrics.table_of(found.get("protocol")),
        absent=[name for name, value in found.items() if value is None],
        **figures(folder),
    )
