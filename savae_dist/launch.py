"""Start-up check (what the launcher gave against what was asked) and stopping together."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
import yaml
from accelerate import PartialState
from accelerate.utils import DistributedType

from savae_dist.errors import ConfigError
from savae_dist.precision import NEEDS_GPU, Precision, set_tf32

CONTROL_C_TWICE = 130
# What a DeepSpeed launch may say in ACCELERATE_...: (values that change nothing, what to do about any other).
DEEPSPEED = {
    "GRADIENT_CLIPPING": (("none", "0", "0.0"), "leave it out and set optimizers.NAME.clip_norm instead"),
    "DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": (("none",), "these optimisers stay on their device; leave it out"),
    "DEEPSPEED_OFFLOAD_PARAM_DEVICE": (("none",), "that is ZeRO-3's; leave it out"),
    "DEEPSPEED_ZERO3_INIT": (("false",), "that is ZeRO-3's; leave it out"),
    "DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": (("false",), "that is ZeRO-3's; leave it out"),
    "DEEPSPEED_CONFIG_FILE": (("none",), "leave it out; zero_stage is all that the launch decides"),
}
PROC = Path("/proc")


def start(precision: Precision) -> PartialState:
    """Join the process group and refuse a launch that is not what was asked; ConfigError in one line."""
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
    zero = zero_stage()
    # Accelerate's launcher of several processes does not hand `use_cpu` on: without the flag they would be strangers.
    world = int(os.environ.get("WORLD_SIZE", "1"))
    state = PartialState(cpu=world > 1 and not torch.cuda.is_available())
    if state.num_processes != world:
        raise ConfigError(
            f"the launcher set WORLD_SIZE={world}, but this process knows of {state.num_processes}: start it with "
            "`accelerate launch --config_file launch_configs/accelerate/...`"
        )
    if precision in NEEDS_GPU and state.device.type == "cpu":
        raise ConfigError(f"precision={precision} needs a GPU; on a CPU use precision={NEEDS_GPU[precision]}")
    if zero and world < 2:
        raise ConfigError("ZeRO shares a state among processes, and this is one: use a launch file without DeepSpeed")
    processes = requested_processes()
    if processes is not None and processes != state.num_processes:
        raise ConfigError(
            f"{processes} processes were asked for and {state.num_processes} started: launch CPU processes with "
            "--config_file launch_configs/accelerate/cpu_2.yaml (`--cpu --num_processes` starts strangers)"
        )
    set_tf32(precision)
    return state


def zero_stage() -> int:
    """The ZeRO stage (1 or 2) of a DeepSpeed launch, else 0; ConfigError for what DeepSpeed cannot do here.

    Of the launch file's `deepspeed_config` only `zero_stage` is taken. Its other keys, with Accelerate's own defaults
    (it would clip at 1), describe a plugin that is never made; where one asks for something, it is refused.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return 0
    for name, (harmless, advice) in DEEPSPEED.items():
        value = os.environ.get(f"ACCELERATE_{name}", "").lower()
        if value not in ("", *harmless):
            raise ConfigError(
                f"the launch says {name.removeprefix('DEEPSPEED_').lower()}={value} of DeepSpeed: {advice}"
            )
    stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
    if stage not in ("1", "2"):
        reason = "ZeRO-3 cuts up networks that another update needs whole" if stage == "3" else "there is 1, and 2"
        raise ConfigError(f"the launch says zero_stage={stage} of DeepSpeed: {reason}; set it to 1 or 2")
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError("the launch asks for DeepSpeed, which is not installed: pip install 'savae-dist[deepspeed]'")
    return int(stage)


def is_main() -> bool:
    """Whether this process speaks for all; before the processes know each other, the launcher's environment says it."""
    return os.environ.get("RANK", "0") == "0"


def describe(state: PartialState, precision: Precision, zero: int = 0) -> str:
    """`2 processes (MULTI_GPU, gloo, cpu), fp32, 1 thread each`; `ZeRO-2` there under DeepSpeed."""
    kind = "1 process" if state.num_processes == 1 else f"{state.num_processes} processes"
    name = f"ZeRO-{zero}" if zero else state.distributed_type.value
    strategy = [] if state.distributed_type == DistributedType.NO else [name, state.backend]
    threads = torch.get_num_threads()
    threads_text = f"{threads} thread{'s' if threads > 1 else ''} each" if state.device.type == "cpu" else ""
    parts = [f"{kind} ({', '.join([*map(str, strategy), state.device.type])})", precision, threads_text]
    return ", ".join(part for part in parts if part)


def requested_processes() -> int | None:
    """How many processes the `accelerate launch` above this process was asked for; None where that can't be seen.

    A launch that silently started one process, or several that do not know each other, leaves no trace in the
    environment, so the launcher's own command line is read (Linux only).
    """
    pid = os.getppid()
    for _ in range(8):  # torchrun's agent may stand in between
        try:
            words = (PROC / str(pid) / "cmdline").read_text().split("\0")
            parent = int((PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, ValueError):  # no /proc, or the process is gone: nothing can be said
            return None
        for number, word in enumerate(words[:3]):
            if Path(word).name in ("accelerate-launch", "accelerate.commands.launch"):
                return _processes_in(words[number + 1 :])
            command_line = Path(word).name in ("accelerate", "accelerate.commands.accelerate_cli")
            if command_line and words[number + 1 : number + 2] == ["launch"]:
                return _processes_in(words[number + 2 :])
        if parent <= 1:
            return None
        pid = parent
    return None


def _processes_in(words: list[str]) -> int | None:
    options: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in ("-m", "--module") or not word:
            break  # from here on the words are the program's
        name, _, value = word.partition("=")
        options[name] = value or following
    for name in ("--num_processes", "--num-processes"):
        if options.get(name, "").isdigit():
            return int(options[name])
    for name in ("--config_file", "--config-file"):
        if name in options and Path(options[name]).is_file():
            number = yaml.safe_load(Path(options[name]).read_text()).get("num_processes")
            return int(number) if number is not None else None
    return None


class Stop:
    """A wish to stop (SIGTERM, SIGINT), agreed by all ranks so that they stop after the same iteration.

    Each `agreed()` looks at the answer to the question that the call before it asked, so nobody waits.
    """

    def __init__(self, state: PartialState) -> None:
        self.signal = 0
        self._group = dist.new_group(backend="gloo") if state.num_processes > 1 else None
        self._answer = torch.zeros(1, dtype=torch.int64)
        self._question: dist.Work | None = None
        self._before = {n: signal.signal(n, self._receive) for n in (signal.SIGTERM, signal.SIGINT)}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            sys.stderr.write("stopped at once; the last checkpoint is kept\n")
            os._exit(CONTROL_C_TWICE)  # the other threads may hang in a collective
        self.signal = number

    def agreed(self) -> int:
        """The signal that any rank had received one call ago, else 0; every rank must call it equally often."""
        if self._group is None:
            return self.signal
        seen = 0
        if self._question is not None:
            self._question.wait()
            seen = int(self._answer)
        self._answer = torch.tensor([self.signal])
        self._question = dist.all_reduce(self._answer, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return seen

    def settle(self) -> None:
        """Wait for the open question, so that no collective is under way."""
        if self._question is not None:
            self._question.wait()
            self._question = None

    def close(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
