"""Launch files, job scripts and the container's entry point really start the trainer; GPU files on CPUs, if asked."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.job_stubs import Job
from helpers.launching import (
    ROOT,
    SMALL,
    environment,
    free_port,
    scalars,
    shards,
    status,
    wait_until_it_trains,
    weights,
)

from savae_dist.errors import Preempted

pytestmark = pytest.mark.distributed
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="it would start on the GPUs")
LONGER = ["max_steps=150", "checkpoint_every=1000"]  # long enough to be stopped in between
CPU_FILES = sorted(p.stem for p in (ROOT / "launch_configs" / "accelerate").glob("*cpu*"))


def wait_for_listener(port: int, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"nobody listens on port {port} after {seconds:g} s")


def arguments(folder: Path, *more: str) -> list[str]:
    """A training of two steps a phase into `folder`/run."""
    data = shards(folder / "shards", n=60)
    return [*SMALL, "networks.norm=group", "max_steps=2", f"data.train={data}", f"output={folder / 'run'}", *more]


def launch(file: str, options: list[str], program: list[str], **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
    command += ["--config_file", f"launch_configs/accelerate/{file}.yaml", *options, "-m", "savae_dist.train"]
    return start([*command, *program], **more)


def start(command: list[str], **more: str) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where scripts find torchrun
    return subprocess.Popen(
        command,
        env={**environment(), "PATH": path, **more},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(*processes: subprocess.Popen[str], seconds: float = 280) -> str:
    """What they said, when all have ended well."""
    try:
        said = "".join(process.communicate(timeout=seconds)[0] for process in processes)
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


@pytest.mark.parametrize("file", CPU_FILES)
def test_a_cpu_file(file: str, tmp_path: Path) -> None:
    said = ended(launch(file, [], arguments(tmp_path)))
    named = {"zero1": "ZeRO-1", "zero2": "ZeRO-2", "fsdp": "FSDP"}
    strategy = named.get(file.split("_")[0], "MULTI_CPU")
    assert ("1 process (cpu)" if file == "cpu_1" else f"2 processes ({strategy}, gloo, cpu)") in said
    assert status(tmp_path / "run")["outcome"] == "done"


@WITHOUT_GPU
@pytest.mark.parametrize("file", ["gpu_nodes_static", "gpu_nodes_elastic"])
def test_several_machines(file: str, tmp_path: Path) -> None:
    """Two launchers of one process each, as on two machines; CPUs are asked for beside a launch file for GPUs."""
    port = free_port()
    cpu = {"ACCELERATE_USE_CPU": "true"}
    options = ["--num_processes", "2", "--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
    if file.endswith("elastic"):
        options += ["--rdzv_backend", "c10d", "--max_restarts", "1"]
    program = arguments(tmp_path)
    first = launch(file, ["--machine_rank", "0", *options], program, **cpu)
    wait_for_listener(
        port
    )  # on one machine either launcher takes itself for the head, and both at once may stand still
    said = ended(first, launch(file, ["--machine_rank", "1", *options], program, **cpu))
    assert said.count("2 processes (MULTI_CPU, gloo, cpu)") == 1
    assert status(tmp_path / "run")["outcome"] == "done"


@WITHOUT_GPU
def test_the_torch_plugin_s_environment(tmp_path: Path) -> None:
    """Two pods of two processes, as Kubeflow Trainer starts them."""
    plugin = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "127.0.0.1"}
    plugin |= {"PET_MASTER_PORT": str(free_port()), "LAUNCHER": "torchrun", "ACCELERATE_USE_CPU": "true"}
    command = ["launch_configs/container.sh", *arguments(tmp_path)]
    said = ended(*(start(command, PET_NODE_RANK=str(rank), **plugin) for rank in range(2)))
    assert said.count("2 processes (MULTI_CPU, gloo, cpu)") == 1
    assert status(tmp_path / "run")["outcome"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("file", ["cpu_1", "cpu_2"])
def test_a_container_is_stopped_and_goes_on(file: str, tmp_path: Path) -> None:
    program = ["launch_configs/container.sh", *arguments(tmp_path, *LONGER)]
    options = {"LAUNCH": f"--config_file launch_configs/accelerate/{file}.yaml"}
    process = start(program, **options)
    check_it_is_stopped(process, tmp_path / "run")
    check_it_went_on(ended(start(program, **options)), tmp_path / "run")


def check_it_is_stopped(process: subprocess.Popen[str], run: Path) -> None:
    """It trains, is told to stop, saves, and ends with 75."""
    try:
        wait_until_it_trains(run)
        process.send_signal(signal.SIGTERM)
        said, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == Preempted.code, (said, err)
    assert status(run)["exit_code"] == Preempted.code
    assert weights(run)  # it has saved


def check_it_went_on(said: str, run: Path) -> None:
    assert "continuing step-" in said
    assert status(run)["outcome"] == "done"
    assert sorted(scalars(run)["vec/kl"]) == list(range(1, 151))  # no step is missing


@pytest.mark.slow
@pytest.mark.parametrize("script", ["one_node", "several_nodes"])
def test_a_slurm_job_is_warned_requeues_itself_and_goes_on(script: str, tmp_path: Path) -> None:
    (tmp_path / "stubs").mkdir()
    job = Job(tmp_path / "stubs", "srun", "scancel", "scontrol")
    nodes = {"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "127.0.0.1 localhost"} if script == "several_nodes" else {}
    nodes |= {"LAUNCH_FILE": "launch_configs/accelerate/cpu_2.yaml", "PROCESSES": "1" if nodes else "2"}
    program = arguments(tmp_path, *LONGER)
    check_it_is_stopped(job.start(f"slurm/{script}.sh", *program, **nodes), tmp_path / "run")
    assert job.requeued
    (job.folder / "log").write_text("")
    code, said = job.run(f"slurm/{script}.sh", *program, SLURM_RESTART_COUNT="1", **nodes)
    assert code == 0, said
    assert "2 processes (MULTI_CPU, gloo, cpu)" in said
    check_it_went_on(said, tmp_path / "run")
    assert not job.requeued
