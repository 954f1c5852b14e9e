"""Signals, agreement, and knowing a lost peer from a bug."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist
from helpers.launching import environment

from savae_dist.distributed.signals import Stop, lost_peer
from savae_dist.errors import Preempted

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp"


def never(message: str) -> None:
    raise AssertionError(message)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_seen(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Stop(never, patience=0.01) as stop:
        stop.begin()
        os.kill(os.getpid(), number)  # in the first iteration: a peer may have ended it and have a step to save
        assert stop.agreed() == number
        time.sleep(0.1)  # a single process waits for nobody: it may take its time to save
        assert stop.agreed() == number
    assert signal.getsignal(number) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_before_the_training_a_signal_ends_the_start() -> None:
    with Stop(never), pytest.raises(Preempted, match="signal 15 before it began"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_to_a_forked_worker_is_none_to_its_parent() -> None:
    with Stop(never) as stop:
        stop.begin()
        worker = os.fork()
        if not worker:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(stop.agreed())
        _, status = os.waitpid(worker, 0)
        assert os.waitstatus_to_exitcode(status) == signal.SIGTERM
        time.sleep(0.1)
        assert stop.agreed() == 0
        with pytest.raises(BlockingIOError):
            stop._woken.recv(1, socket.MSG_DONTWAIT)


PROGRAM = """
import os, signal, sys, time
from savae_dist.distributed.signals import Stop
def give_up(message): print(message, flush=True)
"""
TWICE = """
with Stop(give_up) as stop:
    stop.begin()
    for number in SIGNALS:
        os.kill(os.getpid(), number)
    print(stop.agreed(), flush=True)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PROGRAM + program]
    return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=60)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("signals", "code", "out"),
    [
        ("[signal.SIGTERM, signal.SIGTERM, signal.SIGINT]", 0, "2"),
        ("[signal.SIGINT, signal.SIGINT]", 130, ""),
    ],
)
def test_only_the_second_control_c_stops_at_once(signals: str, code: int, out: str) -> None:
    done = run(TWICE.replace("SIGNALS", signals))
    assert (done.returncode, done.stdout.strip()) == (code, out), done.stderr
    assert ("stopped at once" in done.stderr) == (code == 130)


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
