"""SIGKILL at any time to one rank, both, or the launcher of two; then the same command again, until it is done.

Each kill comes at a moment that the seed draws, from the start of the launcher on. What is left of the launch must end
by itself within seconds, since it would keep the next one out. In the end weights and pipeline are those of the
undisturbed run, bit for bit.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil
from attacks.common import Report, emptied, last_line, result
from helpers.launching import command, environment, shards, status, trainers

RUN = ["networks.width=4", "system.latent_dim=3", "data.batch_size=16", "log_every=20", "validate_every=1000"]
RUN += ["system.vec_steps=150", "system.decoder_steps=60", "checkpoint_every=10", "keep_checkpoints=1", "timeout=20"]
RUN += ["data.train=data", "data.validation=data", "output=run"]
VICTIMS = ("rank 0", "rank 1", "both ranks", "the launcher")
PATIENCE = 30.0  # for what is left of a launch to end: one that still loads torch has ten seconds to join its peers
LIMIT = 900.0  # for a launch that nobody kills

Look = Callable[[dict[int, int]], None]  # is shown the process of each rank, every second


class Launch:
    """`accelerate launch` of two ranks in `folder`; all processes that are killed are its own."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.log = folder.with_name(f"{folder.name}.log")
        with self.log.open("a") as log:
            words = command(2, *arguments)
            self.launcher = subprocess.Popen(words, cwd=folder, env=environment(), stdout=log, stderr=log)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind, also where the attack itself was interrupted."""
        for process in self._family():
            process.kill()
        self.launcher.wait(30)

    def _family(self) -> list[psutil.Process]:
        """The launcher and all below it."""
        if self.launcher.poll() is not None:
            return []
        launcher = psutil.Process(self.launcher.pid)
        return [launcher, *launcher.children(recursive=True)]

    def ended_within(self, seconds: float, look: Look) -> bool:
        """Whether it ended by itself in that time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.launcher.poll() is not None:
                return True
            look(trainers(self.launcher.pid))
            time.sleep(min(1.0, max(0.0, until - time.monotonic())))
        return False

    def kill(self, victim: str, patience: float = PATIENCE) -> str | None:
        """Kill the victim; what of the launch did not end by itself in `patience` seconds is told, and killed too."""
        family = self._family()
        ranks = trainers(self.launcher.pid) if family else {}
        wanted = {"rank 0": [0], "rank 1": [1], "both ranks": [0, 1]}.get(victim, [])
        victims = [process for process in family if process.pid in [ranks.get(rank) for rank in wanted]]
        for process in victims or family[:1]:
            process.kill()  # unless it has ended: psutil knows it from another process of that number
        until = time.monotonic() + patience
        while time.monotonic() < until and any(alive(process) for process in family):
            self.launcher.poll()
            time.sleep(0.1)
        left = [process for process in family if alive(process)]
        for process in left:
            process.kill()
        self.launcher.wait(30)
        names = ", ".join(f"rank {rank}" for rank, pid in ranks.items() if pid in [one.pid for one in left])
        return f"{names or 'the launcher'} still ran {patience:g} s after {victim} had been killed" if left else None


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def nothing(ranks: dict[int, int]) -> None:
    """Look at nothing."""


def undisturbed(folder: Path, arguments: list[str], look: Look = nothing, limit: float = LIMIT) -> float:
    """Train without a kill; seconds from the start of the launcher to its end."""
    start = time.monotonic()
    with Launch(folder, arguments) as launch:
        assert launch.ended_within(limit, look), f"more than {limit:g} s: {launch.log.read_text()}"
    assert launch.launcher.returncode == 0, launch.log.read_text()
    return time.monotonic() - start


def killed_until_done(
    folder: Path,
    arguments: list[str],
    kills: int,
    draw: Callable[[], tuple[float, str]],
    look: Look = nothing,
    limit: float = LIMIT,
    patience: float = PATIENCE,
) -> tuple[int, list[str]]:
    """Start the command until it is done, and kill it up to `kills` times; how often it was, and what went wrong.

    draw: seconds to wait before the next kill, and its victim.
    """
    done, wrong = 0, []
    for _ in range(2 * kills + 5):
        seconds, victim = draw() if done < kills else (limit, "the launcher")
        with Launch(folder, arguments) as launch:
            ended = launch.ended_within(seconds, look)
            if not ended:
                done += 1
                problem = launch.kill(victim, patience)
                wrong += [problem] if problem else []
        if not ended:
            continue
        if launch.launcher.returncode == 0:
            return done, wrong
        if (said := status(folder / "run"))["exit_code"] != 75:
            return done, [*wrong, f"a start after kill {done} ended with {said}: {last_line(launch.log.read_text())}"]
    return done, [*wrong, f"it was not done after {2 * kills + 5} starts"]


def attack(work: Path, seed: int = 0, count: int = 50) -> Report:
    """`count` kills, in as many runs as they last for.

    What is left of a launch has as long to end as a whole run takes here, which is long on a machine with other work.
    """
    start, chance = time.monotonic(), random.Random(seed)
    shards(emptied(work / "undisturbed") / "data")
    seconds = undisturbed(work / "undisturbed", RUN)
    report, expected, runs = Report("random_kills"), result(work / "undisturbed" / "run"), 0
    while report.tried < count:
        folder, runs = emptied(work / f"run-{runs}"), runs + 1
        shards(folder / "data")
        draw = lambda: (chance.uniform(0, seconds), chance.choice(VICTIMS))  # noqa: E731
        kills, wrong = killed_until_done(
            folder, RUN, count - report.tried, draw, patience=max(PATIENCE, round(seconds))
        )
        report.tried += kills
        report.failures += wrong
        if not wrong and result(folder / "run") != expected:
            report.failures.append(f"run {runs}, killed {kills} times, ended with other weights or another pipeline")
    report.numbers = {"runs": runs, "seconds undisturbed": round(seconds, 1), "seed": seed}
    report.seconds = time.monotonic() - start
    return report
