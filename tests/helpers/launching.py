"""Start the trainer as its users do, and read what it left."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from savae_dist.data import pack

ROOT = Path(__file__).parents[2]
BLANK = Path(__file__).parent / "blank"
SMALL = ["networks.width=4", "system.latent_dim=3", "data.batch_size=16", "log_every=1", "validate_every=1000"]


def command(processes: int, *arguments: str) -> list[str]:
    config = ROOT / "launch_configs" / "accelerate" / f"cpu_{processes}.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file", str(config)]
    return [*launch, "-m", "savae_dist.train", *arguments]


def environment() -> dict[str, str]:
    paths = os.pathsep.join((str(ROOT), str(BLANK)))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo"}


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


def figures(run: Path) -> dict[str, list[int]]:
    """The steps of every figure in TensorBoard."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    return {tag: [image.step for image in events.Images(tag)] for tag in events.Tags()["images"]}


def status(run: Path, name: str = "status.json") -> dict[str, Any]:
    return json.loads((run / name).read_text())


def wait_until_it_trains(run: Path, seconds: float = 120) -> None:
    """Until its first step is done."""
    until = time.monotonic() + seconds
    while not (run / "status.json").exists() or not status(run)["step"]:
        assert time.monotonic() < until, f"{run} never began to train"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def side_by_side(*commands: list[str], timeout: float = 120, **extra: str) -> list[subprocess.CompletedProcess[str]]:
    """Start each command as a rank on a node of its own, as a launcher would, and wait for all."""
    port = str(free_port())
    running = []
    for rank, words in enumerate(commands):
        ours = {"WORLD_SIZE": str(len(commands)), "LOCAL_WORLD_SIZE": "1", "RANK": str(rank), "LOCAL_RANK": "0"}
        ours |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **extra}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running.append(subprocess.Popen(words, env={**environment(), **ours}, **pipes))
    done = []
    try:
        for process in running:
            out, err = process.communicate(timeout=timeout)
            done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    finally:
        for process in running:
            process.kill()  # nothing where it has ended
    return done


def trainers(launcher: int) -> dict[int, int]:
    """Rank -> process id of the trainers that run below the process `launcher`."""
    found = {}
    for process in psutil.Process(launcher).children(recursive=True):
        try:
            words, rank = process.cmdline(), process.environ().get("RANK")
        except psutil.Error:  # gone meanwhile
            continue
        if "savae_dist.train" in words and "accelerate.commands.launch" not in words and rank is not None:
            found[int(rank)] = process.pid
    return found


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Seconds until `condition` held; an AssertionError that says `what` was waited for if it never did."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)
    return time.monotonic() - start


def ended(run: Path, name: str = "status.json") -> bool:
    """Whether the run has said how it ended."""
    path = run / name
    return path.is_file() and json.loads(path.read_text())["exit_code"] is not None


def steps_saved(run: Path) -> list[int]:
    return sorted(int(p.name.removeprefix("step-")) for p in (run / "checkpoints").glob("step-*"))


def cut(source: Path, target: Path, step: int) -> None:
    """Copy a run as if it had died right after that step."""
    shutil.copytree(source, target)
    shutil.rmtree(target / "pipeline")
    for checkpoint in (target / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """The same tensors, to the bit."""
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
