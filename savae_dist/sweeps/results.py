"""The results of a sweep: a row per run, a table with a line per combination, and a picture of samples of each."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from savae_dist.evaluation.figures import figures
from savae_dist.files import read_object
from savae_dist.pipeline.card.card_data import flat
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.sweeps import curves
from savae_dist.sweeps.running import OWN
from savae_dist.sweeps.trials import Trial

Row = dict[str, Any]
WARNINGS = "warnings"  # the column of their names, which are no numbers
COLUMNS = (
    *("accuracy", "reconstruction_mse", "class_mean_mse", "kl", "sharpness", "sample_sharpness", "frechet_distance"),
    *("frechet_floor", "judge_confidence", "class_balance", "inception_score", "label_frechet_distance"),
    *("label_agreement", "training_seconds"),
)


def row(trial: Trial) -> Row:
    """The row of a trial: its run's validation metrics, overridden by those of its evaluation."""
    summary = read_object(trial.folder / "summary.json")
    metrics = read_object(trial.folder / "evaluation" / "metrics.json")
    seconds, size = 0.0, trial.resolved.data.batch_size
    for phase, steps in summary.get("steps", {}).items():
        rate = summary["samples_per_second"].get(phase)
        seconds += steps * size / rate if rate else 0.0
    asked = read_object(trial.folder / "evaluation" / "asked.json").get("shards")
    validation = trial.resolved.data.validation
    same = isinstance(validation, str) and asked in (OWN, str(Path(validation).absolute()))
    if same:  # the run measured the baselines of the same samples: keep them where the evaluation has none
        metrics = {name: value for name, value in metrics.items() if value is not None}
    numbers = {k: v for k, v in flat(summary | metrics).items() if k != "seed"}
    status = read_object(trial.folder / "status.json")
    end = {"outcome": status.get("outcome", "not started"), "exit_code": status.get("exit_code")}
    values = {"training_seconds": seconds or None, **numbers, WARNINGS: ", ".join(curves.warnings(trial.folder))}
    return {**trial.varied, **end, **values, "folder": str(trial.folder)}


def write_csv(rows: Sequence[Row], path: Path) -> None:
    names = list(dict.fromkeys(name for one in rows for name in one))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """The lines of a table, its head first, as Markdown."""
    head, *rows = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def table(rows: Sequence[Row], varied: Iterable[str], columns: Sequence[str]) -> list[list[str]]:
    """A head, and a line per combination of all varied keys but the seed: mean ± deviation over its finished runs."""
    keys = [key for key in varied if key != "seed"]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for one in rows:
        groups.setdefault(tuple(one[key] for key in keys), []).append(one)
    numbers = (name for name in columns if name != WARNINGS)  # that column comes by itself, where a run has one
    shown = [name for name in numbers if any(one.get(name) is not None for one in rows)]
    warned = [WARNINGS] * any(one.get(WARNINGS) for one in rows)
    lines = [[*keys, "runs", *shown, *warned]]
    for group, members in groups.items():
        done = [one for one in members if one["exit_code"] == 0]
        others = [str(one["outcome"]) for one in members if one["exit_code"] != 0]
        count = ", ".join([str(len(done)), *(f"{others.count(kind)} {kind}" for kind in dict.fromkeys(others))])
        signs = dict.fromkeys(str(one[WARNINGS]) for one in members if one.get(WARNINGS))
        values = (cell([one.get(name) for one in done]) for name in shown)
        lines.append([*group, count, *values, *("; ".join(signs) or "none" for _ in warned)])
    return lines


def cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.2g}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.4g}{deviation}"


def draw(found: Sequence[Trial], out: Path) -> None:
    """`samples.png`: a row for the first finished run of each combination, as many as there is room for.

    `curves.png`: a column for the first run of each, where all find room.
    """
    pipelines: dict[str, Pipeline] = {}
    named = [
        (trial, " ".join(value for key, value in trial.varied.items() if key != "seed") or trial.folder.name)
        for trial in found
    ]
    for trial, name in named:
        if trial.exit_code == 0 and name not in pipelines and len(pipelines) < figures.MAX_ROWS:
            pipeline = Pipeline.from_pretrained(trial.folder)
            first = next(iter(pipelines.values()), pipeline)
            if "decoder" in pipeline.networks and pipeline.spec == first.spec:  # systems of others may have none
                pipelines[name] = pipeline
    begun = {name: trial.folder for trial, name in reversed(named) if (trial.folder / "tensorboard").is_dir()}
    if 0 < len(begun) <= curves.COLUMNS:
        figures.save(curves.draw([(name, begun[name]) for name in reversed(begun)]), out / "curves.png")
    if pipelines:
        figures.save(figures.samples_of_each(pipelines), out / "samples.png")
