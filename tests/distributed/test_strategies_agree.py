"""Runs under ZeRO and FSDP: the same folders as DDP's, which any strategy and number of processes can continue."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.launching import SMALL, cut, environment, shards, status, weights
from safetensors.numpy import load_file

from savae_dist.data import pack
from savae_dist.testing.ranks import run_ranks
from savae_dist.train import main

pytestmark = pytest.mark.distributed

WORKER = Path(__file__).parents[1] / "helpers" / "runs_worker.py"
STEPS = ["system.vec_steps=3", "system.decoder_steps=3", "checkpoint_every=2", "keep_checkpoints=9", "ema=0.5"]
SGD = ["optimizers.default.name=sgd", "optimizers.default.lr=0.02", "optimizers.default.momentum=0.9"]
CLIPPED = ["optimizers.default.clip_norm=0.5", "optimizers.critic.clip_weights=0.05", "accumulate=2"]
NORMS = ["networks.norm=batch", "system.critic_regulariser=spectral_norm"]  # which keep statistics in buffers
LOSSES = [  # which stand beside the paper's
    *("system.kl_free_bits=0.05", "system.kl_capacity=5", "system.label_smoothing=0.2", "system.critic_regulariser=r1"),
    *("system.feature_form=gram", "system.latent_form=logits"),
    *("system.upsample=anti_aliased", "system.decoder_noise=8"),
]
WAVES = ["system.critic=period", "system.spectral_weight=1", "system.spectral_windows=[16]"]  # on signals alone
CHECKED = ["debug.check_ranks=1"]
ROUNDED = "ddp.reduce_dtype=bf16"
VEC, DECODER = 2, 5  # a checkpoint within each phase
LAUNCH = """
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
deepspeed_config: {zero_stage: 2}
use_cpu: true
gpu_ids: "-1"
num_machines: 1
machine_rank: 0
num_processes: 2
main_process_port: 0
mixed_precision: "no"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all the runs: NAME is a folder, and each was made as below."""
    folder = tmp_path_factory.mktemp("runs")
    shards(folder / "shards")
    pack(np.random.default_rng(1).normal(size=(80, 48)).astype(np.float32), np.arange(80) % 4, folder / "windows")
    waves = [*SGD, *WAVES, f"data.train={folder / 'windows'}"]

    def job(name: str, strategy: str, *options: str, **origin: object) -> dict:
        return {"strategy": strategy, "arguments": arguments(folder, name, *options), **origin}

    ddp, zero = str(folder / "ddp"), str(folder / "zero2")
    two = [
        job("ddp", "ddp", *SGD),
        job("zero1", "zero1", *SGD),
        job("zero2", "zero2", *SGD),
        job("fsdp", "fsdp", *SGD),
        job("ddp, rounded", "ddp", *SGD, ROUNDED),
        job("zero1, rounded", "zero1", *SGD, ROUNDED),
        job("zero2, rounded", "zero2", *SGD, ROUNDED),
        job("fsdp, rounded", "fsdp", *SGD, ROUNDED),
        job("ddp, then zero1", "zero1", *SGD, **{"from": ddp, "step": VEC}),
        job("zero2, then ddp", "ddp", *SGD, **{"from": zero, "step": DECODER}),
        job("ddp, then fsdp", "fsdp", *SGD, **{"from": ddp, "step": VEC}),
        job("zero2, then fsdp", "fsdp", *SGD, **{"from": zero, "step": DECODER}),
        job("fsdp, then ddp", "ddp", *SGD, **{"from": str(folder / "fsdp"), "step": DECODER}),
        job("losses", "ddp", *SGD, *LOSSES),
        job("losses, zero1", "zero1", *SGD, *LOSSES),
        job("losses, zero2", "zero2", *SGD, *LOSSES),
        job("losses, fsdp", "fsdp", *SGD, *LOSSES, "networks.checkpoint_activations=true"),
        job("losses, interrupted early", "ddp", *SGD, *LOSSES, **{"from": str(folder / "losses"), "step": VEC}),
        job("losses, interrupted", "ddp", *SGD, *LOSSES, **{"from": str(folder / "losses"), "step": DECODER}),
        job("waves", "ddp", *waves),
        job("waves, zero2", "zero2", *waves),
        job("waves, fsdp", "fsdp", *waves),
        job("fsdp, adam", "fsdp", *CHECKED),
        job("fsdp, adam, interrupted", "fsdp", **{"from": str(folder / "fsdp, adam"), "step": DECODER}),
        job("fsdp, adam, interrupted early", "fsdp", **{"from": str(folder / "fsdp, adam"), "step": VEC}),
        job("adam", "zero2"),
        job("adam, interrupted", "zero2", **{"from": str(folder / "adam"), "step": DECODER}),
        job("adam, interrupted early", "zero2", **{"from": str(folder / "adam"), "step": VEC}),
    ]
    four = [
        job("four", "ddp", *SGD),
        job("four, interrupted", "ddp", *SGD, **{"from": str(folder / "four"), "step": VEC}),
        job("four, interrupted late", "ddp", *SGD, **{"from": str(folder / "four"), "step": DECODER}),
        job("norms", "ddp", *SGD, *NORMS),
        job("norms, interrupted", "ddp", *SGD, *NORMS, **{"from": str(folder / "norms"), "step": VEC}),
        job("norms, interrupted late", "ddp", *SGD, *NORMS, **{"from": str(folder / "norms"), "step": DECODER}),
        job("norms, fsdp", "fsdp", *SGD, *NORMS),
        job("norms, fsdp, interrupted", "fsdp", *SGD, *NORMS, **{"from": str(folder / "norms, fsdp"), "step": DECODER}),
        job("fsdp, then fsdp on four", "fsdp", *SGD, **{"from": str(folder / "fsdp"), "step": VEC}),
        job("ddp, then zero2 on four", "zero2", *SGD, **{"from": ddp, "step": DECODER}),
    ]
    run_ranks(2, str(WORKER), json.dumps(two), timeout=480)
    run_ranks(4, str(WORKER), json.dumps(four), timeout=480)
    return folder


def arguments(folder: Path, name: str, *options: str) -> list[str]:
    data = f"data.train={folder / 'shards'}"
    return [*SMALL, *STEPS, *CLIPPED, "networks.norm=group", data, *options, f"output={folder / name}"]


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[key].astype(np.float64) - b[key]).max()) for key in a)


def pipeline(run: Path) -> dict[str, np.ndarray]:
    files = sorted((run / "pipeline").rglob("*.safetensors"))
    return {f"{file.relative_to(run)}/{key}": value for file in files for key, value in load_file(file).items()}


@pytest.mark.parametrize(
    "name",
    [
        *("zero1", "zero2", "fsdp", "ddp, then zero1", "zero2, then ddp"),
        *("ddp, then fsdp", "zero2, then fsdp", "fsdp, then ddp"),
        *("four", "four, interrupted", "ddp, then zero2 on four", "fsdp, then fsdp on four"),
    ],
)
def test_equal_to_ddp(name: str, folder: Path) -> None:
    """Networks, averages and optimiser states after each phase, and what is exported."""
    assert status(folder / name)["outcome"] == "done"
    for checkpoint in ("step-00000003", "step-00000006"):
        expected = weights(folder / "ddp", checkpoint)
        assert any(key.endswith("momentum_buffer") for key in expected)
        assert largest_difference(weights(folder / name, checkpoint), expected) <= 1e-6
    assert largest_difference(pipeline(folder / name), pipeline(folder / "ddp")) <= 1e-6
    files = [
        sorted(p.relative_to(run) for p in (run / "checkpoints").rglob("*")) for run in (folder / name, folder / "ddp")
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "fsdp"])
def test_losses_beside_the_papers_are_equal_to_ddp(strategy: str, folder: Path) -> None:
    expected = weights(folder / "losses")
    assert largest_difference(weights(folder / f"losses, {strategy}"), expected) <= 1e-6
    without = weights(folder / "ddp")  # has no noise in its decoder, and so fewer weights
    assert largest_difference(without, {key: expected[key] for key in without}) > 1e-4  # they do count


@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "fsdp"])
def test_gradients_that_are_rounded_on_their_way(strategy: str, folder: Path) -> None:
    """bf16 has eight bits, so all of a gradient is within a hundredth of what it is without."""
    exact, rounded = (weights(folder / name, "step-00000003") for name in ("ddp", f"{strategy}, rounded"))
    momentum = [key for key in exact if key.startswith("updates/vec") and key.endswith("momentum_buffer")]
    whole, other = (np.concatenate([one[key].ravel() for key in momentum]) for one in (exact, rounded))
    assert 0 < np.linalg.norm(other - whole) < 0.01 * np.linalg.norm(whole)


@pytest.mark.parametrize("strategy", ["zero2", "fsdp"])
def test_a_critic_of_periods_is_equal_to_ddp(strategy: str, folder: Path) -> None:
    expected = weights(folder / "waves")
    assert any("critics.4" in key for key in expected)  # the fifth period's
    assert largest_difference(weights(folder / f"waves, {strategy}"), expected) <= 1e-6


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("adam, interrupted", "adam"),
        ("adam, interrupted early", "adam"),
        ("losses, interrupted", "losses"),
        ("losses, interrupted early", "losses"),
        ("four, interrupted", "four"),
        ("four, interrupted late", "four"),
        ("norms, interrupted", "norms"),
        ("norms, interrupted late", "norms"),
        ("norms, fsdp, interrupted", "norms, fsdp"),
        ("fsdp, adam, interrupted", "fsdp, adam"),
        ("fsdp, adam, interrupted early", "fsdp, adam"),
    ],
)
def test_interrupted_equals_uninterrupted(name: str, whole: str, folder: Path) -> None:
    """To the bit, optimiser states included; sums over four ranks, too, must not depend on when they began."""
    expected = weights(folder / whole)
    states = {
        "adam": ("/exp_avg_sq", "/step"),
        "losses": ("/momentum_buffer",),
        "four": ("/momentum_buffer",),
        "norms": ("running_var", "num_batches_tracked", "._u"),
    }[whole.replace("fsdp, adam", "adam").replace(", fsdp", "")]
    assert all(any(key.endswith(state) for key in expected) for state in states)
    assert largest_difference(weights(folder / name), expected) == 0


@pytest.mark.parametrize("strategy", ["zero2", "fsdp"])
def test_one_process_goes_on(strategy: str, folder: Path, tmp_path: Path) -> None:
    cut(folder / strategy, tmp_path / "run", DECODER)
    assert main([*arguments(folder, strategy, *SGD), f"output={tmp_path / 'run'}"]) == 0
    assert largest_difference(weights(tmp_path / "run"), weights(folder / "ddp")) <= 1e-6


def test_launched_by_accelerate(folder: Path, tmp_path: Path) -> None:
    """As a user starts it: it says what it is, and is the same to the bit."""
    file = tmp_path / "zero2.yaml"
    file.write_text(LAUNCH)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(file)]
    result = subprocess.run(
        [*launch, "-m", "savae_dist.train", *arguments(folder, "launched", *SGD)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    assert "2 processes (ZeRO-2, gloo, cpu), fp32" in result.stderr
    assert "Warning" not in result.stdout + result.stderr
    assert largest_difference(weights(folder / "launched"), weights(folder / "zero2")) == 0
