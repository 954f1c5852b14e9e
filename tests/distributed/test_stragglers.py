"""Two ranks, one of which is made slow: it is named, with its machine and with what it is slow at."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from helpers.launching import SMALL, scalars, shards, side_by_side, status

pytestmark = pytest.mark.distributed

PROGRAM = """
import os, sys, time
import torch
from savae_dist import train
from savae_dist.data import Reader
from savae_dist.training import own_time
from savae_dist.training.engine import PreparedUpdate

torch.set_num_threads(1)

slept = [0.0]
# What else runs on these cores must not count here: the time of this thread alone, and the sleep.
own_time.time.perf_counter = lambda: time.thread_time() + slept[0]

def slowed(kind, name):
    before = kind.__dict__[name]

    def after(*arguments):
        time.sleep(0.1)
        slept[0] += 0.1
        return before(*arguments)

    type.__setattr__(kind, name, after)

what = sys.argv.pop(1)
if what != "even" and os.environ["RANK"] == "1":
    slowed(*{"compute": (PreparedUpdate, "step"), "data": (Reader, "__getitem__")}[what])
code = train.main(sys.argv[1:])
sys.stdout.flush()
os._exit(code)
"""
STEPS = ["system.vec_steps=30", "system.decoder_steps=1", "log_every=10", "networks.norm=group"]


def trained(what: str, tmp_path: Path) -> tuple[Path, list[str]]:
    """The folder of a run, and what it said of ranks."""
    run, data = tmp_path / "run", shards(tmp_path / "shards", n=60)
    words = [*SMALL, *STEPS, f"data.train={data}", f"output={run}"]
    one = [sys.executable, "-c", PROGRAM, what, *words]
    done = side_by_side(one, one, timeout=400)
    assert [d.returncode for d in done] == [0, 0], done[0].stderr + done[1].stderr
    return run, [line for line in done[0].stderr.splitlines() if "rank " in line]


@pytest.mark.parametrize(
    ("what", "does", "curve"),
    [("compute", "computes slowly", "compute_seconds"), ("data", "waits for its data", "data_seconds")],
)
def test_the_slow_rank_is_named(what: str, does: str, curve: str, tmp_path: Path) -> None:
    run, said = trained(what, tmp_path)
    host = socket.gethostname()
    (warning,) = (line for line in said if line.startswith("savae_dist: "))
    assert warning.startswith(f"savae_dist: vec step 30: rank 1 on {host} {does}, and all others wait for it: ")
    assert warning.removeprefix("savae_dist: ") in status(run)["warnings"]
    assert any(line.startswith("vec step 30/30: ") and line.endswith(f"; rank 1 ({host}) {does}") for line in said)
    assert len(said) == 2  # nothing before it has lasted, and nothing of the other rank
    curves = scalars(run)
    ours, slow = curves[f"ranks/{curve}/0"], curves[f"ranks/{curve}/1"]
    assert list(ours) == [10, 20, 30, 31]
    assert all(slow[step] > 0.09 > ours[step] for step in (10, 20, 30))
    assert curves[f"ranks/{curve}_most"] == slow


def test_equal_ranks_are_not(tmp_path: Path) -> None:
    run, said = trained("even", tmp_path)
    assert said == []
    ranks = status(run)["ranks"]
    assert 0 < ranks["compute_seconds"]["least"] <= ranks["compute_seconds"]["most"] < ranks["iteration_seconds"]
    assert not any("slow_rank" in one for one in ranks.values() if isinstance(one, dict))
