"""`about.json`, from which the report of a run takes data, networks, phases, machine and the command."""

from __future__ import annotations

import os
import platform
import shlex
from pathlib import Path
from typing import Any

import psutil
import torch

from savae_dist import __version__
from savae_dist.config.identity import plain
from savae_dist.data.card import facts
from savae_dist.distributed import launch
from savae_dist.files import write_json
from savae_dist.run.process import Process
from savae_dist.run.run import Run
from savae_dist.systems import SYSTEMS
from savae_dist.systems.papers import Published


def write_about(run: Run) -> None:
    """Write it into the run's folder, on the main process; a failure is reported and does not end the run."""
    status = run.process.status
    if status.writes:
        with status.side.spared("about.json"):
            write_json(run.folder / "about.json", about(run))


def about(run: Run) -> dict[str, Any]:
    """The content; every value is text, a number, or a table of them."""
    system, validation = run.config.system, run.results.validation
    return {
        "system": {
            "name": system.name,
            "what": system.summary if isinstance(system, Published) else "",
            "paper": system.paper if isinstance(system, Published) else "",
            "defaults": plain(SYSTEMS[system.name]),
        },
        "phases": {phase.name: run.steps(phase) for phase in run.phases},
        "parameters": {name: sum(p.numel() for p in network.parameters()) for name, network in run.networks.items()},
        "training_data": facts(run.data.shards),
        "validation_data": facts(validation.shards) if validation is not None else None,
        "on_both_sides": validation.shared if validation is not None else "",
        "launch": launch.describe(run.process.state, run.config.precision, run.process.strategy),
        "machine": machine(run.process),
        "versions": {"savae_dist": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "command": command(run.process, run.folder),
    }


def machine(process: Process) -> str:
    """The processor, or the GPU, with cores and memory."""
    if process.state.device.type == "cuda":
        return torch.cuda.get_device_name(process.state.device)
    memory = psutil.virtual_memory().total / 2**30
    return f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory"


def processor() -> str:
    """The processor's name, as Linux knows it; else its architecture."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def command(process: Process, folder: Path) -> str:
    """The command that trains the same once more, into a folder beside this one."""
    device, count = process.state.device.type, process.state.num_processes
    kind = "cpu" if device == "cpu" else "gpu"
    names = {("cpu", 1): "cpu_1", ("gpu", 1): "gpu_1", ("cpu", 2): "cpu_2"}
    spread = process.strategy != "ddp"
    name = f"{process.strategy}_{kind}" if spread else names.get((kind, min(count, 2)), "gpu_node")
    words = ["accelerate", "launch", "--config_file", f"launch_configs/accelerate/{name}.yaml"]
    words += ["--num_processes", str(count)] if count > 1 else []
    words += ["-m", "savae_dist.train", str(folder / "config.yaml"), f"output={folder}-again"]
    return shlex.join(words)
