"""What one rank meets alone is told as it was, whichever it is; a rank that is gone ends the others with 75."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from helpers.launching import (
    SMALL,
    command,
    ended,
    environment,
    equal,
    shards,
    side_by_side,
    status,
    steps_saved,
    train,
    trainers,
    wait_until,
    weights,
)

from savae_dist.data import Order, Shards

pytestmark = pytest.mark.faults
BATCH, LANES = 8, 5


@pytest.mark.parametrize("rank", [0, 1])
def test_a_bad_sample_over_the_budget(rank: int, tmp_path: Path) -> None:
    data = shards(tmp_path / "shards", n=60, unlabelled=False)
    opened = Shards.open(str(data))
    row = opened.samples(0)[7]
    with opened.path(0).open("r+b") as file:
        file.seek(int(row["offset"]))
        byte = file.read(1)
        file.seek(int(row["offset"]))
        file.write(bytes([byte[0] ^ 1]))
    slots = {}
    for seed in range(40):  # one whose order gives the sample to this rank, but not in the first batch
        shard, at = Order(opened.counts, seed, LANES, 16).locate(np.arange(opened.size))
        position = int(np.flatnonzero((shard == 0) & (at == 7))[0])
        slots[seed] = position
    seed = next(s for s, p in slots.items() if p % BATCH % 2 == rank and BATCH <= p < 5 * BATCH)
    output = tmp_path / "run"
    result = train(
        2,
        *SMALL,
        *("networks.norm=group", f"data.batch_size={BATCH}", f"data.lanes={LANES}", "data.bad_budget=0"),
        *("max_steps=6", f"seed={seed}", f"data.train={data}", f"output={output}"),
    )
    assert result.returncode != 0
    ended = status(output)
    assert (ended["outcome"], ended["exit_code"]) == ("DataError", 65)
    assert "crc: 1" in ended["message"]
    assert "savae_dist: bad samples 1 (crc: 1)" in result.stderr


# A rank that is gone.

STEPS = ["system.vec_steps=120", "system.decoder_steps=2", "checkpoint_every=15", "networks.norm=group", "timeout=6"]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    result = train(2, *SMALL, *STEPS, f"data.train={data}", f"output={output}")
    assert result.returncode == 0, result.stderr
    return output


@contextmanager
def started(data: Path, output: Path, **extra: str) -> Iterator[subprocess.Popen[str]]:
    """Two processes that have saved once; whatever is left of them is killed in the end."""
    words = command(2, *SMALL, *STEPS, f"data.train={data}", f"output={output}")
    with (output.parent / "stderr").open("w") as log:
        launcher = subprocess.Popen(words, env={**environment(), **extra}, stderr=log, text=True)
    below: list[psutil.Process] = []
    try:
        wait_until(lambda: bool(steps_saved(output)) or launcher.poll() is not None, 90, "the first checkpoint")
        assert launcher.poll() is None, (output.parent / "stderr").read_text()
        below = psutil.Process(launcher.pid).children(recursive=True)
        yield launcher
    finally:
        for process in below:
            if process.is_running():
                process.kill()
        launcher.kill()
        launcher.wait(30)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank(rank: int, data: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL: the survivor says 75 at once, and the same command goes on as if nothing had been."""
    output = tmp_path / "run"
    with started(data, output) as launcher:
        os.kill(trainers(launcher.pid)[rank], signal.SIGKILL)
        assert wait_until(lambda: ended(output), 6 + 5, "status.json") < 5  # no time-out: the connection is closed
        launcher.wait(30)
    said = status(output)
    assert (said["outcome"], said["exit_code"]) == ("RankLost", 75), said
    assert "a rank was lost at vec step" in said["message"]
    assert "run it again" in said["message"]
    error = (tmp_path / "stderr").read_text()
    assert said["message"] in error
    assert "RuntimeError" not in error
    again = train(2, *SMALL, *STEPS, f"data.train={data}", f"output={output}")
    assert again.returncode == 0, again.stderr
    assert "continuing step-" in again.stderr
    assert equal(weights(output), weights(whole))


def test_a_killed_launcher(data: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL, so it passes nothing on: its ranks save, end, and leave the folder to the next launch."""
    output = tmp_path / "run"
    with started(data, output) as launcher:
        ranks = trainers(launcher.pid)
        launcher.kill()
        wait_until(lambda: ended(output), 20, "status.json")
        wait_until(lambda: not any(map(psutil.pid_exists, ranks.values())), 10, "the ranks to end")
    said = status(output)
    assert (said["outcome"], said["exit_code"]) == ("Preempted", 75), said
    assert max(steps_saved(output)) == said["step"]
    again = train(2, *SMALL, *STEPS, f"data.train={data}", f"output={output}")
    assert again.returncode == 0, again.stderr
    assert "another launch" not in again.stderr
    assert equal(weights(output), weights(whole))


@pytest.mark.parametrize("after", [0.0, 3.0])
def test_a_launcher_that_is_killed_while_its_ranks_start(after: float, data: Path, tmp_path: Path) -> None:
    """They wait for a store that went with it, in a call that runs no handlers, and would do so for twice `timeout`."""
    patient = [word.replace("timeout=6", "timeout=60") for word in STEPS]
    words = command(2, *SMALL, *patient, f"data.train={data}", f"output={tmp_path / 'run'}")
    with (tmp_path / "stderr").open("w") as log:
        launcher = subprocess.Popen(words, env=environment(), stderr=log)
    wait_until(lambda: len(trainers(launcher.pid)) == 2, 60, "the ranks")
    time.sleep(after)
    ranks = [psutil.Process(pid) for pid in trainers(launcher.pid).values()]
    launcher.kill()
    launcher.wait(30)
    try:
        wait_until(lambda: not any(rank.is_running() for rank in ranks), 45, "the ranks to end")
    finally:
        for rank in ranks:
            if rank.is_running():
                rank.kill()
    assert "stopped by signal 15 before it began to train; run it again to go on" in (tmp_path / "stderr").read_text()


def test_a_rank_that_hangs(data: Path, tmp_path: Path) -> None:
    """Stopped, not dead: its connections stay open, so only the time-out tells."""
    output = tmp_path / "run"
    with started(data, output) as launcher:
        os.kill(trainers(launcher.pid)[1], signal.SIGSTOP)
        waited = wait_until(lambda: ended(output), 6 + 5, "status.json")
    assert waited > 4
    assert status(output)["exit_code"] == 75, status(output)


def test_sigterm_where_the_ranks_cannot_agree_any_more(data: Path, tmp_path: Path) -> None:
    """Rank 0 hangs, rank 1 hangs in a collective with it: 75 before the launcher's patience ends, by rank 1."""
    output = tmp_path / "run"
    with started(data, output, TORCH_ELASTIC_SHUTDOWN_TIMEOUT="7") as launcher:  # 5 seconds of it are kept
        ranks = trainers(launcher.pid)
        os.kill(ranks[0], signal.SIGSTOP)
        time.sleep(0.5)
        start = time.monotonic()
        launcher.send_signal(signal.SIGTERM)
        wait_until(lambda: ended(output), 6, "status.json")
        wait_until(lambda: not psutil.pid_exists(ranks[1]) or zombie(ranks[1]), 3, "rank 1 to end")
        assert time.monotonic() - start < 7
    said = status(output)
    assert (said["outcome"], said["exit_code"]) == ("Preempted", 75)
    assert "could not agree on a step within 2 s" in said["message"]


def zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


BUG = """
import sys
from accelerate import PartialState
from savae_dist.training import engine
from savae_dist import train
step = engine.PreparedUpdate.step

def broken(self, which, slices, iteration):
    if iteration == 3 and PartialState().process_index == RANK:
        raise RuntimeError("a mistake")
    step(self, which, slices, iteration)

engine.PreparedUpdate.step = broken
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_bug_of_one_rank_stays_a_bug(rank: int, data: Path, tmp_path: Path) -> None:
    """Its peer loses it, but "run it again" would be no help: 1, the traceback, and the peer repeats what it said."""
    output = tmp_path / "run"
    words = [*SMALL, *STEPS, f"data.train={data}", f"output={output}"]
    one = [sys.executable, "-c", BUG.replace("RANK", str(rank)), *words]
    done = side_by_side(one, one)
    assert [d.returncode for d in done] == [1, 1], done[1 - rank].stderr
    assert "Traceback" in done[rank].stderr
    assert "RuntimeError: a mistake" in done[rank].stderr
    assert "Traceback" not in done[1 - rank].stderr
    said = status(output)
    assert (said["outcome"], said["exit_code"], said["message"]) == ("failed", 1, "RuntimeError: a mistake")
