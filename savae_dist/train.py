"""Entry point: configuration -> data, system, networks -> phases -> pipeline.

accelerate launch -m savae_dist.train [PRESET or FILE.yaml] [key=value ...] [--print-config | --check]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState

from savae_dist import config as configuration
from savae_dist import launch, resolve
from savae_dist.errors import ConfigError, UserError
from savae_dist.run import Run
from savae_dist.tracking import Status


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="savae_dist.train", description="Train an adversarial VAE.")
    parser.add_argument("config", nargs="*", metavar="PRESET|FILE.yaml|key=value", help="what to train, and changes")
    parser.add_argument("--print-config", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument(
        "--check", action="store_true", help="do everything up to the first step, and say what is there"
    )
    options = parser.parse_intermixed_args(argv)
    try:
        config = resolve.load(options.config)
        if options.print_config:
            print(configuration.to_yaml(config), end="")
            return 0
        return train(config, options.check)
    except UserError as error:
        if launch.is_main() or not error.everywhere:
            print(f"savae_dist: {error}", file=sys.stderr)
        return error.code


def train(config: configuration.RunConfig, check: bool = False) -> int:
    """Train, or continue, the run that `config` describes; its folder's status.json tells how it ended."""
    state = launch.start(config.precision)
    status = Status(Path(config.output or "."), state.is_main_process and not check)
    try:
        with opened(config, state, status) as run:
            if check:
                report = run.check()
                if state.is_main_process:
                    print(report)
                return 0
            run.tracker.say(run.description())
            for phase in run.remaining_phases():
                run.train(phase)
            run.finish()
    except UserError as error:
        status.end(type(error).__name__, error.code, str(error), alone=not error.everywhere)
        raise
    except BaseException as error:
        status.end("failed", 1, f"{type(error).__name__}: {error}")
        raise
    status.end("done", 0)
    return 0


def opened(config: configuration.RunConfig, state: PartialState, status: Status) -> Run:
    """The run, ready to train; what does not fit together there (a ValueError) is the configuration's fault."""
    try:
        return Run(config, state, status)
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from error


if __name__ == "__main__":
    sys.exit(main())
