"""SIGKILL before every file operation of a run, and half way through every write; then the same command again.

The operations of a small run are counted once: opens for writing, writes, flushes, renames, removals, folders made and
removed, below its folder, the index of its shards included. Each of these moments is then the end of one run; but not
the one after a flush, which finds the files as the one before it. The thread that writes checkpoints is counted by
itself: training goes on meanwhile, and its operations come in the same order each time. Started again the run must end
with the weights and the pipeline of the undisturbed one, bit for bit, and leave no temporary file behind.
"""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path
from typing import NamedTuple

from attacks.common import SMALL, Report, emptied, last_line, made_data, result, train, try_all, wrong
from helpers import forked
from helpers.file_operations import Operation, Recorded, read_record

KEEP = (1, 2)  # checkpoints kept


class Kill(NamedTuple):
    """Before operation `number`, or `half` way through it, in a run that keeps so many checkpoints.

    writer: of the thread that writes these.
    """

    keep: int
    writer: bool
    number: int
    half: bool

    def __str__(self) -> str:
        return f"{self.keep}:{'w' * self.writer}{self.number}{'h' * self.half}"


def attack(
    work: Path, seed: int = 0, count: int | None = None, jobs: int = 2, only: str = "", minutes: float = math.inf
) -> Report:
    """All kills in an order that the seed draws, or `count` of them, or one named like 1:17, 1:w17 (the writer's) or
    2:40h (half way). After so many minutes no other is tried.
    """
    made_data(emptied(work / "origin"))
    kills, expected, operations = [], {}, 0
    for keep in KEEP:
        found = recorded(work, keep)
        expected[keep] = result(work / f"undisturbed-{keep}" / "run")
        operations += len(found)
        for writer in (False, True):
            kinds = [one.kind for one in found if one.writer == writer]
            for number, kind in enumerate(kinds):
                if not number or kinds[number - 1] != "fsync":
                    kills.append(Kill(keep, writer, number, False))
                if kind == "write":
                    kills.append(Kill(keep, writer, number, True))
    drawn = random.Random(seed).sample(kills, count or len(kills))
    chosen = [kill for kill in drawn if only in ("", str(kill))]
    report = try_all("file_kills", chosen, lambda kill: killed(work, kill, expected[kill.keep]), jobs, minutes)
    of_writer = sum(kill.writer for kill in kills)
    report.numbers |= {"operations": operations, "moments that differ": len(kills), "of the writer": of_writer}
    report.numbers["seed"] = seed
    return report


def recorded(work: Path, keep: int) -> list[Operation]:
    """The operations of an undisturbed run, in their order."""
    folder, record = work / f"undisturbed-{keep}", work / f"record-{keep}"
    shutil.copytree(work / "origin", folder)
    ended = forked.train([*SMALL, f"keep_checkpoints={keep}"], folder, Recorded(folder, record))
    assert ended.codes == [0], ended.output
    return [one for one in read_record(record) if one.kind not in ("found", "promise")]


def killed(work: Path, kill: Kill, expected: dict[str, str]) -> str | None:
    """What went wrong with one kill and the start after it; None if nothing did."""
    folder = work / f"killed-{kill}".replace(":", "-")
    shutil.copytree(work / "origin", folder)
    keep = f"keep_checkpoints={kill.keep}"
    first = train(folder, keep, number=kill.number, half=kill.half, writer=kill.writer)
    # TensorBoard writes from a thread, so that a run may have an operation less than the one that was counted.
    if first.codes not in ([-9], [0]):
        problem: str | None = f"was to be killed and ended with {first.codes}: {last_line(first.output)}"
    else:
        problem = wrong(folder, train(folder, keep), expected)
    shutil.rmtree(folder)
    return problem and f"{kill}: {problem}; again: python tests/attacks file_kills --only {kill}"
