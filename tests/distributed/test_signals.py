"""Signals, agreement, and knowing a lost peer from a bug."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from helpers.launching import environment
from torch._dynamo.exc import InternalTorchDynamoError

from savae_dist.distributed import signals
from savae_dist.distributed.flight import Flight
from savae_dist.distributed.lost_peer import lost_peer
from savae_dist.distributed.signals import SIGNALS, Halt, Stop
from savae_dist.errors import DataError, Interrupted, OutageError, Preempted, told_by

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp"


def never(message: str, code: int) -> None:
    raise AssertionError(message, code)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_kept_until_all_meet(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Stop(never, patience=0.01) as stop:
        stop.begin()
        os.kill(os.getpid(), number)
        time.sleep(0.1)  # a single process waits for nobody: it may take its time
        with pytest.raises(Halt) as caught:
            stop.together(lambda: pytest.fail("there is no time for it"))
        assert (
            str(caught.value.told("vec step 3")) == f"stopped by signal {number} at vec step 3; run it again to go on"
        )
    assert signal.getsignal(number) == before
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize("moment", ["open", "end"])
def test_where_nothing_can_be_lost_a_signal_interrupts_at_once(moment: str) -> None:
    with Stop(never) as stop:
        stop.open()
        stop.begin()
        {"open": stop.open, "end": stop.end}[moment]()
        with pytest.raises(Interrupted, match="signal 15 before it"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_together_gives_the_result_or_halts_with_the_error() -> None:
    with Stop(never) as stop:
        stop.begin()
        assert stop.together(lambda: 3) == 3
        error = DataError("no such shard")

        def failing() -> None:
            raise error

        with pytest.raises(Halt) as caught:
            stop.together(failing)
        assert caught.value.told("vec step 3") is error


@pytest.mark.parametrize("here", [True, False], ids=["here", "at a peer"])
def test_peers_are_answered_after_a_signal_too(here: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint is still to come, in which a rank may be lost as well."""
    answered = []
    told: dict[str, str] = {}
    store = SimpleNamespace(check=lambda keys: keys[0] in told, get=told.__getitem__, set=told.__setitem__)
    monkeypatch.setattr(signals, "connect", lambda patience: store)
    monkeypatch.setattr(signals, "TICK_SECONDS", 0.01)
    flight = Flight()
    monkeypatch.setattr(flight, "answer", lambda store, peers: answered.append(stop.signal))
    with Stop(never, ranks=2, patience=9.0, flight=flight) as stop:
        stop.begin()
        stop.join(SimpleNamespace(ranks=2, launch="x", group=None))
        if here:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            told["savae_dist/stop/x"] = str(int(signal.SIGTERM))
        deadline = time.monotonic() + 5
        while answered.count(signal.SIGTERM) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert answered.count(signal.SIGTERM) >= 3
        assert told == {"savae_dist/stop/x": str(int(signal.SIGTERM))}


def test_code_that_catches_every_error_does_not_stop_a_signal() -> None:
    """In a wait that is tried again and again; and where Python itself drops the first Interrupted."""

    class Deaf:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def retried() -> None:
        Deaf()
        while True:
            try:
                time.sleep(9)
            except Exception as error:
                print(error)

    with warnings.catch_warnings(), Stop(never) as stop, pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", pytest.PytestUnraisableExceptionWarning)
        patch.setattr(signals, "UNWINDING_SECONDS", 0.3)
        patch.setattr(sys, "unraisablehook", lambda _: None)
        stop.begin()
        began = time.monotonic()
        with pytest.raises(Halt):
            stop.together(retried)
        assert time.monotonic() - began < 5


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop(never) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_to_a_forked_worker_is_none_to_its_parent() -> None:
    with Stop(never) as stop:
        stop.open()
        worker = os.fork()
        if not worker:
            os.kill(os.getpid(), signal.SIGTERM)  # raises nothing there
            os._exit(stop.signal)
        _, status = os.waitpid(worker, 0)
        assert os.waitstatus_to_exitcode(status) == signal.SIGTERM
        time.sleep(0.1)
        assert stop.signal == 0
        stop._woken.setblocking(False)
        with pytest.raises(BlockingIOError):
            stop._woken.recv(1)
        stop._woken.settimeout(0.1)


def test_a_lost_parent_is_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever started this process does not pass a signal on when it is killed."""
    monkeypatch.setattr(signals, "TICK_SECONDS", 0.05)
    with Stop(never, launcher=os.getppid()) as stop:
        time.sleep(0.2)
        assert stop.signal == 0
        monkeypatch.setattr(os, "getppid", lambda: 1)
        time.sleep(0.5)
        assert stop.signal == signal.SIGTERM


def wrapped(inner: BaseException, by: Exception, explicit: bool) -> BaseException:
    try:
        try:
            raise inner
        except BaseException as error:
            raise by from (error if explicit else None)
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("inner", "explicit", "code"),
    [
        (Interrupted("stopped by signal 15 before it began to train"), True, 75),
        (Interrupted("stopped by signal 15 before it began to train"), False, 75),
        (Preempted("stopped"), False, 75),
        (OutageError("no answer"), True, 75),
        (DataError("no such shard"), True, 65),
        (DataError("no such shard"), False, None),  # a mistake in what was done about it
        (KeyError("x"), True, None),
    ],
)
def test_what_a_library_wrapped_is_found(inner: BaseException, explicit: bool, code: int | None) -> None:
    """torch's compiler raises an InternalTorchDynamoError `from None`, in which only the context is left."""
    found = told_by(wrapped(inner, InternalTorchDynamoError("Interrupted: stopped", None), explicit))
    assert (found.code if found else None) == code


PROGRAM = """
import os, signal, sys, time
from savae_dist.distributed.signals import Halt, Stop
def give_up(message, code): print(message, code, flush=True)
"""
TWICE = """
with Stop(give_up) as stop:
    stop.begin()
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    print(stop.signal, flush=True)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PROGRAM + program]
    return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=60)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("signals", "code", "out"),
    [
        ("[signal.SIGTERM, signal.SIGTERM, signal.SIGINT]", 0, "15"),
        (
            "[signal.SIGINT, signal.SIGINT]",
            130,
            "stopped at once by a second Ctrl-C; run it again to go on 130",
        ),
    ],
)
def test_only_the_second_control_c_stops_at_once(signals: str, code: int, out: str) -> None:
    done = run(TWICE.replace("SIGNALS", signals))
    assert (done.returncode, done.stdout.strip()) == (code, out), done.stderr


HANGING = """
import threading
lock = threading.Lock()
lock.acquire()
with Stop(give_up, ranks=2, patience=0.5) as stop:
    stop.begin()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as in a collective: no handler of Python's is called
    MEANWHILE
"""


@pytest.mark.faults
def test_a_main_thread_that_hangs_is_ended_with_75() -> None:
    """Its signal handlers are not called there; the thread beside it is woken by the signal itself."""
    done = run(HANGING.replace("MEANWHILE", "time.sleep(30)"))
    assert done.returncode == 75, done.stderr
    assert "stopped by signal 15; the ranks could not agree on a step within 0.5 s" in done.stdout


@pytest.mark.faults
def test_a_save_on_which_the_ranks_agree_takes_its_time() -> None:
    done = run(HANGING.replace("MEANWHILE", "with stop.patient(): time.sleep(2)") + "print('saved')")
    assert (done.returncode, done.stdout) == (0, "saved\n"), done.stderr


@pytest.mark.faults
def test_a_run_that_ends_in_time_is_left_alone() -> None:
    done = run(HANGING.replace("MEANWHILE", "time.sleep(0.4)") + "print('saved')")
    assert (done.returncode, done.stdout) == (0, "saved\n"), done.stderr


@pytest.mark.parametrize(("limit", "patience"), [(None, 25.0), ("120", 115.0), ("3", 1.0)])
def test_patience_ends_before_the_launcher_s(
    limit: str | None, patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", raising=False)
    if limit is not None:
        monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", limit)
    assert Stop(never).patience == patience


LOST = [
    RuntimeError(f"{GLOO}/pair.cc:537] Read error [127.0.0.1]:127: Connection reset by peer. This is typically ..."),
    RuntimeError(f"{GLOO}/pair.cc:553] Connection closed by peer [10.0.0.1]:28565. This is typically caused ..."),
    RuntimeError(f"{GLOO}/unbound_buffer.cc:78] Timed out waiting 5000ms for recv operation to complete"),
    RuntimeError("Application timeout caused pair closure"),
    RuntimeError("Gloo connectFullMesh failed with [/gloo/gloo/transport/tcp/pair.cc:144] no error"),
    dist.DistStoreError("wait timeout after 5000ms, keys: /default_pg/0//2//cpu//0/0"),
    dist.DistNetworkError("The client socket has timed out after 4000ms while trying to connect to (10.0.0.1, 29978)."),
    dist.DistBackendError("NCCL error in: x.cpp:1, remote process exited or there was a network error, NCCL version 2"),
    dist.DistBackendError("[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)"),
]
BUGS = [
    RuntimeError("Trying to backward through the graph a second time"),
    RuntimeError(f"[enforce fail at {GLOO[1:]}/pair.cc:446] op.preamble.length <= op.nbytes. 8 vs 4"),
    RuntimeError("DataLoader worker (pid 7) exited unexpectedly: Connection reset by peer"),
    ConnectionResetError("Connection reset by peer"),
    torch.OutOfMemoryError("CUDA out of memory; gloo/gloo/transport/"),
    dist.DistBackendError("NCCL error in: x.cpp:1, invalid usage (run with NCCL_DEBUG=WARN for details)"),
    ValueError("Wait timeout"),
]


@pytest.mark.parametrize("error", LOST, ids=lambda e: str(e)[:40])
def test_a_lost_peer_is_known(error: RuntimeError) -> None:
    reason = lost_peer(error)
    assert reason
    assert ".cc" not in reason.partition("failed")[0]
    assert "typically" not in reason
    assert "\n" not in reason


@pytest.mark.parametrize("error", BUGS, ids=lambda e: str(e)[:40])
def test_a_bug_is_no_lost_peer(error: Exception) -> None:
    assert lost_peer(error) is None
