"""The page of several runs side by side: which keys differ, which numbers, their curves and figures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from savae_dist.config.metric_names import DIRECTIONS
from savae_dist.errors import ConfigError
from savae_dist.pages import drawings, metrics
from savae_dist.pages.folder import RunFolder
from savae_dist.pages.metrics import Table
from savae_dist.pages.page import Picture, duration, number, pictures, write

MOST = 10  # runs whose curves and figures are drawn: as many as there are colours
ABSENT = "–"
STAR = "\N{NO-BREAK SPACE}★"
NOT_TOLD = ("output",)  # keys that differ between any two runs


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write the page of these runs to a file; ConfigError where one is no run, OSError where it cannot be written."""
    if not 2 <= len(folders) == len(set(folders)):
        raise ConfigError("give two runs or more, each once")
    runs = dict(zip(names(folders), (RunFolder(folder) for folder in folders), strict=True))
    return write(out, "comparison.html", name=f"{len(runs)} runs", **content(runs))


def content(runs: Mapping[str, RunFolder]) -> dict[str, Any]:
    """The values of the template."""
    drawn = dict(list(runs.items())[:MOST])
    return {
        "runs": runs,
        "keys": keys(runs),
        "numbers": measures(runs),
        "costs": costs(runs),
        "charts": drawings.compared(drawn),
        "figures": side_by_side(drawn),
        "left_out": len(runs) - len(drawn),
    }


def names(folders: Sequence[Path]) -> list[str]:
    """What tells the folders apart: their paths without the part that all share."""
    paths = [str(folder.absolute()) for folder in folders]
    above = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, above) for path in paths]


def keys(runs: Mapping[str, RunFolder]) -> Table:
    """A row for each key that is not the same in all runs."""
    every = dict.fromkeys(key for run in runs.values() for key in run.config if key not in NOT_TOLD)
    rows = [[key, *(shown(run.config, key) for run in runs.values())] for key in every]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    return Table("Keys that differ", ["", *runs], differing)


def measures(runs: Mapping[str, RunFolder]) -> Table:
    """A row for each metric, the best of a row marked."""
    found = {name: metrics.numbers(run.measured) for name, run in runs.items()}
    every = dict.fromkeys(metric for values in found.values() for metric in values)
    return Table(
        "Metrics", ["", *runs], [[name, *marked(name, [v.get(name) for v in found.values()])] for name in every]
    )


def marked(name: str, values: Sequence[float | None]) -> list[str]:
    """The values as text; the best has a star, where it is known which way is better and they are not all equal."""
    known = {value for value in values if value is not None}
    direction = DIRECTIONS.get(name)
    best = (max(known) if direction == "higher" else min(known)) if direction and len(known) > 1 else None
    return [ABSENT if value is None else number(float(value)) + STAR * (value == best) for value in values]


def costs(runs: Mapping[str, RunFolder]) -> Table:
    """How each ended, the steps of each phase, its time and speed."""
    phases = dict.fromkeys(phase for run in runs.values() for phase in run.steps)
    rows = [
        ["outcome", *(str(run.status.get("outcome", "not begun")) for run in runs.values())],
        ["measured", *(run.measured_at or ABSENT for run in runs.values())],
        *([f"steps of {one}", *(number(run.steps.get(one, (None, 0))[0]) for run in runs.values())] for one in phases),
        ["hours", *(duration(sum(run.launches) if run.launches else None) for run in runs.values())],
        *([f"samples/s, {one}", *(number(run.rates.get(one)) for run in runs.values())] for one in phases),
        ["machine", *(str(run.about.get("machine", ABSENT)) for run in runs.values())],
        ["warnings", *(str(len(run.warnings)) for run in runs.values())],
    ]
    return Table("How they went", ["", *runs], rows)


def side_by_side(runs: Mapping[str, RunFolder]) -> dict[str, list[Picture]]:
    """Figure -> that of each run, under the run's name."""
    found: dict[str, list[Picture]] = {}
    for name, run in runs.items():
        for one in pictures(run.path / "figures"):
            found.setdefault(one.name, []).append(Picture(name, one.data))
    return found


def shown(config: Mapping[str, Any], key: str) -> str:
    return number(config[key]) if key in config else ABSENT


def folders_in(paths: Iterable[Path]) -> list[Path]:
    """The folders of runs among these."""
    return [path for path in paths if (path / "config.yaml").is_file()]
