"""`savae-train --launch FILE`: Accelerate's launcher in this process, which ends with the trainers' own code and line.

As a program of its own the launcher ends every failure, a clean stop included, with its traceback and code 1.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import psutil
from accelerate.commands.launch import launch_command, launch_command_parser
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError

from savae_dist.distributed.environment import CODES, word_left
from savae_dist.errors import ConfigError, Preempted, RankLost

FOLDERS = (
    Path(__file__).parents[2] / "launch_configs" / "accelerate",  # in a checkout
    Path(__file__).parents[1] / "launch_configs" / "accelerate",  # in an installed wheel
)
KILLED = 128  # and the signal's number: the code by which a shell tells of it


def launch(given: str, arguments: Sequence[str]) -> int:
    """Start the trainers with these arguments, and wait for them: their exit code.

    given: a launch file, or the name of one of ours, and options of the launcher behind it. ConfigError if it cannot be
    used.
    """
    name, *options = shlex.split(given) or [""]
    file = next((path for path in (Path(name), *(folder / name for folder in FOLDERS)) if path.is_file()), None)
    if file is None:
        ours = sorted(path.name for folder in FOLDERS for path in folder.glob("*.yaml"))
        raise ConfigError(f"--launch {given}: there is no launch file {name}; ours are {', '.join(ours)}")
    words = ["--config_file", str(file), *options, *_program(), *arguments]
    logging.disable(logging.ERROR)  # why a trainer ended it has said itself, and torch would add its own lines
    with tempfile.TemporaryDirectory(prefix="savae_dist-") as folder:
        os.environ[CODES] = folder
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # ignored under nohup
                signal.signal(number, _pass_on)
        code = _ended_with(words, given)
        said = word_left(Path(folder))
    return code if not code or said is None else said


def _ended_with(words: Sequence[str], given: str) -> int:
    """The launcher's own view of how it ended; after a signal only the trainers know more."""
    try:
        launch_command(launch_command_parser().parse_args(words))
    except subprocess.CalledProcessError as error:  # raised for a launch of one process
        return _code(error.returncode)
    except ChildFailedError as error:  # raised for several, with the first that failed
        return _code(error.get_first_failure()[1].exitcode)
    except SignalException:
        return Preempted.code
    except RendezvousError as error:
        raise RankLost(
            f"not all machines of --launch {given} came together ({error}): see that each was started and reaches "
            "main_process_ip, then run it again"
        ) from error
    except ValueError as error:  # keys and options that do not go together
        raise ConfigError(f"--launch {given}: {' '.join(str(error).split())}") from error
    return 0


def _program() -> list[str]:
    """The program that this process runs, in the launcher's words: it may enter systems of its own."""
    spec = sys.modules["__main__"].__spec__
    if Path(sys.argv[0]).name == "savae-train":
        return ["-m", "savae_dist.train"]
    return [sys.argv[0]] if spec is None else ["-m", spec.name.removesuffix(".__main__")]


def _code(ended: int) -> int:
    return ended if ended >= 0 else KILLED - ended


def _pass_on(number: int, frame: FrameType | None) -> None:
    """A signal to this process is one to stop for the single trainer; torch's launcher of several has its own handlers.

    Passed on as SIGTERM: a Ctrl-C in a terminal reaches the trainer too, and two of them would end it unsaved.
    """
    trainers = psutil.Process().children()
    if not trainers:
        raise Preempted(f"stopped by signal {number} before a trainer was started; run it again to go on")
    for trainer in trainers:
        trainer.send_signal(signal.SIGTERM)
