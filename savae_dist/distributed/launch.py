"""Start-up check: whether the launch is what the configuration and the command line ask for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from accelerate import PartialState
from accelerate.utils import DistributedType, parse_flag_from_env

from savae_dist.config.schema import Precision
from savae_dist.config.strategy import SHOWN, Strategy
from savae_dist.distributed.environment import CODES, STARTED_BY, world_size
from savae_dist.distributed.flight import record_nccl
from savae_dist.distributed.lost_peer import lost_peer
from savae_dist.distributed.strategy import asked_strategy
from savae_dist.errors import ConfigError, RankLost
from savae_dist.precision import NEEDS_GPU, set_tf32

_FOR_GPUS = {"--multi_gpu", "--multi-gpu"}
# Set by torch's launcher in its children, and so by Accelerate's of several processes, which is built on it.
ELASTIC = "TORCHELASTIC_RUN_ID"
INIT, GONE = 1, 0  # the process that inherits those whose parent has ended; no process's id
TORCHRUN = ("torchrun", "torch.distributed.run", "torch.distributed.launch")
MAX_ABOVE = 8  # ancestors to search for the launcher: torchrun's agent or a shell may lie between
# At its time-out NCCL ends the process without an error to catch. gloo is used in every iteration too, and must time
# out first, because its error can be reported.
NCCL_GRACE_SECONDS = 3.0


def start(precision: Precision, timeout: float, output: Path | None = None) -> PartialState:
    """Join the process group and refuse a launch that is not what was asked; ConfigError in one line.

    timeout: seconds that a rank waits for its peers, here and in every later collective; RankLost if not all come.
    output: the run's folder, into which NCCL writes what it has recorded when it times out.
    """
    _check_environment(precision)
    if output is not None and world_size() > 1 and torch.cuda.is_available() and not cpu_asked():
        record_nccl(output)
    state = _join(timeout)
    if state.num_processes != world_size():
        raise ConfigError(
            f"the launcher set WORLD_SIZE={world_size()}, but this process knows of {state.num_processes}: start it "
            "with `accelerate launch --config_file launch_configs/accelerate/...`"
        )
    if precision in NEEDS_GPU and state.device.type == "cpu":
        raise ConfigError(f"precision={precision} needs a GPU; on a CPU use precision={NEEDS_GPU[precision]}")
    processes = requested_processes()
    if processes is not None and processes != state.num_processes:
        raise ConfigError(
            f"{processes} processes were asked for and {state.num_processes} started: launch CPU processes with "
            "--config_file launch_configs/accelerate/cpu_2.yaml (`--cpu --num_processes` does not connect them)"
        )
    set_tf32(precision)
    return state


def _check_environment(precision: Precision) -> None:
    """ConfigError where the launch contradicts the configuration, or asks for something unsupported or missing."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", "", precision):
        raise ConfigError(
            f"the launch says mixed_precision={asked} and the configuration precision={precision}: set `precision`, "
            "and leave mixed_precision at 'no' in the launch file"
        )
    accumulation = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulation != "1":
        raise ConfigError(
            f"the launch says gradient_accumulation_steps={accumulation}: leave it out and set `accumulate` instead"
        )
    if (strategy := asked_strategy()) != "ddp" and world_size() < 2:
        raise ConfigError(
            f"{SHOWN[strategy]} shares a state among processes, and this is one: use launch_configs/accelerate/"
            "cpu_1.yaml or gpu_1.yaml"
        )
    dynamo = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no")
    if dynamo.lower() not in ("no", ""):
        raise ConfigError(f"the launch says dynamo_backend={dynamo}: leave it out and set `compile=update` instead")
    _check_gpus()
    local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if 0 < gpus <= local and not cpu_asked():
        raise ConfigError(
            f"LOCAL_RANK={local}, but this node shows {gpus} GPU{'s' if gpus > 1 else ''}: lower num_processes in the "
            "launch file, or widen CUDA_VISIBLE_DEVICES"
        )


def _check_gpus() -> None:
    """ConfigError if the launcher was told to use GPUs, and none is in sight."""
    if torch.accelerator.is_available() or cpu_asked():
        return
    above = list(islice(_above(), MAX_ABOVE))
    for options in map(_options, filter(None, map(_launched_with, above))):
        if "--cpu" not in options and (_FOR_GPUS & options.keys() or _launch_file(options).get("use_cpu") is False):
            one, several = (
                "cpu_1.yaml, or with --cpu",
                "cpu_2.yaml (--num_processes N), or with ACCELERATE_USE_CPU=true",
            )
            raise ConfigError(
                "the launch asks for GPUs and this machine shows none (see nvidia-smi, CUDA_VISIBLE_DEVICES); to train "
                f"on CPUs: --config_file launch_configs/accelerate/{several if world_size() > 1 else one}"
            )
    if ELASTIC in os.environ and any(map(_is_torchrun, above)):
        raise ConfigError(
            "torchrun is for GPUs and this machine shows none (see nvidia-smi, CUDA_VISIBLE_DEVICES); to train on "
            "CPUs set ACCELERATE_USE_CPU=true"
        )


def cpu_asked() -> bool:
    """Whether CPUs were asked for by Accelerate's own variable, which its launcher sets for a single process."""
    return bool(parse_flag_from_env("ACCELERATE_USE_CPU"))


def _join(timeout: float) -> PartialState:
    world, gpu = world_size(), torch.cuda.is_available() and not cpu_asked()
    limit = timedelta(seconds=timeout + NCCL_GRACE_SECONDS if gpu else timeout)
    try:
        # Accelerate's launcher does not pass `use_cpu` on to several processes; without it they would not connect.
        return PartialState(cpu=cpu_asked() or (world > 1 and not gpu), timeout=limit)
    except RuntimeError as error:
        reason = lost_peer(error)
        if reason is None:
            raise
        where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise RankLost(
            f"rank {os.environ.get('RANK', '0')} waited timeout={timeout:g} s at {where} for all {world} ranks, and "
            f"not all came ({reason}): see that every node was started and reaches that address, then run it again"
        ) from error


def describe(state: PartialState, precision: Precision, strategy: Strategy = "ddp") -> str:
    """`2 processes (MULTI_GPU, gloo, cpu), fp32, 1 thread each`; under DeepSpeed `ZeRO-2` for `MULTI_GPU`."""
    kind = "1 process" if state.num_processes == 1 else f"{state.num_processes} processes"
    spread = (
        []
        if state.distributed_type == DistributedType.NO
        else [SHOWN.get(strategy, state.distributed_type.value), state.backend]
    )
    threads = torch.get_num_threads()
    threads_text = f"{threads} thread{'s' if threads > 1 else ''} each" if state.device.type == "cpu" else ""
    parts = [f"{kind} ({', '.join([*map(str, spread), state.device.type])})", precision, threads_text]
    return ", ".join(part for part in parts if part)


def requested_processes() -> int | None:
    """How many processes the `accelerate launch` above this process was asked for; None if that cannot be seen.

    A launch that silently started one process, or several that do not know each other, leaves no trace in the
    environment, so the launcher's own command line is read.
    """
    for process in islice(_above(), MAX_ABOVE):
        words = _launched_with(process)
        if words is not None:
            return _processes_in(words)
    return None


def launcher() -> int | None:
    """The process id of the launcher that started this process; None if its parent is none, such as a shell.

    A trainer must not outlive it: nobody would pass a signal on, and it would keep the next launch out of `output`.
    torch's launcher of several processes passes SIGTERM on, but not if it is killed; that of a single one never does.
    The former may have ended already, while this process started or loaded torch.
    """
    if ELASTIC in os.environ:
        return GONE if STARTED_BY == INIT and not _is_python(INIT) else STARTED_BY
    parent = next(_above(), None)
    return parent.pid if parent is not None and _launched_with(parent) is not None else None


def _is_python(pid: int) -> bool:
    """Whether that process runs Python, as every launcher of torch does, also as the first process of a container."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:  # hidden from us: nothing says that it is no launcher
        return True
    return not words or "python" in Path(words[0]).name


def _above() -> Iterator[psutil.Process]:
    """The ancestors of this process, the nearest first, as far as they can be seen."""
    try:
        process = psutil.Process().parent()
        while process is not None:
            yield process
            process = process.parent()
    except (psutil.Error, OSError):  # gone, hidden from us, or a Linux without /proc
        return


def _launched_with(process: psutil.Process) -> list[str] | None:
    """The arguments of `process` if it is an `accelerate launch` or `savae-train --launch`; None if not, or unseen."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return None
    for number, word in enumerate(words[:3]):
        if Path(word).name in ("accelerate-launch", "accelerate.commands.launch"):
            return words[number + 1 :]
        command_line = Path(word).name in ("accelerate", "accelerate.commands.accelerate_cli")
        if command_line and words[number + 1 : number + 2] == ["launch"]:
            return words[number + 2 :]
    if CODES in os.environ:  # set by our own launcher, which any program that trains may be
        given = _options([word for word in words if word not in ("-m", "--module")]).get("--launch")
        return ["--config_file", *shlex.split(given)] if given else None
    return None


def _is_torchrun(process: psutil.Process) -> bool:
    try:
        return any(Path(word).name in TORCHRUN for word in process.cmdline()[:3])
    except psutil.Error:
        return False


def _options(words: list[str]) -> dict[str, str]:
    """The launcher's options with the word that follows each; empty for the last."""
    options: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-m", "--module") or not word:
            break  # from here on the words are the program's
        name, _, value = word.partition("=")
        options[name] = value or following
    return options


def _launch_file(options: dict[str, str]) -> dict[str, Any]:
    """The launch file of these options; empty where there is none."""
    for name in ("--config_file", "--config-file"):
        if name in options and Path(options[name]).is_file():
            return dict(yaml.safe_load(Path(options[name]).read_text()))
    return {}


def _processes_in(words: list[str]) -> int | None:
    options = _options(words)
    for name in ("--num_processes", "--num-processes"):
        if options.get(name, "").isdigit():
            return int(options[name])
    number = _launch_file(options).get("num_processes")
    return int(number) if number is not None else None
