"""`savae-train --launch FILE`: the trainers' own line comes last, with their own code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.launching import ROOT, SMALL, command, environment, shards, status, trainers, wait_until_it_trains

from savae_dist.distributed.environment import CODES, leave_word, word_left

FILE = "launch_configs/accelerate/cpu_{}.yaml"
LONG = [*SMALL, "networks.norm=group", "system.vec_steps=100000", "log_every=1000"]


def launching(processes: int, *arguments: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "savae_dist.train", "--launch", str(ROOT / FILE.format(processes)), *arguments]
    return subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def last_line(process: subprocess.Popen[str]) -> str:
    _, told = process.communicate(timeout=120)
    assert "Traceback" not in told
    return told.strip().splitlines()[-1]


@pytest.mark.distributed
@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_is_one_line_with_its_code(processes: int, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    process = launching(processes, f"data.train={tmp_path / 'empty'}", f"output={tmp_path / 'run'}")
    assert last_line(process).startswith(f"savae_dist: {tmp_path / 'empty'}")
    assert process.returncode == 65


@pytest.mark.distributed
@pytest.mark.parametrize(("processes", "number"), [(1, signal.SIGINT), (2, signal.SIGTERM), (2, signal.SIGUSR1)])
def test_a_signal_is_passed_on_once(processes: int, number: signal.Signals, tmp_path: Path) -> None:
    """Two of them would end a trainer unsaved."""
    run = tmp_path / "run"
    process = launching(processes, f"data.train={shards(tmp_path / 'shards')}", f"output={run}", *LONG)
    wait_until_it_trains(run)
    process.send_signal(number)
    line = last_line(process)
    assert line.startswith("savae_dist: stopped by signal ")
    assert line.endswith("; run it again to go on")
    assert process.returncode == status(run)["exit_code"] == 75
    assert list((run / "checkpoints").glob("step-*"))


@pytest.mark.distributed
@pytest.mark.faults
def test_a_rank_that_was_killed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = launching(2, f"data.train={shards(tmp_path / 'shards')}", f"output={run}", *LONG)
    wait_until_it_trains(run)
    os.kill(trainers(process.pid)[1], signal.SIGKILL)
    assert last_line(process).startswith("savae_dist: a rank was lost at vec step ")
    assert process.returncode == 75


@pytest.mark.distributed
@pytest.mark.faults
def test_trainers_do_not_outlive_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = launching(1, f"data.train={shards(tmp_path / 'shards')}", f"output={run}", *LONG)
    wait_until_it_trains(run)
    process.kill()
    until = time.monotonic() + 60
    while status(run)["exit_code"] is None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert status(run)["exit_code"] == 75
    process.communicate(timeout=60)


@pytest.mark.distributed
def test_what_accelerates_own_launcher_reports_is_our_line(tmp_path: Path) -> None:
    """Its traceback cannot be kept back; its last words are ours."""
    words = command(2, f"data.train={tmp_path / 'none'}", f"output={tmp_path / 'run'}")
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=120)
    report = done.stderr.strip().splitlines()
    assert "exitcode  : 65" in "\n".join(report[-8:])
    assert f"traceback : savae_dist: shard {tmp_path / 'none'} is missing" in report[-2]
    assert set(report[-1]) == {"="}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{}/none.yaml", r"none\.yaml: there is no launch file"),
        ("''", "there is no launch file"),
        ("{}/wrong.yaml", "unknown keys"),
    ],
)
def test_a_launch_file_that_cannot_be_used(given: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: NO\nno_such_key: 1\n")
    words = [sys.executable, "-m", "savae_dist.train", "--launch", given.format(tmp_path)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert told.replace("\\", "") in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_lowest_rank_that_said_its_code_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert word_left(tmp_path) is None
    monkeypatch.setenv(CODES, str(tmp_path))
    for rank, code in (("10", 1), ("2", 75), ("3", 70)):
        monkeypatch.setenv("RANK", rank)
        leave_word(code, "why")
    assert word_left(tmp_path) == 75
