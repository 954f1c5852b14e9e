"""Train every combination of some values, measure each, and print one table.

    python tools/sweep.py CONFIG[,CONFIG...] OUT key=v1,v2 ... [--jobs N] [--evaluate [SHARDS] [--judge PIPELINE]]

    python tools/sweep.py mnist_k2 sweeps/beta system.beta=0,0.005,0.01 seed=0,1,2
    python tools/sweep.py dcgan,wgan,vae_gan sweeps/gans seed=0,1,2 --evaluate shards/mnist/test --judge runs/mnist_k100
    python tools/sweep.py launch_configs/comparisons/mnist.yaml sweeps/mnist seed=0,1,2
    python tools/sweep.py launch_configs/comparisons/figure9.yaml sweeps/figure9 [--list | --cell N]

CONFIG is a preset or a YAML file, values are separated by commas outside brackets. Or CONFIG is a comparison, a YAML
file with the trainer's arguments of each run by a name, `compare: {NAME: [PRESET, key=value, ...], ...}`, and perhaps
arguments of all, `common: [key=value, ...]`. With `--trainer FILE.py` the runs are of a system of one's own, which that
file enters and trains.

Or CONFIG is a plan of figure 9, which has its axes in it. `--list` prints a command per run for a cluster's job array,
and `--cell N` runs one. Without either, the minutes are told, what is not finished is run, and OUT/figure9.md and its
pictures are written.

Each run is started as its users start it, in a folder of OUT with a log beside it. What is finished is not run again,
so the same command goes on where it was stopped. A run that diverges is a result. OUT/results.csv holds a row per run;
the printed table has the mean and the standard deviation over the seeds; OUT/samples.png shows samples of each
combination's first run, OUT/curves.png the curves of up to ten; OUT/report.html is a page of it all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from savae_dist.errors import UserError
from savae_dist.pages.sweep import note_sweep, write_sweep
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.sweeps import results, running
from savae_dist.sweeps.figure9 import command, plan
from savae_dist.sweeps.results import COLUMNS, Row
from savae_dist.sweeps.running import OWN
from savae_dist.sweeps.trials import Trial, combine, split
from savae_dist.systems.own import enter
from savae_dist.tool_command import as_typed, tool_parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(description="Train every combination of some values, and tabulate the results.")
    parser.add_argument("config", help="presets or YAML files, separated by commas, or a comparison")
    parser.add_argument("out", type=Path, help="folder of the runs and of results.csv")
    parser.add_argument("axes", nargs="*", metavar="key=v1,v2", help="values to combine; one value is for all runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    parser.add_argument("--launch", metavar="FILE", help="Accelerate's launch file; without one, its own default")
    parser.add_argument("--trainer", metavar="FILE.py", help="in place of savae_dist.train; systems of one's own")
    parser.add_argument(
        "--evaluate", nargs="?", const=OWN, metavar="SHARDS", help="measure finished runs; on their own validation sets"
    )
    parser.add_argument("--judge", help="a pipeline that judges them")
    parser.add_argument(
        "--columns",
        type=split,
        default=COLUMNS,
        metavar="NAME,...",
        help=f"of the printed table ({','.join(COLUMNS)})",
    )
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--list", action="store_true", help="of a plan of figure 9: print a command per run")
    one.add_argument("--cell", type=int, metavar="N", help="of a plan of figure 9: run the one of that number")
    options = parser.parse_intermixed_args(argv)
    options.plan = plan.is_plan(options.config)
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    if not options.plan and (options.list or options.cell is not None):
        parser.error("--list and --cell are of a plan of figure 9")
    if options.plan and (options.axes or options.evaluate is not None or options.trainer):
        parser.error("a plan of figure 9 has its axes and its test set in it, and no --trainer")
    if options.judge and options.evaluate is None:
        parser.error("--judge needs --evaluate")
    return options


def run_plan(options: argparse.Namespace) -> int:
    """Figure 9: list its runs, run one, or run what is left and report."""
    asked = plan.read(Path(options.config))
    grid = plan.grid(asked, options.out)
    if options.list:
        print("\n".join(command.listed(grid, f"python tools/sweep.py {options.config} {options.out}")))
        return 0
    if options.cell is not None:
        return 0 if command.one(grid, options.cell, options.launch).exit_code is not None else 1
    command.whole(asked, grid, options.out, options.jobs, options.launch)
    print("\n".join(command.conclude(asked, grid, options.out)))
    return 0 if all(trial.exit_code is not None for trial in grid.runs) else 1


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)

    def one(trial: Trial) -> Row:
        running.run(trial, options.launch, options.trainer)
        if options.evaluate is not None:
            running.evaluate(trial, options.evaluate, options.judge, options.trainer)
        values = results.row(trial)
        print(f"{trial.folder.name}: {values['outcome']}", file=sys.stderr)
        return values

    try:
        if options.plan:
            return run_plan(options)
        if options.trainer:
            enter(options.trainer)
        if options.judge:
            Pipeline.from_pretrained(options.judge)  # fail before the first training if it is missing
        found = combine(options.config, options.out, options.axes)
        rows = running.for_each(found, one, options.jobs)
        results.write_csv(rows, options.out / "results.csv")
        results.draw(found, options.out)
        lines = results.table(rows, found[0].varied, options.columns)
        note_sweep(options.out, lines, as_typed("sweep", argv))
        write_sweep(options.out)
    except (UserError, OSError) as error:
        print(f"sweep: {error}", file=sys.stderr)
        return error.code if isinstance(error, UserError) else 1
    print(results.markdown(lines))
    for name in options.columns if options.columns != COLUMNS else ():
        if not any(name in one for one in rows):
            print(f"sweep: --columns: no run has `{name}`; results.csv names what there is", file=sys.stderr)
    failed = [trial for trial in found if trial.exit_code is None]
    for trial in failed:
        print(f"sweep: {trial.folder.name} did not end well; see {running.log_of(trial)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
