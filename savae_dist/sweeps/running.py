"""Start the runs of a sweep as their users would, each with a log beside its folder, and evaluate what is finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from savae_dist.errors import ConfigError
from savae_dist.files import read_object
from savae_dist.sweeps.trials import Trial
from savae_dist.tool_command import tool_command

OWN = ""  # in place of shards: what each run was validated on

T = TypeVar("T")


def for_each(trials: Sequence[Trial], work: Callable[[Trial], T], jobs: int) -> list[T]:
    """work(trial) of all, `jobs` at a time, in the order of the trials."""
    if jobs > 1:  # the cores are shared among the runs: threads of several would spin against each other
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(work, trials))


def run(trial: Trial, launch: str | None = None, trainer: str | None = None) -> None:
    """Start the trainer, or let it go on, unless this trial is ended; what it says goes into the log.

    launch: Accelerate's launch file. trainer: a file in place of savae_dist.train.
    """
    if trial.exit_code is not None:
        return
    options = ["--config_file", launch] if launch else []
    program = [trainer] if trainer else ["-m", "savae_dist.train"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", *options, *program]
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    _logged([*command, *trial.arguments, f"output={trial.folder}"], trial)  # status.json has the true exit code


def evaluate(trial: Trial, shards: str, judge: str | None, trainer: str | None = None) -> None:
    """`evaluate.py` on a finished run, again only if it was asked for other shards or another judge.

    shards: or `OWN`. trainer: the file that enters systems and networks of one's own.
    """
    out = trial.folder / "evaluation"
    asked = {"shards": str(Path(shards).absolute()) if shards else OWN, "judge": judge}
    if trial.exit_code != 0 or (read_object(out / "asked.json") == asked and (out / "metrics.json").is_file()):
        return
    options = [*(["--judge", judge] if judge else []), *(["--trainer", trainer] if trainer else [])]
    code = _logged([*tool_command("evaluate"), str(trial.folder), *filter(None, [shards]), str(out), *options], trial)
    if code:
        raise ConfigError(f"{trial.folder}: evaluate.py ended with {code}; see {log_of(trial)}")
    (out / "asked.json").write_text(json.dumps(asked))


def log_of(trial: Trial) -> Path:
    """Beside its folder."""
    return trial.folder.parent / f"{trial.folder.name}.log"


def _logged(command: Sequence[str], trial: Trial) -> int:
    """Run a command, add what it says to the trial's log, and return its exit code."""
    with log_of(trial).open("a") as log:
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
