"""The SLURM scripts and the container's entry point under stubs of SLURM's commands and of the launcher."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from helpers.job_stubs import Job, wait_for
from helpers.launching import ROOT

FOLDER = ROOT / "launch_configs"
SCRIPTS = ["slurm/one_node.sh", "slurm/several_nodes.sh"]
STUBS = ["srun", "scancel", "scontrol", "accelerate", "python"]
BY_SCRIPT = pytest.mark.parametrize("script", SCRIPTS)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path, *STUBS)


@BY_SCRIPT
def test_it_asks_slurm_for_the_warning_and_the_requeue(script: str) -> None:
    text = (FOLDER / script).read_text()
    asked = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in re.findall("#SBATCH.*", text))
    assert asked["signal"].startswith("B:TERM@")  # to this script alone
    assert "requeue" in asked
    assert asked["open-mode"] == "append"
    assert asked["ntasks-per-node"] == "1"
    assert asked["nodes"] == ("1" if "one" in script else "2")
    (left,) = re.findall(r"TORCH_ELASTIC_SHUTDOWN_TIMEOUT=(\d+)", (FOLDER / "slurm/job.sh").read_text())
    assert 30 < int(left) < int(asked["signal"].split("@")[1])


def test_one_node_s_command(job: Job) -> None:
    assert job.run("slurm/one_node.sh", "mnist_k2", "seed=1 2", FAKE=":", SLURM_CPUS_PER_TASK="64") == (0, "")
    (started,) = (line for line in job.log if line.startswith("accelerate"))
    options, _, program = started.partition(" -m ")
    assert program == "savae_dist.train mnist_k2 seed=1 2"
    assert shlex.split(options) == [
        *("accelerate", "launch", "--quiet", "--machine_rank", "0", "--num_processes", "8"),
        *("--config_file", "launch_configs/accelerate/gpu_node.yaml"),
    ]
    (srun,) = (line for line in job.log if line.startswith("srun"))
    assert srun.split(" bash ")[0] == "srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0"
    assert not job.requeued


@pytest.mark.parametrize("script", ["slurm/one_node.sh", "container.sh"])
def test_a_system_of_one_s_own(script: str, job: Job) -> None:
    assert job.run(script, "system.name=own", "seed=1", FAKE=":", TRAINER="own.py", SLURM_CPUS_PER_TASK="64") == (0, "")
    (started,) = (line for line in job.log if line.startswith("accelerate"))
    assert started.endswith(" own.py system.name=own seed=1")


def test_several_nodes_commands(job: Job) -> None:
    nodes = {"SLURM_NNODES": "3", "SLURM_JOB_NODELIST": "n07 n08 n11", "SLURM_GPUS_ON_NODE": "4"}
    assert job.run("slurm/several_nodes.sh", "mnist_k2", FAKE=":", **nodes) == (0, "")
    assert "scontrol show hostnames n07 n08 n11" in job.log
    started = sorted(line for line in job.log if line.startswith("accelerate"))
    assert started == [
        f"accelerate launch --quiet --machine_rank {rank} --num_processes 12 "
        "--config_file launch_configs/accelerate/gpu_nodes_static.yaml --num_machines 3 "
        "--main_process_ip n07 --main_process_port 11234 -m savae_dist.train mnist_k2"
        for rank in range(3)
    ]


def test_the_environment_of_the_trainers(job: Job) -> None:
    fake = 'echo "$TORCH_ELASTIC_SHUTDOWN_TIMEOUT $SRUN_CPUS_PER_TASK"'
    assert job.run("slurm/one_node.sh", "demo", FAKE=fake, SLURM_CPUS_PER_TASK="6") == (0, "240 6\n")


def test_another_launch_file_and_number(job: Job) -> None:
    chosen = {"LAUNCH_FILE": "launch_configs/accelerate/zero2_gpu.yaml", "PROCESSES": "2"}
    assert job.run("slurm/one_node.sh", "demo", FAKE=":", **chosen) == (0, "")
    assert "--num_processes 2 --config_file launch_configs/accelerate/zero2_gpu.yaml" in job.log[-1]


def test_a_node_without_gpus_needs_a_number(job: Job) -> None:
    del job.environment["SLURM_GPUS_ON_NODE"]
    code, said = job.run("slurm/one_node.sh", "demo", FAKE=":")
    assert code != 0
    assert "set PROCESSES and LAUNCH_FILE" in said
    assert job.log == []


ENDS = {
    # what the launcher goes through: (the job's code, requeued)
    "say 0": (0, False),
    "say 75; exit 1": (75, True),
    "say null; exit 1": (75, True),  # killed without a word
    "say 75 1000; exit 1": (75, True),  # the word of an earlier attempt; this one left none
    "say 2 1000; exit 1": (75, True),
    "say null 1000; exit 1": (75, True),
    "exit 3": (3, False),  # never trained
    **{f"say {code}; exit 1": (code, False) for code in (1, 2, 65, 70, 74, 76, 77)},
}


@pytest.mark.parametrize("fake", ENDS)
def test_how_it_ends(fake: str, job: Job) -> None:
    code, said = job.run("slurm/one_node.sh", "demo", FAKE=fake)
    assert (code, job.requeued) == ENDS[fake], said
    assert ("goes on in the queue" in said) == job.requeued


def test_a_refused_configuration_is_told_as_such(job: Job) -> None:
    assert job.run("slurm/one_node.sh", "demo", FAKE="exit 1", REFUSED="2") == (2, "")
    assert not job.requeued


@pytest.mark.parametrize(("restarts", "limit", "again"), [(19, "", True), (20, "", False), (2, "2", False)])
def test_requeues_have_a_limit(restarts: int, limit: str, again: bool, job: Job) -> None:
    counts = {"SLURM_RESTART_COUNT": str(restarts), **({"MAX_REQUEUES": limit} if limit else {})}
    code, said = job.run("slurm/one_node.sh", "demo", FAKE="say 75; exit 1", **counts)
    assert (code, job.requeued) == (75, again)
    assert (f"requeued {limit or 20} times already" in said) != again


def test_a_requeue_that_is_refused(job: Job) -> None:
    code, said = job.run("slurm/one_node.sh", "demo", FAKE="say 75; exit 1", REQUEUE_FAILS="1")
    assert code == 75
    assert "could not be requeued" in said


SAVES = 'trap "sleep 0.5; touch $STUBS/saved; say 75; exit 1" TERM; touch "$STUBS/up"; while :; do sleep 0.05; done'
DIES = 'touch "$STUBS/up"; while :; do sleep 0.05; done'


def check_warned(process: subprocess.Popen[str], job: Job) -> None:
    """Once its trainer is up, the job is sent SIGTERM and ends with 75."""
    try:
        wait_for(job.folder / "up")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 75, said


@pytest.mark.faults
@BY_SCRIPT
@pytest.mark.parametrize("fake", [SAVES, DIES], ids=["saves", "has not trained yet"])
def test_the_warning_reaches_the_launchers(script: str, fake: str, job: Job) -> None:
    nodes = {"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "n1 n2"} if "several" in script else {}
    process = job.start(script, "demo", FAKE=fake, **nodes)
    check_warned(process, job)
    assert "scancel --signal=TERM 41234" in job.log
    assert (job.folder / "saved").exists() == (fake == SAVES)  # nobody was killed before it could
    assert job.requeued


# The container.


@pytest.mark.parametrize("fake", ENDS)
def test_a_container_ends_with_the_trainer_s_code(fake: str, job: Job) -> None:
    code, said = job.run("container.sh", "demo", FAKE=fake)
    assert code == ENDS[fake][0], said
    assert job.log == ["accelerate launch --quiet -m savae_dist.train demo"]


def test_a_container_s_launcher_and_its_options(job: Job) -> None:
    (job.folder / "bin" / "accelerate").rename(job.folder / "bin" / "torchrun")
    assert job.run("container.sh", "seed=1", FAKE=":", LAUNCHER="torchrun", LAUNCH="--nnodes 2") == (0, "")
    assert job.log == ["accelerate --nnodes 2 -m savae_dist.train seed=1"]  # the stub's own word


@pytest.mark.faults
def test_a_container_s_trainer_is_told_and_not_its_launcher(job: Job) -> None:
    """The launcher of a single process would die of the signal, and the trainer stay."""
    trainer = "trap 'sleep 0.5; touch $STUBS/saved; exit 75' TERM; touch $STUBS/up; while :; do sleep 0.05; done"
    fake = f"bash -c {shlex.quote(trainer)} & child=$!; code=0; wait $child || code=$?; say $code; exit 1"
    process = job.start("container.sh", "demo", FAKE=fake)
    check_warned(process, job)
    assert (job.folder / "saved").exists()
