"""Start the trainer as its users do, and read what it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from savae_dist.data import pack

ROOT = Path(__file__).parents[1]
SMALL = ["networks.width=4", "system.latent_dim=3", "data.batch_size=16", "log_every=1", "validate_every=1000"]


def command(processes: int, *arguments: str) -> list[str]:
    config = ROOT / "launch_configs" / "accelerate" / f"cpu_{processes}.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(config)]
    return [*launch, "-m", "savae_dist.train", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}


def train(processes: int, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(processes, *arguments), env=environment(), capture_output=True, text=True, timeout=timeout
    )


def shards(folder: Path, n: int = 203, unlabelled: bool = True) -> Path:
    """`n` images of 12x12 in four classes, a third of them unlabelled, in several shards."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, 12, 12)).astype(np.uint8)
    y = rng.integers(0, 4, n)
    if unlabelled:
        y[::3] = -1
    pack(x, y, folder, shard_size=40, block=16)
    return folder


def weights(run: Path, checkpoint: str | None = None) -> dict[str, np.ndarray]:
    """All tensors of the newest (or that) checkpoint: networks, averages and optimisers."""
    folder = run / "checkpoints" / (checkpoint or max(p.name for p in (run / "checkpoints").iterdir()))
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{f.relative_to(folder)}/{k}": v for f in files for k, v in load_file(f).items()}


def scalars(run: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def status(run: Path) -> dict[str, Any]:
    return json.loads((run / "status.json").read_text())
