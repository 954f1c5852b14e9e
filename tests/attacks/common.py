"""What the attacks share: the small run that they attack, what must be equal in the end, and how they report."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from helpers import forked
from helpers.file_operations import KilledBefore

from savae_dist.data import pack

# Two phases of two steps, each of which is saved and measured; the index of the shards is built at the start.
SMALL = ["networks.width=1", "networks.pools=1", "system.latent_dim=2", "system.critic_steps=1", "data.batch_size=8"]
SMALL += ["data.lanes=2", "max_steps=2", "checkpoint_every=1", "validate_every=1000", "log_every=1"]
SMALL += ["data.train=data", "data.validation=data", "output=run"]
LOCKS = {".lock", ".index.lock"}  # files that are made once and never removed

Case = TypeVar("Case")


@dataclass
class Report:
    """How an attack went: what was tried, what failed and by which command it is seen again, and what was measured."""

    attack: str
    tried: int = 0
    failures: list[str] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        rows = {"attack": self.attack, "held": f"{self.tried - len(self.failures)} of {self.tried}", **self.numbers}
        lines = [f"{key:<24} {value}" for key, value in {**rows, "seconds": round(self.seconds)}.items()]
        return "\n".join([*lines, *(f"FAILED {failure}" for failure in self.failures)])


def try_all(
    attack: str, cases: Iterable[Case], attempt: Callable[[Case], str | None], jobs: int, minutes: float = math.inf
) -> Report:
    """Try every case, `jobs` at a time, those that come after so many minutes left out; `attempt` says what was wrong.

    Each failure is told at once, on stderr.
    """
    start, report = time.monotonic(), Report(attack)

    def one(case: Case) -> None:
        if time.monotonic() - start < 60 * minutes:
            problem = attempt(case)
            report.tried += 1
            if problem is not None:
                report.failures.append(problem)
                print(f"FAILED {problem}", file=sys.stderr)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, cases))
    report.seconds = time.monotonic() - start
    return report


def made_data(folder: Path, count: int = 32) -> None:
    """Shards of `count` images of 6x6 in two classes in `folder`/data, without an index."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (count, 6, 6)).astype(np.uint8)
    pack(x, rng.integers(0, 2, count), folder / "data", shard_size=count // 2, block=8)
    for path in (folder / "data").iterdir():
        if path.suffix != ".tar":
            path.unlink()


def train(folder: Path, *arguments: str, number: int = -1, half: bool = False, writer: bool = False) -> forked.Ended:
    """Train the small run in `folder`; it dies before file operation `number`, if that is given, as `KilledBefore`."""
    return forked.train([*SMALL, *arguments], folder, KilledBefore(folder, number, half, writer))


def result(run: Path) -> dict[str, str]:
    """What must be equal in the end: name -> sha256 of the last checkpoint's tensors and of the whole pipeline."""
    last = max((run / "checkpoints").glob("step-*"))
    return digests(last, "*.safetensors") | digests(run / "pipeline", "*")


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """The sha256 of every file of that name below a folder, by its path."""
    files = {f"{folder.name}/{p.relative_to(folder)}": p for p in folder.rglob(pattern) if p.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def wrong(folder: Path, ended: forked.Ended, expected: dict[str, str]) -> str | None:
    """What is wrong with a run that was to end as an undisturbed one: in one line, None if nothing."""
    if ended.codes != [0]:
        return f"ended with {ended.codes}: {last_line(ended.output)}"
    outcome = json.loads((folder / "run" / "status.json").read_text())["outcome"]
    if outcome != "done":
        return f"status.json says {outcome!r}"
    found = result(folder / "run")
    if found != expected:
        different = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        return f"{len(different)} files differ, among them {different[0]}"
    left = [str(p.relative_to(folder)) for p in folder.rglob(".*") if p.name not in LOCKS]
    return f"left behind: {', '.join(sorted(left)[:3])}" if left else None


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "(nothing was said)")


def emptied(folder: Path) -> Path:
    """The folder, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
