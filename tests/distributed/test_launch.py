"""What the launcher gave against what was asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from accelerate import PartialState
from helpers.launching import ROOT, environment, free_port, status

from savae_dist.distributed import launch
from savae_dist.distributed.environment import CODES, is_main
from savae_dist.distributed.launch import describe, requested_processes, start
from savae_dist.errors import ConfigError

MODULE = ["-m", "savae_dist.train", "demo", "--num_processes", "7"]
ENVIRONMENT = (
    *("ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_DYNAMO_BACKEND"),
    *("ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG"),
    *("ACCELERATE_USE_CPU", "WORLD_SIZE", "RANK", "LOCAL_RANK"),
)
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    processes(monkeypatch)  # nothing is above us


class Process:
    """What `psutil` says of a process: its command, or why it can't be seen, and the one above it."""

    def __init__(self, command: list[str] | Exception, above: Process | Exception | None) -> None:
        self.command, self.above = command, above

    def cmdline(self) -> list[str]:
        if isinstance(self.command, Exception):
            raise self.command
        return self.command

    def parent(self) -> Process | None:
        if isinstance(self.above, Exception):
            raise self.above
        return self.above


def processes(monkeypatch: pytest.MonkeyPatch, *commands: list[str] | Exception, top: Exception | None = None) -> None:
    """Each command is the parent of the one before it, and the first is ours; `top`: why no more can be seen."""
    process: Process | Exception | None = top
    for command in reversed(commands):
        process = Process(command, process)
    ours = Process(["python"], process)
    monkeypatch.setattr(launch.psutil, "Process", lambda: ours)


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
    processes(monkeypatch, [*launcher, *options, *MODULE])
    assert requested_processes() == 2


@BY_LAUNCHER
@pytest.mark.parametrize("form", ["--config_file={}", "--config_file {}", "--config-file {}"])
def test_the_number_in_the_launch_file(
    launcher: list[str], form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f.yaml").write_text("use_cpu: true\nnum_processes: 3\n")
    processes(monkeypatch, [*launcher, *form.format(tmp_path / "f.yaml").split(), *MODULE])
    assert requested_processes() == 3


@pytest.mark.parametrize("program", [["python", "-m", "savae_dist.train"], ["python", "/venv/bin/savae-train"]])
@pytest.mark.parametrize("form", ["--launch={} --num_processes 2", "{}"])
def test_our_own_launcher_is_seen(
    program: list[str], form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f.yaml").write_text("use_cpu: true\nnum_processes: 3\n")
    given = form.format(tmp_path / "f.yaml")
    words = [given] if given.startswith("--launch") else ["--launch", given]
    processes(monkeypatch, [*program, "demo", *words])
    assert requested_processes() is None
    monkeypatch.setenv(CODES, str(tmp_path))  # which it sets
    assert requested_processes() == (2 if "--num_processes" in given else 3)


def test_the_command_line_outranks_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.yaml").write_text("num_processes: 3\n")
    options = ["--config_file", str(tmp_path / "f.yaml"), "--num_processes", "2"]
    processes(monkeypatch, [*LAUNCHERS["script"], *options, *MODULE])
    assert requested_processes() == 2


def test_a_launch_file_without_a_number_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.yaml").write_text("use_cpu: true\n")
    processes(monkeypatch, [*LAUNCHERS["script"], "--config_file", str(tmp_path / "f.yaml"), *MODULE])
    assert requested_processes() is None


@pytest.mark.parametrize("missing", ["/nowhere/f.yaml", ""])
def test_a_launch_file_that_is_not_there_says_nothing(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes(monkeypatch, [*LAUNCHERS["script"], "--config_file", missing, *MODULE])
    assert requested_processes() is None


def test_the_program_s_words_are_not_the_launcher_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, [*LAUNCHERS["script"], *MODULE])
    assert requested_processes() is None


def test_an_agent_may_stand_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = ["python", "-m", "torch.distributed.run", "--nproc_per_node", "5"]
    processes(monkeypatch, agent, ["make"], [*LAUNCHERS["script"], "--num_processes", "4", *MODULE])
    assert requested_processes() == 4


@pytest.mark.parametrize(
    "words",
    [["bash"], ["torchrun", "--nproc_per_node=2", "launch"], ["accelerate", "test"], [""]],
    ids=" ".join,
)
def test_no_launcher_says_nothing(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, words, ["init"])
    assert requested_processes() is None


HIDDEN = (psutil.AccessDenied(1), psutil.NoSuchProcess(1), FileNotFoundError("/proc"))


@pytest.mark.parametrize("reason", HIDDEN, ids=lambda reason: type(reason).__name__)
def test_what_cannot_be_seen_says_nothing(reason: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, ["bash"], top=reason)
    assert requested_processes() is None
    processes(monkeypatch, top=reason)
    assert requested_processes() is None


def test_beyond_a_process_that_hides_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, psutil.AccessDenied(1), [*LAUNCHERS["script"], "--num_processes", "4", *MODULE])
    assert requested_processes() == 4


def test_a_launcher_far_above_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = [*LAUNCHERS["script"], "--num_processes", "4", *MODULE]
    processes(monkeypatch, *[["bash"]] * (launch.MAX_ABOVE - 1), launcher)
    assert requested_processes() == 4
    processes(monkeypatch, *[["bash"]] * launch.MAX_ABOVE, launcher)
    assert requested_processes() is None


def test_a_real_launcher_is_seen(tmp_path: Path) -> None:
    """A program of that name starts a shell, which starts who asks."""
    ask = "from savae_dist.distributed.launch import requested_processes; print(requested_processes())"
    words = ["bash", "-c", '"$0" -c "$1"; true', sys.executable, ask]
    (tmp_path / "accelerate-launch").write_text(f"import subprocess; subprocess.run({words})")
    command = [sys.executable, str(tmp_path / "accelerate-launch"), "--num_processes", "3"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "3\n", done.stderr


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
    with pytest.raises(ConfigError, match=r"dynamo_backend=INDUCTOR.*compile=update"):
        start("fp32", 9.0)


@pytest.mark.parametrize("name", ["MEGATRON_LM", "PARALLELISM_CONFIG"])
def test_strategies_that_the_engine_does_not_know(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ConfigError, match=rf"asks for {name}.*MULTI_GPU, DEEPSPEED or FSDP") as caught:
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


def check_accepted() -> None:
    """A refusal would be raised."""
    launch._check_environment("fp32")


GPU_FILES = sorted((ROOT / "launch_configs" / "accelerate").glob("*gpu*.yaml"))
CPU_FILES = sorted((ROOT / "launch_configs" / "accelerate").glob("*cpu*.yaml"))


@WITHOUT_GPU
@pytest.mark.parametrize("file", GPU_FILES, ids=lambda path: path.stem)
def test_a_launch_file_for_gpus_needs_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would train on the CPU, as many processes as GPUs were asked for; unless CPUs are asked for as well."""
    processes(monkeypatch, [*LAUNCHERS["script"], "--config_file", str(file), *MODULE])
    with pytest.raises(ConfigError, match=r"asks for GPUs.*shows none.*cpu_1\.yaml, or with --cpu") as caught:
        start("fp32", 9.0)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(ConfigError, match=r"cpu_2\.yaml.*ACCELERATE_USE_CPU=true"):
        start("fp32", 9.0)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    check_accepted()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")  # what the launcher makes of it for one process
    processes(monkeypatch, [*LAUNCHERS["script"], "--config_file", str(file), "--cpu", *MODULE])
    check_accepted()


@WITHOUT_GPU
def test_gpus_asked_for_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, [*LAUNCHERS["script"], "--multi_gpu", "--num_processes", "1", *MODULE])
    with pytest.raises(ConfigError, match="asks for GPUs"):
        start("fp32", 9.0)


@WITHOUT_GPU
@pytest.mark.parametrize("words", [["python", "/venv/bin/torchrun"], ["python", "-m", "torch.distributed.run"]])
def test_torchrun_needs_gpus(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless CPUs are asked for; it would train on them without a word."""
    processes(monkeypatch, [*words, "--nproc_per_node", "2", *MODULE], ["bash"])
    check_accepted()  # started from a shell that torchrun started, say
    monkeypatch.setenv(launch.ELASTIC, "none")
    with pytest.raises(ConfigError, match=r"^torchrun is for GPUs.*shows none.*ACCELERATE_USE_CPU=true$") as caught:
        start("fp32", 9.0)
    assert caught.value.code == 2
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    check_accepted()


@pytest.mark.parametrize("options", [[], *(["--config_file", str(file)] for file in CPU_FILES)], ids=str)
def test_a_launch_that_asks_for_no_gpu(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, [*LAUNCHERS["script"], *options, *MODULE])
    check_accepted()


def test_cpus_that_are_asked_for_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beside GPUs, of which there may be fewer than processes."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("LOCAL_RANK", "3")
    launch._check_environment("fp32")
    monkeypatch.delenv("LOCAL_RANK")
    assert start("fp32", 9.0).device.type == "cpu"


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


@WITHOUT_GPU
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
        assert torch.backends.cudnn.allow_tf32 == (mode == "tf32")  # torch.export asks for it


def test_a_launch_that_gave_fewer_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, [*LAUNCHERS["script"], "--cpu", "--num_processes", "2", *MODULE])
    with pytest.raises(ConfigError, match=r"2 processes were asked for and 1 started.*cpu_2\.yaml") as caught:
        start("fp32", 9.0)
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)


def test_a_launch_that_gave_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, [*LAUNCHERS["script"], "--num_processes", "1", *MODULE])
    assert start("fp32", 9.0).num_processes == 1


def test_is_main(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_main()
    monkeypatch.setenv("RANK", "0")
    assert is_main()
    monkeypatch.setenv("RANK", "1")
    assert not is_main()


@WITHOUT_GPU
def test_describe() -> None:
    state = PartialState()
    torch.set_num_threads(1)
    assert describe(state, "bf16") == "1 process (cpu), bf16, 1 thread each"
    torch.set_num_threads(2)
    assert describe(state, "fp32") == "1 process (cpu), fp32, 2 threads each"


# The launcher, whose end ends its trainers.


@pytest.mark.parametrize(
    ("first", "elastic", "expected"),
    [
        (["/sbin/init"], True, launch.GONE),
        (["/usr/bin/python3.11", "-m", "torch.distributed.run"], True, launch.INIT),
        (psutil.AccessDenied(1), True, launch.INIT),
        ([], True, launch.INIT),
        (["/sbin/init"], False, None),
    ],
    ids=str,
)
def test_a_trainer_whose_parent_is_the_first_process(
    first: list[str] | Exception, elastic: bool, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container that may be the launcher; elsewhere the launcher has ended while the trainer started."""
    processes(monkeypatch, first)
    ours = launch.psutil.Process()
    monkeypatch.setattr(launch.psutil, "Process", lambda pid=None: ours if pid is None else ours.parent())
    monkeypatch.setattr(launch, "STARTED_BY", launch.INIT)
    monkeypatch.delenv(launch.ELASTIC, raising=False)
    if elastic:
        monkeypatch.setenv(launch.ELASTIC, "run")
    assert launch.launcher() == expected
