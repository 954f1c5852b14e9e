"""A rank that hangs or is gone is named, and files tell what every rank was at."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.launching import SMALL, shards, side_by_side, status

from savae_dist.distributed import flight
from savae_dist.distributed.flight import Stand, record_nccl, told_missing

HOSTS = ["n1", "n2", "n3"]
WAITS = Stand("n", "vec step 7", "waiting for the others' part", 9.0, 30)
READS = Stand("n2", "vec step 7", "reading", 9.2, 29)


@pytest.mark.parametrize(
    ("stands", "said"),
    [
        ({0: WAITS, 1: READS, 2: WAITS}, "the others wait for rank 1 (n2): at vec step 7, reading, for 9 s"),
        ({0: WAITS, 1: READS, 2: READS}, "the others wait for ranks 1 (n2), 2 (n3): at vec step 7, reading, for 9 s"),
        ({0: WAITS, 1: WAITS, 2: WAITS}, ""),  # the network, perhaps: all have begun the same
        ({0: WAITS, 2: WAITS}, "rank 1 (n2) does not answer"),
        ({0: WAITS}, "no other rank answers"),  # this one may be the one that is cut off
    ],
)
def test_who_is_missing(stands: dict[int, Stand], said: str) -> None:
    assert told_missing(stands, HOSTS) == said


def test_one_of_two_ranks_that_does_not_answer() -> None:
    assert told_missing({0: WAITS}, HOSTS[:2]) == "rank 1 (n2) does not answer"


def test_what_nccl_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for names, _ in (*flight.NCCL, (flight.NCCL_FILES, "")):
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "50")  # the user's own choice, by an older name
    record_nccl(tmp_path)
    assert "TORCH_FR_BUFFER_SIZE" not in os.environ
    assert os.environ["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1"
    assert os.environ["TORCH_FR_DUMP_TEMP_FILE"] == str(tmp_path / "flight" / "nccl-rank-")
    for name in ("TORCH_NCCL_DUMP_ON_TIMEOUT", "TORCH_NCCL_ENABLE_MONITORING", "TORCH_FR_DUMP_TEMP_FILE"):
        monkeypatch.delenv(name)


def test_this_torch_knows_the_variables() -> None:
    """Those of its recorder and of its files, which its library for CPUs has too."""
    import torch

    library = (Path(torch.__file__).parent / "lib" / "libtorch_cpu.so").read_bytes()
    for name in (*flight.NCCL[0][0], *flight.NCCL_FILES):
        assert name.encode() in library


PROGRAM = """
import os, signal, sys, time
import torch
from savae_dist import train
from savae_dist.data import Reader

torch.set_num_threads(1)
what, reads, read = sys.argv.pop(1), [0], Reader.__getitem__

def caught_in_a_read(reader, request):
    reads[0] += 1
    if reads[0] == 6 and os.environ["RANK"] == "1":
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(30)
    return read(reader, request)

Reader.__getitem__ = caught_in_a_read
code = train.main(sys.argv[1:])
sys.stdout.flush()
os._exit(code)
"""


def lost(what: str, tmp_path: Path) -> tuple[str, dict[str, str], list[subprocess.CompletedProcess[str]]]:
    """Rank 0's last line, and the files by name."""
    run, data = tmp_path / "run", shards(tmp_path / "shards", n=60)
    words = [*SMALL, "networks.norm=group", "max_steps=40", "timeout=15", f"data.train={data}", f"output={run}"]
    one = [sys.executable, "-c", PROGRAM, what, *words]
    done = side_by_side(one, one, timeout=400)
    assert done[0].returncode == 75, done[0].stderr
    assert status(run)["exit_code"] == 75
    (folder,) = (run / "flight").iterdir()
    line = done[0].stderr.splitlines()[-1]
    assert line.endswith(f"; what each rank was at stands in {folder}: run it again to go on")
    return line, {path.name: path.read_text() for path in folder.iterdir()}, done


@pytest.mark.distributed
def test_a_rank_that_hangs_in_a_read_is_named_with_its_stack(tmp_path: Path) -> None:
    line, files, _ = lost("hang", tmp_path)
    host = socket.gethostname()
    assert line.startswith("savae_dist: a rank was lost at vec step 5 (")
    assert f"; the others wait for rank 1 ({host}): at vec step 5, at its own part (reading" in line
    assert files.keys() == {"rank-0.txt", "rank-1.txt"}
    ours, theirs = files["rank-0.txt"], files["rank-1.txt"]
    assert f"stands: on {host}: vec step 5, waiting for the others' part, for " in ours
    assert "  1 on " in ours.split("all ranks:")[1]
    assert ", in _vote\n" in ours.split("the collective that failed was called here")[1]
    last = ours.split("collectives over gloo")[1].split("\n\n")[0].splitlines()[-1]
    assert last.endswith(" gloo:all_reduce [[1]]")  # the vote that the other has not joined
    first = theirs.split("stacks of its threads")[1]
    assert " in caught_in_a_read" in first
    assert "reason: rank 0 lost a rank" in theirs


@pytest.mark.distributed
def test_a_rank_that_is_gone_is_named(tmp_path: Path) -> None:
    line, files, done = lost("kill", tmp_path)
    assert f"; rank 1 ({socket.gethostname()}) does not answer; " in line
    assert done[1].returncode == -9
    assert files.keys() == {"rank-0.txt"}
    assert f"  1 on {socket.gethostname()}: no answer" in files["rank-0.txt"]
