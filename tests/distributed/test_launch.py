"""What the launcher gave against what was asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from helpers.launching import environment, free_port, status

from savae_dist.distributed import launch
from savae_dist.distributed.launch import describe, is_main, requested_processes, start
from savae_dist.errors import ConfigError

MODULE = ["-m", "savae_dist.train", "demo", "--num_processes", "7"]
ENVIRONMENT = (
    *("ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_DYNAMO_BACKEND"),
    *("ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG"),
    *("WORLD_SIZE", "RANK", "LOCAL_RANK"),
)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "PROC", tmp_path / "proc")  # nothing is above us


def processes(monkeypatch: pytest.MonkeyPatch, root: Path, *commands: list[str]) -> None:
    """A /proc in which each command is the parent of the one before it, and the first is ours."""
    monkeypatch.setattr(launch, "PROC", root)
    monkeypatch.setattr(launch.os, "getppid", lambda: 100)
    for number, words in enumerate(commands):
        pid = 100 + number
        parent = pid + 1 if number + 1 < len(commands) else 1
        (root / str(pid)).mkdir(parents=True)
        (root / str(pid) / "cmdline").write_text("\0".join(words) + "\0")
        (root / str(pid) / "stat").write_text(f"{pid} (odd (name) 5) S {parent} 1 1 0")


LAUNCHERS = {
    "script": ["/usr/bin/python3", "/venv/bin/accelerate", "launch"],
    "script of its own": ["/usr/bin/python3", "/venv/bin/accelerate-launch"],
    "module": ["python", "-m", "accelerate.commands.launch"],
    "command-line module": ["python", "-m", "accelerate.commands.accelerate_cli", "launch"],
}
BY_LAUNCHER = pytest.mark.parametrize("launcher", LAUNCHERS.values(), ids=LAUNCHERS)


@BY_LAUNCHER
@pytest.mark.parametrize(
    "options",
    [["--num_processes", "2"], ["--num_processes=2"], ["--num-processes", "2"], ["--cpu", "--num_processes", "2"]],
    ids=" ".join,
)
def test_the_number_on_the_command_line(
    launcher: list[str], options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes(monkeypatch, tmp_path, [*launcher, *options, *MODULE])
    assert requested_processes() == 2


@BY_LAUNCHER
@pytest.mark.parametrize("form", ["--config_file={}", "--config_file {}", "--config-file {}"])
def test_the_number_in_the_launch_file(
    launcher: list[str], form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f.yaml").write_text("use_cpu: true\nnum_processes: 3\n")
    processes(monkeypatch, tmp_path, [*launcher, *form.format(tmp_path / "f.yaml").split(), *MODULE])
    assert requested_processes() == 3


def test_the_command_line_outranks_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.yaml").write_text("num_processes: 3\n")
    options = ["--config_file", str(tmp_path / "f.yaml"), "--num_processes", "2"]
    processes(monkeypatch, tmp_path, [*LAUNCHERS["script"], *options, *MODULE])
    assert requested_processes() == 2


def test_a_launch_file_without_a_number_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.yaml").write_text("use_cpu: true\n")
    processes(monkeypatch, tmp_path, [*LAUNCHERS["script"], "--config_file", str(tmp_path / "f.yaml"), *MODULE])
    assert requested_processes() is None


@pytest.mark.parametrize("missing", ["/nowhere/f.yaml", ""])
def test_a_launch_file_that_is_not_there_says_nothing(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes(monkeypatch, tmp_path, [*LAUNCHERS["script"], "--config_file", missing, *MODULE])
    assert requested_processes() is None


def test_the_program_s_words_are_not_the_launcher_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, tmp_path, [*LAUNCHERS["script"], *MODULE])
    assert requested_processes() is None


def test_an_agent_may_stand_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = ["python", "-m", "torch.distributed.run", "--nproc_per_node", "5"]
    processes(monkeypatch, tmp_path, agent, ["make"], [*LAUNCHERS["script"], "--num_processes", "4", *MODULE])
    assert requested_processes() == 4


@pytest.mark.parametrize(
    "words",
    [["bash"], ["torchrun", "--nproc_per_node=2", "launch"], ["accelerate", "test"], [""]],
    ids=" ".join,
)
def test_no_launcher_says_nothing(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, tmp_path, words, ["init"])
    assert requested_processes() is None


def test_no_proc_says_nothing() -> None:
    assert requested_processes() is None


# The start.


def test_a_plain_start() -> None:
    state = start("fp32", 9.0)
    assert (state.num_processes, state.process_index) == (1, 0)
    assert state.is_main_process


@pytest.mark.parametrize(("asked", "precision"), [("bf16", "fp32"), ("fp16", "bf16"), ("fp8", "fp32")])
def test_precision_has_one_home(asked: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    with pytest.raises(ConfigError, match=f"mixed_precision={asked}.*precision={precision}") as caught:
        start(precision, 9.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("asked", "precision"), [("no", "fp32"), ("no", "bf16"), ("bf16", "bf16"), ("", "fp32")])
def test_precisions_that_agree(asked: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    assert start(precision, 9.0).num_processes == 1


def test_accumulation_has_one_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate would divide every loss by it once more."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(ConfigError, match="accumulate"):
        start("fp32", 9.0)


def test_compilation_has_one_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    assert start("fp32", 9.0).num_processes == 1
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with pytest.raises(ConfigError, match=r"dynamo_backend=INDUCTOR.*compile=true"):
        start("fp32", 9.0)


@pytest.mark.parametrize("name", ["FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_strategies_that_the_engine_does_not_know(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ConfigError, match=rf"asks for {name}.*MULTI_GPU or DEEPSPEED") as caught:
        start("fp32", 9.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("gpus", "local", "refused"), [(1, 1, True), (2, 3, True), (2, 1, False), (0, 5, False)])
def test_more_ranks_than_gpus(gpus: int, local: int, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    if not refused:
        launch._check_environment("fp32")
        return
    with pytest.raises(
        ConfigError, match=rf"LOCAL_RANK={local}, but this node shows {gpus} GPU.*CUDA_VISIBLE"
    ) as caught:
        launch._check_environment("fp32")
    assert caught.value.code == 2


@pytest.mark.distributed
@pytest.mark.parametrize("rank", [0, 1])
def test_peers_that_never_come(rank: int, tmp_path: Path) -> None:
    """One rank of two: it says in one line what it waited for, where and how long; 75, and status.json has it."""
    ours = {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    ours |= {"MASTER_PORT": str(free_port()), "TORCH_CPP_LOG_LEVEL": "FATAL"}
    program = [sys.executable, "-m", "savae_dist.train", "timeout=1", f"output={tmp_path / 'run'}"]
    done = subprocess.run(program, env={**environment(), **ours}, capture_output=True, text=True, timeout=60)
    lines = [line for line in done.stderr.splitlines() if line.startswith("savae_dist: ")]
    assert done.returncode == 75, done.stderr
    assert "Traceback" not in done.stderr
    assert len(lines) == 1
    assert f"rank {rank} waited timeout=1 s at 127.0.0.1:{ours['MASTER_PORT']} for all 2 ranks" in lines[0]
    assert status(tmp_path / "run")["exit_code"] == 75


def test_a_refused_launch_is_told_in_status_json(tmp_path: Path) -> None:
    ours = {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}
    program = [sys.executable, "-m", "savae_dist.train", f"output={tmp_path / 'run'}"]
    done = subprocess.run(program, env={**environment(), **ours}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert status(tmp_path / "run")["message"] in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("precision", "instead"), [("fp16", "bf16"), ("tf32", "fp32")])
def test_precisions_of_gpus(precision: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=f"precision={precision} needs a GPU; on a CPU use precision={instead}"):
        start(precision, 9.0)


def test_only_tf32_rounds_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "NEEDS_GPU", {})
    for precision, mode in (("tf32", "tf32"), ("fp32", "ieee")):
        start(precision, 9.0)
        assert torch.backends.cuda.matmul.fp32_precision == mode
        assert torch.backends.cudnn.conv.fp32_precision == mode


def test_a_launch_that_gave_fewer_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, tmp_path, [*LAUNCHERS["script"], "--cpu", "--num_processes", "2", *MODULE])
    with pytest.raises(ConfigError, match=r"2 processes were asked for and 1 started.*cpu_2\.yaml") as caught:
        start("fp32", 9.0)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)


def test_a_launch_that_gave_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, tmp_path, [*LAUNCHERS["script"], "--num_processes", "1", *MODULE])
    assert start("fp32", 9.0).num_processes == 1


def test_is_main(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_main()
    monkeypatch.setenv("RANK", "0")
    assert is_main()
    monkeypatch.setenv("RANK", "1")
    assert not is_main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_describe() -> None:
    state = PartialState()
    torch.set_num_threads(1)
    assert describe(state, "bf16") == "1 process (cpu), bf16, 1 thread each"
    torch.set_num_threads(2)
    assert describe(state, "fp32") == "1 process (cpu), fp32, 2 threads each"
