"""The runs in a folder as a table of text: how each stands, how far it came, and its best metric."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from savae_dist.config.metric_names import DIRECTIONS
from savae_dist.errors import ConfigError
from savae_dist.pages.comparison import names
from savae_dist.pages.folder import RunFolder
from savae_dist.pages.metrics import numbers
from savae_dist.pages.page import duration, number

HEAD = ("run", "outcome", "step", "best", "metric", "hours")
MAIN = (
    "judge_flip_rate",
    "reconstruction_mse",
    "log_spectral_distance",
    "accuracy",
)  # the first of these that was measured is shown
SILENT = 60.0  # seconds without a heartbeat after which a run is called silent


def found(folder: Path) -> list[RunFolder]:
    """The runs below a folder, at any depth, in the order of their paths; ConfigError if there are none."""
    paths = sorted(path.parent for path in folder.rglob("config.yaml"))
    runs = [RunFolder(path) for path in paths if (path / "status.json").is_file()]
    if not runs:
        raise ConfigError(f"{folder} holds no runs: give a folder with their folders in it")
    return runs


def lines(runs: Sequence[RunFolder], by: str = "") -> list[str]:
    """A line for each run below a head; by: the metric by which they are sorted, the best first, "" for their names."""
    told = dict(zip(names([run.path for run in runs]), runs, strict=True))
    rows = [(rank(run, by), name, [name, *cells(run, by)]) for name, run in told.items()]
    table = [list(HEAD), *(row for _, _, row in sorted(rows, key=lambda one: one[:2]))]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def cells(run: RunFolder, by: str) -> list[str]:
    """What stands after a run's name."""
    name, value, kept = metric(run, by)
    place = f" at {run.best['phase']} {run.best['step']:,}" if kept else ""
    phase = str(run.status.get("phase", ""))
    done, last = run.steps.get(phase, (run.status.get("step", 0), 0))
    steps = f"{phase} {done:,}/{last:,}" if last else f"{phase} {done:,}"
    took = duration(sum(run.launches) if run.launches else None)
    return [outcome(run), steps, "-" if value is None else number(value) + place, name or "-", took]


def metric(run: RunFolder, by: str) -> tuple[str, float | None, bool]:
    """Name and value of the metric to tell, and whether it is that of the best validation that the run has kept."""
    kept, measured = str(run.best.get("by", "")).partition(":")[0], numbers(run.measured)
    if kept and by in ("", kept):
        return kept, float(run.best["value"]), True
    name = by or next((one for one in MAIN if one in measured), "")
    value = measured.get(name)
    return name, None if value is None else float(value), False


def rank(run: RunFolder, by: str) -> float:
    """Where a run stands among the others; those without the metric come last."""
    value = metric(run, by)[1] if by else 0.0
    if value is None:
        return math.inf
    return -value if DIRECTIONS.get(by) == "higher" else value


def outcome(run: RunFolder) -> str:
    """The outcome; for a running run without a heartbeat, how long it has been silent."""
    beat, said = run.status.get("heartbeat"), str(run.status.get("outcome", "unknown"))
    silent = time.time() - beat if isinstance(beat, int | float) else 0.0
    return f"silent for {duration(silent)}" if said == "running" and silent > SILENT else said
