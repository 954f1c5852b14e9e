"""Figure 9 as one command: every run in its order, the decision, then the test set, once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from savae_dist.errors import ConfigError
from savae_dist.evaluation import report as evaluation
from savae_dist.files import write_json, write_text
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.sweeps import running
from savae_dist.sweeps.figure9 import classes, cost, measured, report
from savae_dist.sweeps.figure9.plan import Grid, Plan, row_of
from savae_dist.sweeps.trials import Trial

DECISION = "decision.json"


def listed(grid: Grid, command: str) -> list[str]:
    """A line per run, in an order in which each finds what it starts from. command: the tool's, with CONFIG and OUT."""
    return [f"{command} --cell {number}  # {trial.folder.name}" for number, trial in enumerate(grid.runs)]


def one(grid: Grid, number: int, launch: str | None = None) -> Trial:
    """Run the trial of that number; ConfigError if there is none, or if what it starts from is not finished."""
    if not 0 <= number < len(grid.runs):
        raise ConfigError(f"--cell {number}: there are {len(grid.runs)} runs, from 0 on; --list names them")
    trial = grid.runs[number]
    for before in grid.needs(trial):
        if before.exit_code != 0:
            at = grid.runs.index(before)
            raise ConfigError(f"--cell {number} starts from {before.folder.name}, not finished: run --cell {at} first")
    _run(trial, launch)
    return trial


def whole(plan: Plan, grid: Grid, out: Path, jobs: int, launch: str | None = None) -> None:
    """Run what is not finished, after telling what it costs."""
    if all(trial.exit_code is not None for trial in grid.runs):
        return
    out.mkdir(parents=True, exist_ok=True)
    told = cost.minutes(plan, grid, out, jobs)
    print(f"sweep: about {told:.0f} minutes for what is left of {len(grid.runs)} runs", file=sys.stderr)
    for stage in ([grid.judge], list(grid.phase_1.values()), grid.cells):
        running.for_each(stage, lambda trial: _run(trial, launch), jobs)
        if stage is not grid.cells and (failed := [trial for trial in stage if trial.exit_code != 0]):
            raise ConfigError(f"{failed[0].folder.name} did not end well; see {running.log_of(failed[0])}")


def _run(trial: Trial, launch: str | None) -> None:
    running.run(trial, launch)
    ended = "ended" if trial.exit_code is not None else f"did not end; see {running.log_of(trial)}"
    print(f"{trial.folder.name}: {ended}", file=sys.stderr)


def conclude(plan: Plan, grid: Grid, out: Path) -> list[str]:
    """Markdown of what is finished. The decision is written first; then each whole row is scored on the test set.

    The pictures lie in `out`, and the text in figure9.md.
    """
    chosen = measured.points(grid.cells, {cell.folder: measured.selection(cell) for cell in grid.cells})
    if not chosen:
        raise ConfigError(f"{out} holds no finished cell yet; --list names the commands that run them")
    baseline = measured.class_mean_mse(grid)
    lines = ["## On the held-out part of the training set", "", *report.table(chosen, baseline), ""]
    decided = report.decisions(chosen)
    write_json(out / DECISION, {row: asdict(decision) for row, decision in decided.items()})
    lines += [f"- {report.told(row, decision)}" for row, decision in decided.items()]
    report.draw_curves(chosen, baseline, "held-out training images", out, "selection")
    tested, missing = _whole_and_missing(grid)
    lines += ["", *(f"Not finished: {name}." for name in missing)]
    if tested:
        judge = Pipeline.from_pretrained(grid.judge.folder)
        scored = measured.points(tested, {cell.folder: measured.test(cell, plan.test, judge) for cell in tested})
        lines += ["## On the test set, scored once", "", *report.table(scored, None)]
        report.draw_curves(scored, None, "test images", out, "test")
        report.draw_images(tested, plan.test, judge, out)
    for (name, seed), trial in grid.phase_1.items():
        if seed == plan.seeds[name][0] and trial.exit_code == 0:
            lines += ["", f"## Centroids of the classes in the code, {name}, seed {seed}", ""]
            pipeline = Pipeline.from_pretrained(trial.folder)
            lines += classes.told(pipeline, evaluation.batches(evaluation.open_reader(plan.test, pipeline)))
    write_text(out / "figure9.md", "\n".join(lines) + "\n")
    return lines


def _whole_and_missing(grid: Grid) -> tuple[Sequence[Trial], list[str]]:
    """The cells of every row that has ended, without those that diverged; and the names of the unfinished."""
    missing = [cell for cell in grid.cells if cell.exit_code is None]
    open_rows = {row_of(cell) for cell in missing}
    ended = [cell for cell in grid.cells if row_of(cell) not in open_rows and cell.exit_code == 0]
    return ended, [cell.folder.name for cell in missing]
