"""Memory of a step: what is counted, what is told for other batches, and which `accumulate` is proposed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import environment
from torch import nn

from savae_dist.data import pack
from savae_dist.run.planning.memory import FEW, MORE, HeldBytes, StepCost, fitting, resident
from savae_dist.train import main
from savae_dist.training.batches import BatchSplit

MB = 1_000_000


def forward_and_back(network: nn.Module, samples: int) -> list[int]:
    held = HeldBytes()
    with held:
        network(torch.ones(samples, 1000)).square().sum().backward()
        network.zero_grad()
    return held.after


def test_tensors_are_counted_while_they_are_held() -> None:
    held = HeldBytes()
    with held:
        a = torch.ones(1000)  # 4,000 bytes
        a.view(10, 100).add_(1)  # the same memory
        b = a + a
        assert held.held == 8000
        del a
        assert held.held == 4000
        c = b.requires_grad_().exp()  # which keeps its result for the gradient
        assert held.held == 8000
        del c
        assert held.held == 4000
    assert max(held.after) == 8000


def test_two_small_steps_tell_of_any_larger_one() -> None:
    """Where gradients of weights are the most at first, and activations later."""
    network = nn.Sequential(nn.Linear(1000, 300), nn.Tanh(), nn.Linear(300, 2000), nn.Tanh(), nn.Linear(2000, 1))
    cost = StepCost.between("update", *(forward_and_back(network, samples) for samples in (FEW, MORE)))
    for samples in (3, 50, 1000):
        assert cost.bytes(samples) == max(forward_and_back(network, samples))
    straight = StepCost.between("update", [cost.bytes(FEW)], [cost.bytes(MORE)])
    assert straight.bytes(1000) < 0.9 * cost.bytes(1000)  # the two highest moments alone would tell too little


@pytest.mark.parametrize(
    ("memory", "batch_norm", "told"),
    [
        (1500 * MB, True, "fits into 1.50 GB for each process"),
        (500 * MB, True, "DOES NOT FIT into 500 MB for each process: data.batch_size=96 accumulate=3 needs 420 MB"),
        (160 * MB, True, "DOES NOT FIT into 160 MB for each process: lower data.batch_size or networks.width"),
        (160 * MB, False, "DOES NOT FIT into 160 MB for each process: data.batch_size=96 accumulate=24 needs 140 MB"),
    ],
)
def test_the_accumulate_that_fits(memory: int, batch_norm: bool, told: str) -> None:
    def needed(accumulate: int) -> int:
        return (100 + 40 * 24 // accumulate) * MB

    assert fitting(BatchSplit(96, ranks=4), needed, memory, batch_norm) == [" " * 12 + told]


def test_check_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(np.zeros((8, 40, 40, 3), np.uint8), np.arange(8) % 2, tmp_path / "shards")
    arguments = [f"data.train={tmp_path / 'shards'}", "networks.width=2", "data.batch_size=8", "ema=0.9"]
    arguments.append("system.latent_dim=auto")
    assert main([*arguments, f"output={tmp_path / 'run'}", "--check"]) == 0
    told = capsys.readouterr().out
    assert "system:     savae, K = 128, 3 pools, encoder " in told
    assert re.search(r"^networks    encoder [\d.]+ MB, classifier [\d.]+ MB, decoder [\d.]+ MB, critic ", told, re.M)
    assert re.search(r"^step        [\d.]+ [GM]B with data.batch_size=8 accumulate=1, the most in \w+/\w+:", told, re.M)
    assert re.search(r"any batch, [\d.]+ MB a sample\n +fits into [\d.]+ GB for each process\ncheckpoint  ", told)
    assert not (tmp_path / "run" / "checkpoints").exists()


PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_what_was_held_before_is_not_counted() -> None:
    """A process that is started by a large one tells its own peak."""
    held = np.ones(50_000_000)  # 400 MB
    told = "from savae_dist.run.planning.memory import resident; print(resident())"
    done = subprocess.run([sys.executable, "-c", told], env=environment(), capture_output=True, text=True, check=True)
    assert resident() > held.nbytes
    assert int(done.stdout.split()[-1]) < resident() - held.nbytes / 2


@pytest.mark.slow
def test_what_is_told_is_what_a_run_takes(tmp_path: Path) -> None:
    """Within a quarter; the more so as a run that ends also loads what draws its figures."""
    pack(np.zeros((32, 128, 128, 3), np.uint8), np.arange(32) % 2, tmp_path / "shards")
    common = [sys.executable, "-m", "savae_dist.train", f"data.train={tmp_path / 'shards'}", "max_steps=1"]
    common += ["data.batch_size=32", "networks.width=8", f"output={tmp_path / 'run'}"]
    checked = subprocess.run([*common, "--check"], env=environment(), capture_output=True, text=True, check=True)
    number, unit = re.findall(r"^step +([\d.]+) ([GM])B", checked.stdout, re.M)[0]
    # By way of a small program: Linux counts for a process what the one that started it had held, and tests hold much.
    done = subprocess.run([sys.executable, "-c", PEAK, *common], env=environment(), capture_output=True, text=True)
    code, peak = map(int, done.stdout.split())
    assert code == 0
    assert peak * 1024 == pytest.approx(float(number) * {"M": 1e6, "G": 1e9}[unit], rel=0.25)
