"""SIGTERM at named points of a run, to one process or to one or both of two ranks; then the same command again.

The signal is sent by the process itself, from within the function that the point names. It must end with 75, the last
checkpoint must be of the last step that was finished (no step is lost, before the first there is none), and the same
command must end with the weights and the pipeline of the undisturbed run, bit for bit. Where training was over, to
finish is as good. With `slow` the point takes longer than the ranks may take to agree on a step.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from attacks.common import Report, emptied, last_line, made_data, result, try_all
from helpers import forked

from savae_dist.data import Reader, Shards
from savae_dist.run.checkpoints import checkpoint
from savae_dist.run.checkpoints.contents import Contents
from savae_dist.run.reporting.status_file import Status
from savae_dist.run.results import Results
from savae_dist.run.run import Run
from savae_dist.run.validation import Validation
from savae_dist.training.engine import PreparedUpdate

RUN = ["networks.width=1", "networks.pools=1", "system.latent_dim=2", "system.critic_steps=1", "data.batch_size=8"]
RUN += ["data.lanes=2", "max_steps=6", "checkpoint_every=4", "validate_every=3", "log_every=1", "timeout=30"]
RUN += ["data.train=data", "data.validation=data", "output=run"]
# Name -> the function that is called there: the signal is sent at its first call after so many finished steps.
POINTS: dict[str, tuple[Any, str, int]] = {
    "start": (Shards, "open", 0),
    "first iteration": (PreparedUpdate, "step", 0),
    "data wait": (Reader, "__getitem__", 2),
    "validation": (Validation, "measure", 3),
    "saving": (Contents, "of", 4),
    "writing": (checkpoint, "write", 4),  # in the thread, while training goes on
    "phase end": (Run, "_end", 6),
    "finishing": (Results, "finish", 12),
}
OVER = ("finishing",)  # points at which training is over
PATIENCE = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "7"}  # of which the trainer keeps 5 seconds: 2 to agree on a step
SLOW = 4.0


class Case(NamedTuple):
    """To whom it is sent: `only` (one process), `rank 0`, `rank 1` or `both`; slow: the point takes some seconds."""

    point: str
    to: str
    slow: bool = False

    def __str__(self) -> str:
        return f"{self.point}, {self.to}{', slow' * self.slow}"


CASES = [
    *(Case(point, to) for point in POINTS for to in ("only", "both")),
    *(Case(point, "rank 1") for point in ("first iteration", "data wait")),
    *(Case(point, "both", slow=True) for point in ("data wait", "validation", "saving", "writing", "finishing")),
]


@dataclass(frozen=True)
class Signalled:
    """Send this process SIGTERM at the case's point, if it is meant; count finished steps in a file, a byte each."""

    case: Case | None
    steps: Path

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.steps.open("ab", buffering=0) as steps:
            if self.case is not None:
                owner, name, after = POINTS[self.case.point]
                setattr(owner, name, self._signalling(vars(owner)[name], after))
            beat = Status.beat

            def counted(status: Status, phase: str, step: int) -> None:
                steps.write(b".")
                beat(status, phase, step)

            Status.beat = counted
            yield

    def _signalling(self, plain: Any, after: int) -> Any:
        of_class, sent = isinstance(plain, classmethod), False
        function: Callable[..., Any] = plain.__func__ if of_class else plain

        def signalling(*arguments: Any, **more: Any) -> Any:
            nonlocal sent
            if not sent and self.steps.stat().st_size >= after:
                sent = True
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(SLOW if self.case and self.case.slow else 0.3)
            return function(*arguments, **more)

        return classmethod(signalling) if of_class else signalling


def attack(work: Path, seed: int = 0, count: int | None = None, jobs: int = 2, only: str = "") -> Report:
    """All cases, or `count` of them drawn by the seed, or the one that is named like "saving, both"."""
    made_data(emptied(work / "origin"))
    expected = {}
    for ranks in (1, 2):
        folder = work / f"undisturbed-{ranks}"
        shutil.copytree(work / "origin", folder)
        ended = forked.train(RUN, folder, *[Signalled(None, work / f"steps-{ranks}")] * ranks)
        assert ended.codes == [0] * ranks, ended.output
        expected[ranks] = result(folder / "run")
    drawn = random.Random(seed).sample(CASES, count) if count else CASES
    chosen = [case for case in drawn if only in ("", str(case))]
    return try_all("signals", chosen, lambda case: signalled(work, case, expected), jobs)


def signalled(work: Path, case: Case, expected: dict[int, dict[str, str]]) -> str | None:
    """What went wrong with one signal and the start after it; None if nothing did."""
    folder, ranks = work / str(case).replace(", ", "-").replace(" ", "-"), 1 if case.to == "only" else 2
    shutil.copytree(work / "origin", folder)
    steps = [folder.with_name(f"{folder.name}.steps-{rank}") for rank in range(ranks)]
    meant = [case.to in ("only", "both", f"rank {rank}") for rank in range(ranks)]
    around = [Signalled(case if mine else None, file) for mine, file in zip(meant, steps, strict=True)]
    first = forked.train(RUN, folder, *around, seconds=60, variables=PATIENCE)
    problem = lost(folder / "run", case, first, steps[0].stat().st_size)
    if problem is None:
        again = forked.train(RUN, folder, *[Signalled(None, file) for file in steps])
        if again.codes != [0] * ranks:
            problem = f"the start after it ended with {again.codes}: {last_line(again.output)}"
        elif result(folder / "run") != expected[ranks]:
            problem = "the start after it ended with other weights or another pipeline"
    shutil.rmtree(folder)
    return problem and f'{case}: {problem}; again: python tests/attacks signals --only "{case}"'


def lost(run: Path, case: Case, ended: forked.Ended, finished: int) -> str | None:
    """What a signalled launch did wrong, which had finished so many steps."""
    if finished < POINTS[case.point][2]:
        return f"ended after {finished} steps, before its point"
    if set(ended.codes) != {75} and not (case.point in OVER and set(ended.codes) == {0}):
        return f"ended with {ended.codes}, not 75: {last_line(ended.output)}"
    newest = checkpoint.newest(run / "checkpoints") if finished else None
    saved = checkpoint.read_state(newest).total if newest is not None else 0
    return f"{finished} steps were finished and {saved} saved" if saved != finished else None
