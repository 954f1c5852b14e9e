"""What the cells of figure 9 measure: on held-out training samples while they train, on the test set once."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from savae_dist.errors import ConfigError
from savae_dist.evaluation import report
from savae_dist.files import read_object, write_json
from savae_dist.pages import curves
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.sweeps.figure9.plan import Grid, row_of
from savae_dist.sweeps.trials import Trial

LAST = 5  # validations that a figure is the mean of: flips swing by tens of points within a run
MEASURES = ("class_flip_rate", "judge_flip_rate", "sharpness", "reconstruction_mse")
Values = Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """A place of the grid, (row, beta, gamma), with what each seed measured there."""

    row: str
    beta: str
    gamma: str
    of_seeds: tuple[Values, ...]

    def all(self, measure: str) -> list[float]:
        return [values[measure] for values in self.of_seeds]

    def mean(self, measure: str) -> float:
        return statistics.mean(self.all(measure))


def selection(trial: Trial) -> Values | None:
    """The means over the last validations of a finished run; None if it is not finished."""
    if trial.exit_code != 0:
        return None
    drawn = curves.read(trial.folder)
    summary = read_object(trial.folder / "summary.json")
    last = {}
    for measure in MEASURES:
        # A resumed run writes a validation again: the later one counts. Earlier versions logged none at the run's end.
        by_step = dict(zip(*drawn.get(f"validation/{measure}", ((), ())), strict=True))
        by_step[sum(summary["steps"].values())] = float(summary[measure])
        last[measure] = statistics.mean([by_step[step] for step in sorted(by_step)][-LAST:])
    return last


def class_mean_mse(grid: Grid) -> float | None:
    """That of the held-out samples, which all runs share."""
    for trial in (*grid.cells, *grid.phase_1.values()):
        if (value := read_object(trial.folder / "summary.json").get("class_mean_mse")) is not None:
            return float(value)
    return None


def test(trial: Trial, shards: str, judge: Pipeline) -> Values:
    """The same measures of the test set, by the networks as the run leaves them; measured once and kept.

    ConfigError where they are kept of other shards.
    """
    file = trial.folder / "test.json"
    if not file.is_file():
        pipeline = Pipeline.from_pretrained(trial.folder)
        values = report.evaluate(pipeline, report.batches(report.open_reader(shards, pipeline)), judge=judge)
        write_json(file, {"shards": shards, **{measure: values[measure] for measure in MEASURES}})
    kept = read_object(file)
    if kept["shards"] != shards:
        raise ConfigError(
            f"{file} is of {kept['shards']}, not of {shards}, and the test set is scored once: choose another folder"
        )
    return {measure: float(kept[measure]) for measure in MEASURES}


def points(cells: Iterable[Trial], measured: Mapping[Path, Values | None]) -> list[Point]:
    """The places of the grid at which at least one seed is finished, in the grid's order. measured: by folder."""
    seeds: dict[tuple[str, str, str], list[Values]] = {}
    for trial in cells:
        if (values := measured[trial.folder]) is not None:
            place = (row_of(trial), trial.varied["beta"], trial.varied["gamma"])
            seeds.setdefault(place, []).append(values)
    return [Point(*place, tuple(values)) for place, values in seeds.items()]
