"""Entry point: configuration -> data, system, networks -> phases -> pipeline.

accelerate launch -m savae_dist.train [PRESET or FILE.yaml] [key=value ...] [--print-config | --check | --plan]
or --profile N, which trains and shows where the time goes.
savae-train --launch FILE ... starts Accelerate's launcher itself, and ends with the trainers' own line and code.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from savae_dist.config import names
from savae_dist.config.identity import to_yaml
from savae_dist.distributed.environment import is_main, leave_word
from savae_dist.errors import Preempted, UserError
from savae_dist.streams import spared_streams
from savae_dist.tool_command import tool_parser

BANDWIDTH = 10.0  # Gbit per second between two processes, where `--bandwidth` names no other


def main(argv: Sequence[str] | None = None) -> int:
    with spared_streams():  # training goes on without its terminal or log
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = tool_parser(prog="savae_dist.train", description="Train an adversarial VAE.")
    parser.add_argument("config", nargs="*", metavar="PRESET|FILE.yaml|key=value", help="what to train, and changes")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument(
        "--check", action="store_true", help="do everything up to the first step, and say what is there"
    )
    parser.add_argument(
        "--plan", action="store_true", help="predict memory, traffic and time on 1 to 64 processes; train nothing"
    )
    parser.add_argument(
        "--bandwidth", type=float, metavar="GBIT", help=f"Gbit/s between two processes, for --plan ({BANDWIDTH:g})"
    )
    parser.add_argument(
        "--profile", type=int, metavar="N", help="train, and record N iterations of each phase with torch's profiler"
    )
    parser.add_argument(
        "--launch",
        metavar="FILE",
        help="start the processes that this launch file of Accelerate describes; with options of its launcher in "
        "quotes: --launch 'FILE --num_processes 4'",
    )
    options = parser.parse_intermixed_args(argv)
    if options.bandwidth is not None and not (options.plan and 0 < options.bandwidth < math.inf):
        parser.error(f"--bandwidth={options.bandwidth:g} goes with --plan, and must be a positive number")
    if options.profile is not None and (options.profile < 1 or options.print_config or options.check or options.plan):
        parser.error(f"--profile={options.profile} is a number of iterations, of a run that trains")
    try:
        # If a program has loaded the systems, it may have added its own: `load` asks the registry.
        if "savae_dist.systems" not in sys.modules:
            names.check(options.config)
    except UserError as error:
        return told(error)
    return _launch(options) if options.launch else _run(options)


def _launch(options: argparse.Namespace) -> int:
    from savae_dist.distributed.launcher import launch

    flags = ["--print-config"] * options.print_config + ["--check"] * options.check + _plan_flags(options)
    flags += [] if options.profile is None else [f"--profile={options.profile}"]
    try:
        return launch(options.launch, [*options.config, *flags])
    except UserError as error:
        return told(error)


def _plan_flags(options: argparse.Namespace) -> list[str]:
    bandwidth = [] if options.bandwidth is None else [f"--bandwidth={options.bandwidth:g}"]
    return ["--plan", *bandwidth] if options.plan else []


def told(error: UserError) -> int:
    """The exit code, after its line was printed: by the first process, or by the only one that knows of it."""
    if is_main() or not error.everywhere:
        print(f"savae_dist: {error}", file=sys.stderr)
    leave_word(error.code, str(error))
    return error.code


def _run(options: argparse.Namespace) -> int:
    # Imported here, since these load torch, which takes longer than to find a misspelt key.
    from savae_dist.distributed.signals import has_peers, leave
    from savae_dist.load_config import load
    from savae_dist.run.lifecycle import train
    from savae_dist.run.planning import plan
    from savae_dist.run.reporting import start_report

    try:
        config = load(options.config)
        if options.print_config:
            print(to_yaml(config), end="")
            return 0
        if options.plan:
            return train(config, partial(plan.report, gigabits=options.bandwidth or BANDWIDTH))
        return train(config, start_report.check if options.check else None, options.profile or 0)
    except UserError as error:
        code = told(error)
    except Exception:
        if not has_peers():
            raise
        traceback.print_exc()
        code = 1
    if has_peers():
        leave(code)
    return code


def program() -> NoReturn:
    """`main` as a program. It ends at once if it was stopped: Python would wait for threads that wait for a store."""
    code = main()
    if code == Preempted.code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    program()
