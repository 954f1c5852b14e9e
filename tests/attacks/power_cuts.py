"""The power fails: what was not flushed is lost in part; then the same command again.

The file operations of a small run are recorded with their contents. A cut plays them up to some point to a disk that
keeps what was flushed and, of all else, whatever the seed decides (`helpers/power_cut.py`); every other one with a
journal. The run is then started on what is left. What was told to be safe must be there (a saved checkpoint, after the
end the pipeline), and it must end with the weights and the pipeline of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import NamedTuple

from attacks.common import SMALL, Report, digests, emptied, made_data, result, train, try_all, wrong
from helpers import forked
from helpers.file_operations import Operation, Recorded, read_record
from helpers.power_cut import Disk, same_files

from savae_dist.run.checkpoints import checkpoint


class Cut(NamedTuple):
    """After so many operations."""

    point: int
    journal: bool

    def __str__(self) -> str:
        return f"{self.point}{'j' * self.journal}"


def attack(work: Path, seed: int = 0, count: int = 50, jobs: int = 2, only: str = "") -> Report:
    """`count` cuts at points that the seed draws, the last two right after the end; or the one named like 17 or 17j.

    j: with a journal.
    """
    made_data(emptied(work / "origin"))
    folder, record = work / "undisturbed", work / "record"
    shutil.copytree(work / "origin", folder)
    ended = forked.train([*SMALL, "keep_checkpoints=1"], folder, Recorded(folder, record))
    assert ended.codes == [0], ended.output
    operations, expected = read_record(record), result(folder / "run")
    check_complete(operations, folder, work / "replayed")
    before = sum(one.kind == "found" for one in operations)
    points = random.Random(seed).sample(range(before, len(operations)), count - 2)
    points = [*sorted(points), len(operations), len(operations)]
    cuts = [Cut(point, number % 2 == 1) for number, point in enumerate(points)]
    if only:
        cuts = [Cut(int(only.removesuffix("j")), only.endswith("j"))]
    report = try_all("power_cuts", cuts, lambda one: cut(work, operations, one, seed, expected), jobs)
    report.numbers |= {"operations": len(operations) - before, "seed": seed}
    return report


def check_complete(operations: list[Operation], folder: Path, replayed: Path) -> None:
    """The record is whole: played in full, with nothing lost, it makes the folder that it was taken from."""
    disk = Disk()
    for operation in operations:
        disk.apply(operation)
    disk.write_live(replayed)
    assert same_files(folder, replayed), "some operations on files were not recorded; see helpers/file_operations.py"


def cut(work: Path, operations: list[Operation], one: Cut, seed: int, expected: dict[str, str]) -> str | None:
    """What went wrong with a cut and the start after it; None if nothing did."""
    disk, folder = Disk(one.journal), work / f"cut-{one}"
    for operation in operations[: one.point]:
        disk.apply(operation)
    disk.cut(random.Random(f"{seed} {one}"), folder)
    shutil.rmtree(folder / "data", ignore_errors=True)  # the shards are not the run's to keep
    shutil.copytree(work / "origin" / "data", folder / "data")
    told = [operation.path for operation in operations[: one.point] if operation.kind == "promise"]
    problem = broken_promise(folder / "run", told, expected)
    problem = problem or wrong(folder, train(folder, "keep_checkpoints=1"), expected)
    shutil.rmtree(folder)
    return problem and f"{one}: {problem}; again: python tests/attacks power_cuts --seed {seed} --only {one}"


def broken_promise(run: Path, told: list[str], expected: dict[str, str]) -> str | None:
    """What the run was told to be safe and is not there."""
    saved = [name for name in told if name.startswith(checkpoint.PREFIX)]
    whole = [path for path in checkpoint.checkpoints(run / "checkpoints") if checkpoint.problem(path) is None]
    last = max((checkpoint.read_state(path).total for path in whole), default=0)
    if saved and last < int(saved[-1].removeprefix(checkpoint.PREFIX)):
        return f"{saved[-1]} had been saved, and {f'step {last}' if last else 'no checkpoint'} is there"
    pipeline = {name: digest for name, digest in expected.items() if name.startswith("pipeline/")}
    if "pipeline" in told and not pipeline.items() <= digests(run / "pipeline", "*").items():
        return "the run was done, and its pipeline is not whole"
    return None
