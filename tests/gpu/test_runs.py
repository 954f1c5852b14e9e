"""Whole runs on a GPU: resumed, over NCCL with synchronised batch norms, and under ZeRO and FSDP."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.launching import SMALL, cut, equal, side_by_side, weights

from savae_dist.precision import NEEDS_GPU
from savae_dist.train import main

pytestmark = pytest.mark.gpu

STEPS = ["system.vec_steps=4", "system.decoder_steps=4", "checkpoint_every=2", "keep_checkpoints=9", "ema=0.5"]
SGD = [
    "optimizers.default.name=sgd",
    "optimizers.default.lr=0.02",
]  # Adam amplifies rounding of small gradients
STRATEGIES = Path(__file__).parents[1] / "helpers" / "strategy_worker.py"


def updates(run: Path) -> dict[str, Any]:
    """What the newest checkpoint knows of each optimiser besides tensors: its scaler, and what was skipped."""
    newest = max((run / "checkpoints").iterdir())
    found = {path.stem: json.loads(path.read_text()) for path in sorted((newest / "updates").glob("*.json"))}
    assert found
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_resumed_equals_uninterrupted(
    precision: str, device: torch.device, deterministic: None, data: Path, tmp_path: Path
) -> None:
    """To the bit, from a checkpoint of each phase, scalers included; the resumed run has a worker process."""
    if device.type == "cpu":
        precision = NEEDS_GPU.get(precision, precision)
    words, whole = [*SMALL, *STEPS, f"precision={precision}", f"data.train={data}"], tmp_path / "whole"
    assert main([*words, f"output={whole}"]) == 0
    for step in (2, 6):
        again = tmp_path / f"from {step}"
        cut(whole, again, step)
        assert main([*words, f"output={again}", "data.workers=1"]) == 0
        assert equal(weights(again), weights(whole))
        assert updates(again) == updates(whole)
    assert all((one["scaler"] is None) == (precision != "fp16") for one in updates(whole).values())


def test_one_rank_trains_what_a_process_alone_trains(
    device: torch.device, deterministic: None, data: Path, tmp_path: Path
) -> None:
    """The rank has a process group, DDP and synchronised batch norms, the process alone has none of them."""
    words = [*SMALL, *SGD, "max_steps=3", f"data.train={data}"]
    assert main([*words, f"output={tmp_path / 'alone'}"]) == 0
    gpu = device.type == "cuda"
    rank = [*words, f"networks.norm={'sync_batch' if gpu else 'batch'}", f"output={tmp_path / 'rank'}"]
    extra = {} if gpu else {"ACCELERATE_USE_CPU": "true"}
    (done,) = side_by_side([sys.executable, "-m", "savae_dist.train", *rank], **extra)
    assert done.returncode == 0, done.stderr
    assert ("nccl, cuda)" if gpu else "gloo, cpu)") in done.stderr
    found, expected = weights(tmp_path / "rank"), weights(tmp_path / "alone")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "fsdp"])
def test_every_strategy_trains_what_ddp_trains(strategy: str, device: torch.device) -> None:
    """On one rank, where a run refuses these because they save nothing; they compute the same way as on several."""
    if strategy != "fsdp" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed")
    extra = {} if device.type == "cuda" else {"ACCELERATE_USE_CPU": "true"}
    (done,) = side_by_side([sys.executable, str(STRATEGIES), strategy], **extra)
    assert done.returncode == 0, done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert found["device"] == device.type
    assert found["moved"] > 1e-3
    assert found["difference"] < 1e-5
