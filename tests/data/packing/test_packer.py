"""The packer: the same bytes however many processes, however often it was killed, and whatever lay there before."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.sources import OPTIONS, made_up, read

from savae_dist.data import Shards
from savae_dist.data.packing import packer
from savae_dist.data.packing.packer import Options, pack_source
from savae_dist.data.packing.sources import Bad, Item, Sample, Source
from savae_dist.data.processes import run_jobs
from savae_dist.errors import ConfigError, DataError, SaveError, WorkerLost

ROOT = Path(__file__).parents[3]
SLOW = """
import sys, time
from functools import partial
from savae_dist.data.packing import packer, steps
sys.path.insert(0, sys.argv[4])
from helpers.sources import OPTIONS, made_up
delay = float(sys.argv[3])
write = steps.write_tar
def slow(*arguments):
    time.sleep(delay)
    write(*arguments)
steps.write_tar = slow
packer.pack_source(made_up(delay), sys.argv[1], OPTIONS, processes=int(sys.argv[2]))
"""


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("whole") / "s"
    pack_source(made_up(), out, OPTIONS)
    assert len(contents(out)) == 4 + 3 * sum(len(Shards.open(out / name).counts) for name in ("train", "validation"))
    return contents(out)


@pytest.mark.parametrize("processes", [2, 3, 50])
def test_the_same_bytes_by_any_number_of_processes(tmp_path, expected, processes):
    made = pack_source(made_up(), tmp_path / "s", OPTIONS, processes=processes)
    assert contents(tmp_path / "s") == expected
    assert [one["samples"] for one in made] == [
        sum(20 + k for k in range(12) if k % 3),
        sum(20 + k for k in range(0, 12, 3)),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_statistics_are_those_of_all_windows(tmp_path):
    (made,) = pack_source(Source(partial(read, 0.0), ("",) * 9, "1"), tmp_path / "s", OPTIONS)
    x = np.stack([item.x for part in range(9) for item in read(0.0, part)]).astype(np.float64)
    assert made["mean"] == pytest.approx([x.mean()])
    assert made["std"] == pytest.approx([x.std()])
    assert (made["names"], made["samples"]) == ("a, b", len(x))


def start(out: Path, processes: int, delay: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SLOW, str(out), str(processes), str(delay), str(ROOT / "tests")]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)


def wait_for(work: Path, pattern: str, count: int) -> None:
    end = time.monotonic() + 60
    while len(list(work.glob(pattern))) < count:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.faults
@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("stage", [("part-*.json", 4), ("shards-train/*.json", 2)], ids=["reading", "writing"])
def test_killed_and_started_again_it_makes_the_same_bytes(tmp_path, expected, processes, stage):
    out, work = tmp_path / "s", tmp_path / ".s.packing"
    run = start(out, processes, 0.15)
    wait_for(work, *stage)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not out.exists()
    kept = {path: path.stat().st_mtime_ns for path in work.glob("part-*.json")}
    assert kept
    pack_source(made_up(), out, OPTIONS, processes=2)  # at once: waits for children that are still at work
    assert contents(out) == expected
    time.sleep(0.3)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]  # no child outlived it and wrote


def test_what_was_done_is_not_done_again(tmp_path, expected, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("savae_dist.data.packing.steps.write_tar", full)
    for processes in (1, 2):
        with pytest.raises(SaveError, match=r"No space.*same command again") as caught:
            pack_source(made_up(), tmp_path / "s", OPTIONS, processes=processes)
        assert len(str(caught.value).splitlines()) == 1
    monkeypatch.undo()
    nothing_to_read = Source(partial(read_nothing), made_up().splits, "1")
    pack_source(nothing_to_read, tmp_path / "s", OPTIONS)
    assert contents(tmp_path / "s") == expected


def read_nothing(part: int) -> Iterator[Item]:
    raise AssertionError(f"part {part} was read before")


def test_other_inputs_or_options_start_anew(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for change, options in (("1", Options(seed=3)), ("2", OPTIONS)):
        with monkeypatch.context() as patch:
            patch.setattr("savae_dist.data.packing.steps.write_tar", full)
            with pytest.raises(SaveError):
                pack_source(made_up(), tmp_path / "s", OPTIONS)
        with pytest.raises(AssertionError, match="part 0 was read before"):
            pack_source(Source(read_nothing, made_up().splits, change), tmp_path / "s", options)


class Killed(BaseException):
    """In place of SIGKILL."""


def kill(*_: object) -> None:
    raise Killed


def test_cut_off_while_it_tidies_up(tmp_path, expected, monkeypatch):
    """Before each removal; the same command then tidies up and tells what it made, and not that the set exists."""
    with monkeypatch.context() as patch:
        patch.setattr(packer, "_tidy", kill)
        with pytest.raises(Killed):
            pack_source(made_up(), tmp_path / "s", OPTIONS)
    unlink, cut_off = Path.unlink, []
    for last in range(100):
        left = iter(range(last))

        def killed(self: Path, missing_ok: bool = False, left=left) -> None:
            if self.parent.name.endswith(".packing") and next(left, None) is None:
                cut_off.append(self.name)
                raise Killed
            unlink(self, missing_ok)

        folder = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-{last}"))
        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(Path, "unlink", killed)
            pack_source(made_up(), folder / "s", OPTIONS)
        if len(cut_off) <= last:
            break
        assert [one["samples"] for one in pack_source(made_up(), folder / "s", OPTIONS)]
        assert contents(folder / "s") == expected
        assert [path.name for path in folder.iterdir()] == ["s"]
    assert cut_off[-1] == packer.WHOLE
    assert len(cut_off) > 5


def test_what_was_cut_off_while_it_tidied_up_is_not_taken_for_another_set(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(packer, "remove_replaced", kill)
        with pytest.raises(Killed):
            pack_source(made_up(), tmp_path / "s", OPTIONS)
    with pytest.raises(ConfigError, match="overwrite"):
        pack_source(made_up(), tmp_path / "s", replace(OPTIONS, seed=5))


def test_a_folder_in_use_is_not_touched_unless_asked(tmp_path, expected):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "mine").touch()
    with pytest.raises(ConfigError, match="overwrite"):
        pack_source(made_up(), tmp_path / "s", OPTIONS)
    assert list(contents(tmp_path / "s")) == ["mine"]
    pack_source(made_up(), tmp_path / "s", OPTIONS, overwrite=True)
    assert contents(tmp_path / "s") == expected


@pytest.mark.faults
def test_two_packers_of_one_folder_wait_for_each_other(tmp_path, expected):
    runs = [start(tmp_path / "s", 2, 0.02) for _ in range(2)]
    told = [run.communicate(timeout=60)[1].decode() for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1]  # the second finds a folder that is in use
    assert sum("exists and is not empty" in one for one in told) == 1
    assert contents(tmp_path / "s") == expected


def read_big(part: int) -> Iterator[Item]:
    for i in range(200):
        yield Sample(np.full((100, 100), (part + i) % 251, np.uint8), part, {})


def test_memory_is_a_block_and_not_the_set(tmp_path):
    source = Source(read_big, ("",) * 10, "1")
    pack_source(source, tmp_path / "warm", Options(block=16))
    tracemalloc.start()
    pack_source(source, tmp_path / "s", Options(block=16, shard_size=500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert Shards.open(tmp_path / "s").size == 2000
    assert peak < 2_500_000  # of 20 MB of pixels


def read_partly(part: int) -> Iterator[Item]:
    yield Bad("torn", f"file {part}")
    if part != 1:
        yield Sample(np.zeros((2, 2), np.uint8), None, {})
        yield Sample(np.zeros((2, 3), np.uint8), None, {"path": f"p{part}"})


def test_the_budget_is_over_all_parts(tmp_path):
    source = Source(read_partly, ("",) * 3, "1")
    for budget, processes in ((4, 1), (4, 2), (0, 1)):
        with pytest.raises(DataError, match=f"more than --bad-budget {budget}"):
            pack_source(source, tmp_path / "s", Options(bad_budget=budget), processes=processes)
    (made,) = pack_source(source, tmp_path / "s", Options(bad_budget=5))  # a larger one goes on
    assert made["samples"] == 2
    lines = (tmp_path / "s" / "dropped.csv").read_text().splitlines()
    assert lines == [
        "reason,name",
        *("torn,file 0", 'shape,"p0: uint8 [2, 3] and not uint8 [2, 2]"', "torn,file 1"),
        *("torn,file 2", 'shape,"p2: uint8 [2, 3] and not uint8 [2, 2]"'),
    ]
    with pytest.raises(DataError, match="no usable sample: torn: 1"):
        pack_source(Source(lambda _: iter([Bad("torn", "f")]), ("",), "1"), tmp_path / "t", Options(bad_budget=9))
    with pytest.raises(DataError, match="no usable sample for b"):
        pack_source(Source(read_partly, ("a", "b"), "1"), tmp_path / "t", Options(bad_budget=9))


@pytest.mark.parametrize("wrong", [{"shard_size": 0}, {"block": 0}, {"seed": -1}, {"layout": "zip"}])
def test_options_that_cannot_work(tmp_path, wrong):
    with pytest.raises(ConfigError):
        pack_source(made_up(), tmp_path / "s", Options(**wrong))
    with pytest.raises(ConfigError, match="--processes"):
        pack_source(made_up(), tmp_path / "s", processes=0)


def test_a_process_that_dies_is_told(tmp_path):
    def killed(job: int) -> None:
        if job == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerLost, match=r"^packing process \d+ was killed by signal 9.* memory") as error:
        run_jobs(range(8), killed, 2, "x")
    assert error.value.code == 75


def test_each_job_is_done_once(tmp_path):
    def work(job: int) -> None:
        with (tmp_path / f"{job}").open("x") as file:
            file.write(json.dumps(os.getpid()))

    seen: list[int] = []
    run_jobs(range(20), work, 4, "x", seen.append)
    assert sorted(seen) == list(range(20))
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 4


def test_a_terminal_sees_the_progress():
    code = (
        "import pty; pty.spawn([__import__('sys').executable, '-c', 'from savae_dist.data.processes import run_jobs\\n"
    )
    code += "run_jobs(range(4), lambda job: None, 2, \\'reading\\')'])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, stdin=subprocess.DEVNULL)
    assert b"reading: 100%" in done.stdout
    assert b"4/4" in done.stdout


def test_no_child_works_on_after_an_error(tmp_path):
    def work(job: int) -> None:
        time.sleep(0.02)
        (tmp_path / f"{job}").touch()

    def over_budget(_: int) -> None:
        raise DataError("over the budget")

    with pytest.raises(DataError) as caught:
        run_jobs(range(40), work, 3, "x", over_budget)
    there = len(list(tmp_path.iterdir()))  # while the error is still held
    time.sleep(0.1)
    assert len(list(tmp_path.iterdir())) == there < 40
    assert caught.value.code == 65
