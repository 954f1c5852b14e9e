"""What the launcher gave against what was asked, and stopping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import PartialState

from savae_dist import launch
from savae_dist.errors import ConfigError
from savae_dist.launch import Stop, describe, is_main, requested_processes, start

MODULE = ["-m", "savae_dist.train", "demo", "--num_processes", "7"]
ENVIRONMENT = ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "WORLD_SIZE", "RANK")


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
    state = start("fp32")
    assert (state.num_processes, state.process_index) == (1, 0)
    assert state.is_main_process


@pytest.mark.parametrize(("asked", "precision"), [("bf16", "fp32"), ("fp16", "bf16"), ("fp8", "fp32")])
def test_precision_has_one_home(asked: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    with pytest.raises(ConfigError, match=f"mixed_precision={asked}.*precision={precision}") as caught:
        start(precision)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("asked", "precision"), [("no", "fp32"), ("no", "bf16"), ("bf16", "bf16"), ("", "fp32")])
def test_precisions_that_agree(asked: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    assert start(precision).num_processes == 1


def test_accumulation_has_one_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate would divide every loss by it once more."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    with pytest.raises(ConfigError, match="accumulate"):
        start("fp32")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("precision", "instead"), [("fp16", "bf16"), ("tf32", "fp32")])
def test_precisions_of_gpus(precision: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=f"precision={precision} needs a GPU; on a CPU use precision={instead}"):
        start(precision)


def test_only_tf32_rounds_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "NEEDS_GPU", {})
    for precision, mode in (("tf32", "tf32"), ("fp32", "ieee")):
        start(precision)
        assert torch.backends.cuda.matmul.fp32_precision == mode
        assert torch.backends.cudnn.conv.fp32_precision == mode


def test_a_launch_that_gave_fewer_processes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, tmp_path, [*LAUNCHERS["script"], "--cpu", "--num_processes", "2", *MODULE])
    with pytest.raises(ConfigError, match=r"2 processes were asked for and 1 started.*cpu_2\.yaml") as caught:
        start("fp32")
    assert caught.value.code == 2
    assert "\n" not in str(caught.value)


def test_a_launch_that_gave_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes(monkeypatch, tmp_path, [*LAUNCHERS["script"], "--num_processes", "1", *MODULE])
    assert start("fp32").num_processes == 1


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


# Stopping.


@pytest.fixture
def _handlers() -> Iterator[None]:
    """The handlers as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_seen(number: signal.Signals) -> None:
    stop = Stop(PartialState())
    assert stop.agreed() == 0
    os.kill(os.getpid(), number)
    assert stop.agreed() == number
    assert stop.agreed() == number
    stop.close()
    assert stop.agreed() == number


TWICE = """
import os, signal, time
from accelerate import PartialState
from savae_dist.launch import Stop
stop = Stop(PartialState())
for number in SIGNALS:
    os.kill(os.getpid(), number)
print(stop.agreed(), flush=True)
"""


@pytest.mark.parametrize(
    ("signals", "code", "out"),
    [
        ("[signal.SIGTERM, signal.SIGTERM, signal.SIGINT]", 0, "2"),
        ("[signal.SIGINT, signal.SIGINT]", 130, ""),
    ],
)
def test_only_the_second_control_c_stops_at_once(signals: str, code: int, out: str) -> None:
    program = TWICE.replace("SIGNALS", signals)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (code, out)
    assert ("stopped at once" in done.stderr) == (code == 130)
