"""One process equals two, for every system and every row of its options; one launch of each strategy for them all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.contract import OPTIONS, make, specs_of
from helpers.launching import ROOT, environment
from safetensors.torch import load_file

from savae_dist.testing.parity import ROUNDING
from savae_dist.testing.small_run import SmallRun

pytestmark = pytest.mark.distributed

Tensors = dict[str, dict[str, torch.Tensor]]
WORKER = Path(__file__).parents[1] / "helpers" / "systems_worker.py"


def launched(processes: int, strategy: str, out: Path) -> Tensors:
    """Name of system and row -> all its tensors after training."""
    out.mkdir()
    config = ROOT / "launch_configs" / "accelerate" / f"cpu_{processes}.yaml"
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(config)]
    ended = subprocess.run(
        [*command, str(WORKER), str(out), strategy], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return {path.stem: load_file(path) for path in out.iterdir()}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Tensors:
    return launched(1, "ddp", tmp_path_factory.mktemp("one") / "out")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_process_equals_two_for_every_system(strategy: str, one: Tensors, tmp_path: Path) -> None:
    two = launched(2, strategy, tmp_path / "out")
    assert one.keys() == two.keys() == {f"{name}-{row}" for name, rows in OPTIONS.items() for row in range(len(rows))}
    wrong = {}
    for case, expected in one.items():
        assert two[case].keys() == expected.keys()
        worst = max(float((two[case][key].double() - value).abs().max()) for key, value in expected.items())
        if not worst <= ROUNDING:
            wrong[case] = worst
        assert trained_far(case, expected) > 1e-4, case
    assert wrong == {}


def trained_far(case: str, trained: dict[str, torch.Tensor]) -> float:
    """The largest step that any weight has made: equal because nothing moved would be no parity."""
    name, row = case.rsplit("-", 1)
    start = SmallRun(make(name, int(row)), specs_of(name, int(row))[0], norm="group").networks  # as the worker's
    weights = {f"{n}.{k}": v for n, network in start.items() for k, v in network.state_dict().items()}
    return max(float((trained[key].double() - value).abs().max()) for key, value in weights.items())
