"""Train every combination of some values, measure each, and print one table.

    python tools/sweep.py CONFIG[,CONFIG...] OUT key=v1,v2 ... [--jobs N] [--evaluate SHARDS [--judge PIPELINE]]

    python tools/sweep.py mnist_k2 sweeps/beta system.beta=0,0.005,0.01 seed=0,1,2
    python tools/sweep.py dcgan,wgan,vae_gan sweeps/gans seed=0,1,2 --evaluate shards/mnist/test --judge runs/mnist_k100
    python tools/sweep.py launch_configs/comparisons/mnist.yaml sweeps/mnist seed=0,1,2

CONFIG is a preset or a YAML file, values are separated by commas outside brackets. Or CONFIG is a comparison, a YAML
file with the trainer's arguments of each run by a name, `compare: {NAME: [PRESET, key=value, ...], ...}`, and perhaps
arguments of all, `common: [key=value, ...]`. With `--trainer FILE.py` the runs are of a system of one's own, which that
file enters and trains.

Each run is started as its users start it, in a folder of OUT with a log beside it. What is finished is not run again,
so the same command goes on where it was stopped. A run that diverges is a result. OUT/results.csv holds a row per run;
the printed table has the mean and the standard deviation over the seeds; OUT/samples.png shows samples of each
combination's first run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from savae_dist.errors import ConfigError, UserError
from savae_dist.evaluation import figures
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.systems.own import enter

if __package__:
    from .trials import Trial, combine, read_json, split
else:
    from trials import Trial, combine, read_json, split  # type: ignore[no-redef]

Row = dict[str, Any]
COLUMNS = (
    *("accuracy", "reconstruction_mse", "class_mean_mse", "sharpness", "sample_sharpness", "frechet_distance"),
    *("frechet_floor", "judge_confidence", "class_balance", "inception_score", "label_frechet_distance"),
    *("label_agreement", "training_seconds"),
)


def share_cores(jobs: int) -> None:
    """Among the runs that are started from now on: threads of several would spin against each other."""
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))


def run(trial: Trial, launch: str | None, trainer: str | None = None) -> None:
    """Start the trainer, or let it go on, unless this trial is ended; what it says goes into the log."""
    if trial.exit_code is not None:
        return
    options = ["--config_file", launch] if launch else []
    program = [trainer] if trainer else ["-m", "savae_dist.train"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", *options, *program]
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    with log_of(trial).open("a") as log:
        subprocess.run(
            [*command, *trial.arguments, f"output={trial.folder}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,  # status.json has the true code
        )


def log_of(trial: Trial) -> Path:
    """Beside its folder."""
    return trial.folder.parent / f"{trial.folder.name}.log"


def evaluate(trial: Trial, shards: str, judge: str | None, trainer: str | None = None) -> None:
    """`evaluate.py` on a finished run, again only if it was asked for other shards or another judge."""
    out = trial.folder / "evaluation"
    asked = {"shards": str(Path(shards).absolute()), "judge": judge}
    if trial.exit_code != 0 or (read_json(out / "asked.json") == asked and (out / "metrics.json").is_file()):
        return
    command = [sys.executable, str(Path(__file__).with_name("evaluate.py")), str(trial.folder), shards, str(out)]
    command += [*(["--judge", judge] if judge else []), *(["--trainer", trainer] if trainer else [])]
    with log_of(trial).open("a") as log:
        ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        raise ConfigError(f"{trial.folder}: evaluate.py ended with {ended.returncode}; see {log_of(trial)}")
    (out / "asked.json").write_text(json.dumps(asked))


def row(trial: Trial) -> Row:
    """What is known of a trial; the evaluation's numbers go before the validation's of the run."""
    summary = read_json(trial.folder / "summary.json")
    metrics = read_json(trial.folder / "evaluation" / "metrics.json")
    seconds, size = 0.0, trial.resolved.data.batch_size
    for phase, steps in summary.get("steps", {}).items():
        rate = summary["samples_per_second"].get(phase)
        seconds += steps * size / rate if rate else 0.0
    asked = read_json(trial.folder / "evaluation" / "asked.json").get("shards")
    validation = trial.resolved.data.validation
    if isinstance(validation, str) and asked == str(Path(validation).absolute()):  # the run has their baselines
        metrics = {name: value for name, value in metrics.items() if value is not None}
    numbers = {k: v for k, v in (summary | metrics).items() if isinstance(v, int | float) and k != "seed"}
    status = read_json(trial.folder / "status.json")
    end = {"outcome": status.get("outcome", "not started"), "exit_code": status.get("exit_code")}
    return {**trial.varied, **end, "training_seconds": seconds or None, **numbers, "folder": str(trial.folder)}


def write_csv(rows: Sequence[Row], path: Path) -> None:
    names = list(dict.fromkeys(name for one in rows for name in one))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def markdown(rows: Sequence[Row], varied: Iterable[str], columns: Sequence[str]) -> str:
    """A line per combination of all varied keys but the seed: mean ± standard deviation over its finished runs."""
    keys = [key for key in varied if key != "seed"]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for one in rows:
        groups.setdefault(tuple(one[key] for key in keys), []).append(one)
    shown = [name for name in columns if any(one.get(name) is not None for one in rows)]
    lines = [[*keys, "runs", *shown], ["---"] * (len(keys) + 1 + len(shown))]
    for group, members in groups.items():
        done = [one for one in members if one["exit_code"] == 0]
        others = [str(one["outcome"]) for one in members if one["exit_code"] != 0]
        count = ", ".join([str(len(done)), *(f"{others.count(kind)} {kind}" for kind in dict.fromkeys(others))])
        lines.append([*group, count, *(cell([one.get(name) for one in done]) for name in shown)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.2g}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.4g}{deviation}"


def draw(found: Sequence[Trial], out: Path) -> None:
    """`samples.png`: a row for the first finished run of each combination, as many as there is room for."""
    pipelines: dict[str, Pipeline] = {}
    for trial in found:
        name = " ".join(value for key, value in trial.varied.items() if key != "seed") or trial.folder.name
        if trial.exit_code == 0 and name not in pipelines and len(pipelines) < figures.MAX_ROWS:
            pipeline = Pipeline.from_pretrained(trial.folder)
            first = next(iter(pipelines.values()), pipeline)
            if "decoder" in pipeline.networks and pipeline.spec == first.spec:  # systems of others may have none
                pipelines[name] = pipeline
    if pipelines:
        figures.save(figures.samples_of_each(pipelines), out / "samples.png")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train every combination of some values, and tabulate the results.")
    parser.add_argument("config", help="presets or YAML files, separated by commas, or a comparison")
    parser.add_argument("out", type=Path, help="folder of the runs and of results.csv")
    parser.add_argument("axes", nargs="*", metavar="key=v1,v2", help="values to combine; one value is for all runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    parser.add_argument("--launch", metavar="FILE", help="Accelerate's launch file; without one, its own default")
    parser.add_argument("--trainer", metavar="FILE.py", help="in place of savae_dist.train; systems of one's own")
    parser.add_argument("--evaluate", metavar="SHARDS", help="measure every finished run on these shards")
    parser.add_argument("--judge", help="a pipeline that judges them")
    parser.add_argument(
        "--columns", type=split, default=COLUMNS, metavar="NAME,...", help="of the printed table (%(default)s)"
    )
    options = parser.parse_intermixed_args(argv)
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    if options.judge and not options.evaluate:
        parser.error("--judge needs --evaluate SHARDS")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    share_cores(options.jobs)

    def one(trial: Trial) -> Row:
        run(trial, options.launch, options.trainer)
        if options.evaluate:
            evaluate(trial, options.evaluate, options.judge, options.trainer)
        values = row(trial)
        print(f"{trial.folder.name}: {values['outcome']}", file=sys.stderr)
        return values

    try:
        if options.trainer:
            enter(options.trainer)
        if options.judge:
            Pipeline.from_pretrained(options.judge)  # that it is there shows now, not after the first training
        found = combine(options.config, options.out, options.axes)
        with ThreadPoolExecutor(options.jobs) as pool:
            rows = list(pool.map(one, found))
        write_csv(rows, options.out / "results.csv")
        draw(found, options.out)
    except (UserError, OSError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return error.code if isinstance(error, UserError) else 1
    print(markdown(rows, found[0].varied, options.columns))
    for name in options.columns if options.columns != COLUMNS else ():
        if not any(name in one for one in rows):
            print(f"sweep: --columns: no run has `{name}`; results.csv names what there is", file=sys.stderr)
    failed = [trial for trial in found if trial.exit_code is None]
    for trial in failed:
        print(f"sweep: {trial.folder.name} did not end well; see {log_of(trial)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
