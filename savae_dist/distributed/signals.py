"""Ending a run from outside: signals, the agreement of all ranks on when to stop, and ranks that are gone."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, Self

import torch
import torch.distributed as dist

from savae_dist.errors import Preempted

CONTROL_C_TWICE = 130
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# torch's launcher kills this long after its SIGTERM; five seconds of it are kept for the last words.
LAUNCHER_SECONDS, LAST_WORDS_SECONDS = 30.0, 5.0

# What gloo and NCCL say when a peer is gone or cannot be reached; their enforced checks ("enforce fail", "invalid
# usage") speak of bugs and are none of these.
GLOO = re.compile(
    r"gloo/gloo/(transport|rendezvous)/"
    r"|^(Application timeout caused pair closure|Connection closed by peer|Gloo connectFullMesh failed|Socket closed"
    r"|Timeout waiting for key|Wait timeout)"
)
NCCL = re.compile(r"remote process exited|system error|time[d ]?-?out|abort|network|connection", re.IGNORECASE)


def lost_peer(error: BaseException) -> str | None:
    """What the network says if `error` came from a collective whose peer is gone or out of reach; else None.

    gloo raises bare RuntimeErrors, from `backward` as well: they are known by its words, mostly by the source
    line of its transport that they begin with.
    """
    text = " ".join(str(error).split())
    if isinstance(error, dist.DistStoreError | dist.DistNetworkError):
        found = True
    elif isinstance(error, dist.DistBackendError):
        found = NCCL.search(text) is not None
    else:
        found = type(error) is RuntimeError and "enforce fail" not in text and GLOO.search(text) is not None
    return re.sub(r"^\[\S*\] ", "", text).partition(". ")[0][:150].rstrip(".") if found else None


def has_peers() -> bool:
    """Whether this process has joined others."""
    return dist.is_initialized() and dist.get_world_size() > 1


def leave(code: int) -> NoReturn:
    """End this process now.

    Its threads may hang in a collective and keep an orderly exit, and with it the peers, waiting for the time-out.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Stop:
    """A wish to stop (SIGTERM, SIGINT), agreed by all ranks so that they stop after the same iteration.

    Each `agreed()` looks at the answer to the question that the call before it asked, so nobody waits. Before the first
    of them nothing was trained, and a signal is a Preempted where it arrives.

    The agreement needs all ranks. Where one is gone or cut off the others may hang in a collective, where Python
    does not even call its signal handlers: a thread that is woken by the signal itself calls `give_up` and ends the
    process if the ranks have not agreed within `patience` seconds.
    """

    def __init__(self, give_up: Callable[[str], None], ranks: int = 1, patience: float | None = None) -> None:
        limit = float(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", LAUNCHER_SECONDS))
        self.patience = max(limit - LAST_WORDS_SECONDS, 1.0) if patience is None else patience
        self.signal = 0
        self._give_up, self._ranks, self._training = give_up, ranks, False
        self._group: dist.ProcessGroup | None = None
        self._answer = torch.zeros(1, dtype=torch.int64)
        self._question: dist.Work | None = None
        self._settled = threading.Event()
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        self._woken, self._bell = socket.socketpair()
        self._bell.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        self._watcher = threading.Thread(target=self._watch, name="stop", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back to whoever had them."""
        self._settled.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._bell.send(bytes(1))  # the watcher reads it and ends
        self._watcher.join()
        self._bell.close()
        self._woken.close()

    def join(self, group: dist.ProcessGroup | None) -> None:
        """The ranks to agree with, once they know each other."""
        self._group = group

    def agreed(self) -> int:
        """The signal that any rank had received one call ago, else 0; every rank must call it equally often."""
        self._training = True
        if self._group is None:
            return self.signal
        seen = 0
        if self._question is not None:
            self._question.wait()
            seen = int(self._answer)
        if seen:
            self._settled.set()
        self._answer = torch.tensor([self.signal])
        self._question = dist.all_reduce(self._answer, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return seen

    def settle(self) -> None:
        """Wait for the open question, so that no collective is under way."""
        if self._question is not None:
            self._question.wait()
            self._question = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            sys.stderr.write("stopped at once; the last checkpoint is kept\n")
            leave(CONTROL_C_TWICE)
        self.signal = number
        if not self._training and os.getpid() == self._owner:  # a loader's worker has inherited this handler
            early = Preempted(f"stopped by signal {number} before it began to train; run it again to go on")
            early.everywhere = False  # it may have reached this process only
            raise early

    def _watch(self) -> None:
        """Once a signal has come, wait until the ranks have agreed, but not for ever."""
        while not self._settled.is_set():
            number = self._woken.recv(1)[0]
            if number in SIGNALS and self._ranks > 1 and not self._settled.wait(self.patience):
                self._give_up(
                    f"stopped by signal {number}; the ranks could not agree on a step within {self.patience:g} s, "
                    "so the last checkpoint stands; run it again to go on"
                )
                leave(Preempted.code)


def _forget_the_bell() -> None:
    signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_the_bell)  # a signal to a loader's worker is none to this process
