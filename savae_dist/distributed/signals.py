"""Ending a run from outside: signals, and the agreement of all ranks on when to stop."""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import NoReturn, Self, TypeVar

import torch
import torch.distributed as dist

from savae_dist.distributed.flight import Flight, connect
from savae_dist.distributed.lost_peer import lost_peer
from savae_dist.distributed.ranks import Peers
from savae_dist.errors import Interrupted, Preempted, UserError

T = TypeVar("T")
CONTROL_C_TWICE = 130
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
# torch's launcher kills a process this long after its SIGTERM; the last five seconds are kept for writing the status.
LAUNCHER_SECONDS, LAST_WORDS_SECONDS = 30.0, 5.0
TICK_SECONDS = 0.5  # between two looks at the launcher, and at what the peers say
UNWINDING_SECONDS = 5.0  # for which a process that leaves its wait is not interrupted again
JOINING_SECONDS = 2 * UNWINDING_SECONDS  # after which a process that has not joined its peers is ended where it is
FAILED = 1000  # the vote of a rank that could not do its part; above every signal's number


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


class Halt(Exception):
    """All ranks stop here, where what they have trained is whole: for a signal, or an error that one of them met."""

    def __init__(self, signal: int, error: UserError | None = None) -> None:
        super().__init__(signal, error)
        self.signal, self.error = signal, error

    def told(self, where: str) -> UserError:
        """The error that ends the run, known on all ranks."""
        return self.error or Preempted(f"stopped by signal {self.signal} at {where}; run it again to go on")


class Stop:
    """A wish to stop (SIGTERM, SIGINT, SIGHUP, SIGUSR1), agreed by all ranks so that they stop at the same place.

    While nothing can be lost, at the start and at the end, a signal raises Interrupted at once. From `begin()` on it is
    kept until all ranks meet in `together`, which interrupts what each of them waits for. A SIGHUP that is ignored, as
    under nohup, stays ignored.

    A thread is woken by the signal itself, since in a collective Python calls no handlers. It passes the wish on to the
    peers and, if the ranks have not agreed within `patience` seconds, calls `give_up` with a message and the exit code
    and ends the process: a rank may be gone or cut off.

    launcher: process id of the parent whose end counts as a SIGTERM; None: of none. flight: is told what this rank is
    at, and answers its peers from the thread that passes wishes on.
    """

    def __init__(
        self,
        give_up: Callable[[str, int], None],
        ranks: int = 1,
        patience: float | None = None,
        launcher: int | None = None,
        flight: Flight | None = None,
    ) -> None:
        limit = float(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", LAUNCHER_SECONDS))
        self.patience = max(limit - LAST_WORDS_SECONDS, 1.0) if patience is None else patience
        self.signal = 0  # the first that came, here or at a peer
        self._give_up, self._ranks, self._launcher = give_up, ranks, launcher
        self._flight = flight or Flight()
        self._interruptible, self._when, self._raised = False, "before it began to train", -UNWINDING_SECONDS
        self._interrupts = 0  # Ctrl-C, here
        self._peers: Peers | None = None
        self._wished, self._settled, self._over = threading.Event(), threading.Event(), threading.Event()
        self._listener: threading.Thread | None = None
        self._patient, self._delivering = True, threading.Lock()
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        self._woken, self._bell = socket.socketpair()
        self._woken.settimeout(TICK_SECONDS)
        self._bell.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._bell.fileno(), warn_on_full_buffer=False)
        ours = [one for one in SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in ours}
        self._watcher = threading.Thread(target=self._watch, name="stop", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the signal handlers of before."""
        with self._delivering:  # and nothing is delivered any more, which the handlers of before would meet
            self._over.set()
        self._wished.set()
        self._bell.send(bytes(1))  # the watcher reads it and ends
        self._watcher.join()
        if self._listener is not None:
            # Else Python may end while it is inside the store's C++ code, which aborts the process.
            self._listener.join(LAST_WORDS_SECONDS)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._bell.close()
        self._woken.close()

    def open(self) -> None:
        """From now on a signal raises Interrupted at once."""
        self._interruptible = True
        self._check()

    def join(self, peers: Peers) -> None:
        """The ranks that must agree, once they are connected."""
        self._peers = peers
        if peers.ranks > 1:
            self._listener = threading.Thread(target=self._listen, args=(peers,), name="peers' stop", daemon=True)
            self._listener.start()

    def begin(self) -> None:
        """Training begins: from now on a signal is kept until the ranks agree."""
        self._interruptible = False

    def end(self) -> None:
        """All is saved, and the ranks need each other no more: from now on a signal raises Interrupted at once."""
        self._when = "before its results were written"
        self.open()

    def together(self, work: Callable[[], T]) -> T:
        """The result of `work`, a rank's own part of something, once all ranks have theirs; all must call it.

        If one of them got a signal, or a UserError from its work, all stop what they are at and raise Halt. What is
        trained must be whole, and `work` must change nothing of it and hold no collective.
        """
        result: list[T] = []
        error: UserError | None = None
        self._flight.at("at its own part (reading, measuring or drawing)")
        try:
            try:
                self._interruptible = True
                self._check()
                result.append(work())
            except UserError as met:
                error = met
            finally:
                self._interruptible = False
        except Interrupted:
            self._interruptible = False  # here too: the signal may have come just before the line above
        self._flight.at("waiting for the others' part")
        vote = self._vote(FAILED if error is not None else self.signal)
        self._flight.at("computing, or waiting for sums over the ranks")
        if not vote:
            return result[0]
        if vote != FAILED:
            raise Halt(vote)
        assert self._peers is not None or error is not None
        raise Halt(self.signal, self._peers.first_error(error) if self._peers is not None else error)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """While something is written on which the ranks have agreed, their patience does not run out."""
        self._patient = False
        try:
            yield
        finally:
            self._patient = True

    def _vote(self, mine: int) -> int:
        """The largest vote of all ranks."""
        if self._peers is None or self._peers.group is None:
            return mine
        answer = torch.tensor([mine])
        dist.all_reduce(answer, dist.ReduceOp.MAX, group=self._peers.group)
        vote = int(answer)
        if vote:
            self._settled.set()
        return vote

    def _check(self) -> None:
        if self.signal:
            self._raised = time.monotonic()
            raise Interrupted(f"stopped by signal {self.signal} {self._when}; run it again to go on")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if os.getpid() != self._owner:  # this is a loader's worker, which inherits the handler
            return
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                self._watcher.join()  # it ends the process
        if self._interruptible and time.monotonic() - self._raised > UNWINDING_SECONDS:
            self._check()

    def _watch(self) -> None:
        """Look after signals, the ranks' agreement and the launcher, whatever the main thread is at."""
        interrupts, waited, last, since = 0, 0.0, time.monotonic(), math.inf
        while not self._over.is_set():
            number, now = self._heard(), time.monotonic()
            interrupts += number == signal.SIGINT
            if interrupts > 1:
                self._end("stopped at once by a second Ctrl-C; run it again to go on", CONTROL_C_TWICE)
            if number in SIGNALS:
                self.signal, since = self.signal or number, min(since, now)
                self._wished.set()
            waited, last = waited + (now - last) * (now > since and self._patient), now
            if self._ranks > 1 and waited > self.patience and not self._settled.is_set():
                self._end(
                    f"stopped by signal {self.signal}; the ranks could not agree on a step within {self.patience:g} s, "
                    "so the last checkpoint stands; run it again to go on",
                    Preempted.code,
                )
            if self._peers is None and self._ranks > 1 and now - since > JOINING_SECONDS:
                # While it waits for its peers no handler of Python's runs, and there is nothing to lose.
                self._end(f"stopped by signal {self.signal} {self._when}; run it again to go on", Preempted.code)
            orphan = self._launcher is not None and os.getppid() != self._launcher and not self.signal
            # Once more, if the first Interrupted was lost in a place that can raise none, such as a `__del__`.
            stuck = self._interruptible and now - max(self._raised, since) > UNWINDING_SECONDS
            if orphan or stuck:
                self._deliver()

    def _heard(self) -> int:
        """The number of the next signal; 0 if none came for a while."""
        try:
            return self._woken.recv(1)[0]
        except TimeoutError:
            return 0

    def _end(self, message: str, code: int) -> NoReturn:
        """End the process, after its last words; these may meet a disk that hangs."""
        words = threading.Thread(target=self._give_up, args=(message, code), daemon=True)
        words.start()
        words.join(LAST_WORDS_SECONDS)
        leave(code)

    def _listen(self, peers: Peers) -> None:
        """Tell the peers of a signal, or deliver theirs here. In a thread, since the store may hang or be gone."""
        try:
            store = connect(timedelta(hours=1))
            key = f"savae_dist/stop/{peers.launch}"
            while not self._wished.wait(TICK_SECONDS):
                if store.check([key]):
                    self.signal = self.signal or int(store.get(key))
                    self._deliver()
                    break
                self._flight.answer(store, peers)
            else:
                if self.signal:
                    store.set(key, str(self.signal))
            while not self._over.wait(TICK_SECONDS):  # ranks wait for each other in the last checkpoint too
                self._flight.answer(store, peers)
        except RuntimeError as error:
            if lost_peer(error) is None:  # with the store the launcher or rank 0 is gone, and others see to that
                raise

    def _deliver(self) -> None:
        """Send the main thread a signal, which also ends the system call that it waits in."""
        main = threading.main_thread().ident
        assert main is not None
        with self._delivering:
            if not self._over.is_set():
                signal.pthread_kill(main, signal.SIGTERM)


def _forget_the_bell() -> None:
    signal.set_wakeup_fd(-1)


# A worker inherits the descriptor: without this, a signal sent to the worker would stop the training process.
os.register_at_fork(after_in_child=_forget_the_bell)
