"""Ranks that do not fit together say so, all of them, in one line; and drift is found and named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.launching import SMALL, shards, side_by_side, status

pytestmark = pytest.mark.distributed

PROGRAM = """
import json, os, sys
from pathlib import Path
import torch
from savae_dist.distributed import folder_lock
from savae_dist.distributed import launch
from savae_dist.distributed import ranks
from savae_dist.errors import CheckpointError, UserError

torch.set_num_threads(1)
state = launch.start("fp32", 30.0)
here = ranks.Peers(state, 5.0)
rank, folder = here.rank, Path(sys.argv[1])
odd = rank == here.ranks - 1  # the one that differs
said = {"launch": here.launch, "nodes": here.nodes, "node": here.node}


def tell(name, check, *arguments):
    try:
        check(*arguments)
        said[name] = [0, ""]
    except UserError as error:
        said[name] = [error.code, str(error)]


said["gather"] = here.gather({"rank": rank, "text": "x" * (1 + 70 * rank)})
tell("alike", here.check_alike, {"seed": 1, "output": str(rank)})
tell("other key", here.check_alike, {"seed": 1 + odd})
tell("key missing", here.check_alike, {"seed": 1} | ({"beta": 2} if odd else {}))
there = "s3://user:pass@bucket/{}.tar?signature=1"
tell("other url", here.check_alike, {"data.train": [there.format(1 + odd)]})
tell("other secret", here.check_alike, {"data.train": [there.format(1) + "23" * odd]})
ranks.__version__ = "0.2" if odd else "0.1"
tell("other version", here.check_alike, {})
ranks.__version__ = "0.1"
ranks._chip = lambda device: "GPU-5"
tell("one gpu", here.check_alike, {})
ranks._chip = lambda device: f"GPU-{rank}"
tell("own gpus", here.check_alike, {})
here.device = torch.device("meta" if odd else "cpu")
tell("other device", here.check_alike, {})
tell("shared", here.check_shared, folder / "new" / "run")
ranks.SHARED_FOLDER_SECONDS = 0.5
tell("not shared", here.check_shared, folder / f"disk{rank}")
(folder / "file").touch()
tell("not writable", here.check_shared, folder / "file" / "run")

def none_whole(folder):
    raise CheckpointError("none verifies")


said["chosen"] = str(here.choose(folder, lambda f: f / ("step-4" if rank else "step-8"), lambda path: None))
said["nothing"] = here.choose(folder, lambda f: f / "step-4" if rank else None, lambda path: None)
tell("none whole", here.choose, folder, none_whole, lambda path: None)
tell("blind", here.choose, folder, lambda f: f / "step-8", lambda path: "a.json is missing" if odd else None)

folder_lock.PATIENCE_SECONDS = 6.0  # longer than the ranks wait for each other
first, second = folder_lock.FolderLock(folder / "run"), folder_lock.FolderLock(folder / "run")
tell("lock", first.acquire, here)
tell("occupied", second.acquire, here)
said["held"] = [first.held, second.held]
first.release()
tell("lock again", second.acquire, here)
tell("no lock", folder_lock.FolderLock(folder / "file" / "run").acquire, here)
torch.manual_seed(0)
nets = {"encoder": torch.nn.Linear(3, 4), "decoder": torch.nn.Linear(3, 4).bfloat16(), "none": torch.nn.ReLU()}
tell("equal", here.check_equal, nets, "vec step 1")
if odd:
    weight = nets["decoder"].weight.data
    weight[[0, 1]] = weight[[1, 0]]
tell("drift", here.check_equal, nets, "vec step 2")
print(json.dumps(said))
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_that_meet(ranks: int, tmp_path: Path) -> None:
    done = side_by_side(*[[sys.executable, "-c", PROGRAM, str(tmp_path)]] * ranks)
    assert [one.returncode for one in done] == [0] * ranks, done[0].stderr
    lines = [one.stdout.splitlines()[-1].replace(f"disk{rank}:", "disk:") for rank, one in enumerate(done)]
    said = [json.loads(line) for line in lines]
    assert [one.pop("node") for one in said] == list(range(ranks))
    assert all(one == said[0] for one in said)  # every rank comes to the same conclusion
    told, odd = said[0], ranks - 1
    assert told["nodes"] == ranks
    assert told["gather"] == [{"rank": r, "text": "x" * (1 + 70 * r)} for r in range(ranks)]
    assert (told["chosen"], told["nothing"]) == (f"{tmp_path}/step-8", None)
    for name in ("alike", "own gpus", "shared", "lock", "lock again", "equal"):
        assert told[name] == [0, ""]
    expected = {
        "other key": (2, [f"rank {odd} on ", "seed=2", "rank 0 on"]),
        "key missing": (2, ["beta=2", "None"]),
        "other url": (
            2,
            [f"rank {odd} on ", "data.train=['s3://bucket/2.tar'], rank 0", " ['s3://bucket/1.tar']: start"],
        ),
        "other secret": (
            2,
            ["data.train=['s3://bucket/1.tar']", "['s3://bucket/1.tar'], with another password or query"],
        ),
        "other version": (2, ["savae_dist=0.2", "0.1", "same version"]),
        "one gpu": (2, ["ranks 0 and 1", "GPU-5"]),
        "other device": (2, [f"rank {odd}", "computes on meta", "cpu"]),
        "not shared": (2, [f"output={tmp_path}/disk: node ", f"{odd} (", "all nodes share"]),
        "not writable": (2, ["rank 0 cannot write there"]),
        "occupied": (75, [f"output={tmp_path}/run: another launch is at work there"]),
        "none whole": (76, ["none verifies"]),
        "blind": (76, [f"{tmp_path}/step-8: rank {odd} on ", "cannot read what rank 0 can (a.json is missing)"]),
        "no lock": (2, ["rank 0 cannot write there"]),
        "drift": (70, [f"vec step 2: parameters are no longer the same on all ranks: decoder on rank {odd} against"]),
    }
    assert told["held"] == [True, False]
    for name, (code, words) in expected.items():
        assert told[name][0] == code, name
        text = told[name][1]
        assert all(word in text for word in words), (name, text)
        assert "\n" not in text
    assert not list(tmp_path.rglob(".launch-*"))
    assert not (tmp_path / "new" / "run").exists()  # it was not there before


def trainer(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "savae_dist.train", *SMALL, "networks.norm=group", *arguments]


def test_nodes_with_different_arguments_are_refused(tmp_path: Path) -> None:
    data, output = shards(tmp_path / "shards"), tmp_path / "run"
    common = [f"data.train={data}", f"output={output}", "max_steps=2"]
    done = side_by_side(trainer(*common), trainer(*common, "log_every=2"))
    assert [one.returncode for one in done] == [2, 2], done[1].stderr
    assert "has log_every=2, rank 0" in done[0].stderr
    assert "Traceback" not in done[0].stderr + done[1].stderr
    assert (status(output)["exit_code"], status(output)["outcome"]) == (2, "ConfigError")


def test_ranks_do_not_drift_in_either_phase(tmp_path: Path) -> None:
    """Compared after every step, bit for bit; the frozen networks too."""
    data, output = shards(tmp_path / "shards"), tmp_path / "run"
    one = trainer(f"data.train={data}", f"output={output}", "max_steps=3", "debug.check_ranks=1", "ema=0.5")
    done = side_by_side(one, one)
    assert [d.returncode for d in done] == [0, 0], done[0].stderr
    assert status(output)["outcome"] == "done"
    assert {f"status-node{n}.json" for n in (0, 1)} <= {path.name for path in output.iterdir()}


DRIFTING = """
import sys
from accelerate import PartialState
from savae_dist.training import engine
from savae_dist import train
step = engine.PreparedUpdate.step

def drifting(self, which, slices, iteration):
    step(self, which, slices, iteration)
    if self.update.name == "decoder" and iteration == 2 and PartialState().process_index == 1:
        bias = next(p for p in self.parameters.values() if p.dim() == 1).data
        bias[0] = bias[0].nextafter(bias[0] + 1)

engine.PreparedUpdate.step = drifting
sys.exit(train.main(sys.argv[1:]))
"""


def test_a_bit_that_flips_on_one_rank_is_named(tmp_path: Path) -> None:
    data, output = shards(tmp_path / "shards"), tmp_path / "run"
    words = [*SMALL, "networks.norm=group", f"data.train={data}", f"output={output}", "max_steps=6"]
    one = [sys.executable, "-c", DRIFTING, *words, "debug.check_ranks=1"]
    done = side_by_side(one, one)
    assert [d.returncode for d in done] == [70, 70], done[1].stderr
    assert status(output)["outcome"] == "DriftError"
    assert "decoder step 3: parameters are no longer the same on all ranks: decoder on rank 1 against" in done[0].stderr
    assert "Traceback" not in done[0].stderr + done[1].stderr
