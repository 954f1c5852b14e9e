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
# torch's launcher kills a process this long after its SIGTERM; the last five seconds are kept for writing the status.
LAUNCHER_SECONDS, LAST_WORDS_SECONDS = 30.0, 5.0

# Errors of gloo and NCCL when a peer is gone or cannot be reached. Their failed checks ("enforce fail", "invalid
# usage") are bugs and must not match.
GLOO = re.compile(
    r"gloo/gloo/(transport|rendezvous)/"
    r"|^(Application timeout caused pair closure|Connection closed by peer|Gloo connectFullMesh failed|Socket closed"
    r"|Timeout waiting for key|Wait timeout)"
)
NCCL = re.compile(r"remote process exited|system error|time[d ]?-?out|abort|network|connection", re.IGNORECASE)


def lost_peer(error: BaseException) -> str | None:
    """The reason in one line if `error` came from a collective whose peer is gone or out of reach; else None.

    gloo raises bare RuntimeErrors, from `backward` as well. They are recognised by their text, which mostly begins with
    a source line of gloo's transport.
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

    An orderly exit would wait for threads that may hang in a collective until its time-out, and so would the peers.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Stop:
    """A wish to stop (SIGTERM, SIGINT), agreed by all ranks so that they stop after the same iteration.

    Each `agreed()` starts an asynchronous reduction and returns the result of the one before, so that no rank waits.
    Before `begin()` nothing was trained, and a signal raises Preempted at once.

    The agreement needs all ranks. If one is gone or cut off, the others may hang in a collective, where Python
    does not call signal handlers. Therefore a thread, woken by the signal itself, calls `give_up` and ends the process
    if the ranks have not agreed within `patience` seconds.
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
        """Restore the signal handlers of before."""
        self._settled.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._bell.send(bytes(1))  # the watcher reads it and ends
        self._watcher.join()
        self._bell.close()
        self._woken.close()

    def join(self, group: dist.ProcessGroup | None) -> None:
        """Set the group of ranks that must agree, once they are connected."""
        self._group = group

    def begin(self) -> None:
        """Training begins: from now on a signal is kept until the ranks agree.

        Called before the first iteration, not after it: a rank that is slower than its peers by one iteration would
        otherwise still stop at once, when they have something to save.
        """
        self._training = True

    def agreed(self) -> int:
        """The signal that any rank had received one call ago, else 0; every rank must call it equally often."""
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
        """Wait for the reduction that the last `agreed()` started, so that no collective is under way."""
        if self._question is not None:
            self._question.wait()
            self._question = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            sys.stderr.write("stopped at once; the last checkpoint is kept\n")
            leave(CONTROL_C_TWICE)
        self.signal = number
        if not self._training and os.getpid() == self._owner:  # not a loader's worker, which inherits this handler
            early = Preempted(f"stopped by signal {number} before it began to train; run it again to go on")
            early.everywhere = False  # the signal may have reached this process only
            raise early

    def _watch(self) -> None:
        """After a signal, wait until the ranks have agreed; after `patience` seconds give up."""
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


os.register_at_fork(
    after_in_child=_forget_the_bell
)  # a signal sent to a loader's worker must not stop the training process
