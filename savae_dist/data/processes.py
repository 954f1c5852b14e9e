"""Jobs that leave files, in several processes: each does its share of them, and none outlives the one that asked."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from tqdm import tqdm

from savae_dist.errors import SaveError, UserError, WorkerLost

Work = Callable[[int], None]
PR_SET_PDEATHSIG = 1  # an option of Linux's prctl


def serve(parent: int) -> None:
    """Make this process one that only its parent ends: no signal to stop does, and it ends when `parent` does.

    A launcher's or a scheduler's signals reach every process, and Ctrl-C the whole group. They are for the parent,
    which finishes its step and saves; a worker that died first would take the step with it.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call above
        os._exit(0)


class _Bar(tqdm):
    monitor_interval = 0  # no thread beside a process that forks


def run_jobs(jobs: Sequence[int], work: Work, processes: int, title: str, after: Work | None = None) -> None:
    """Call work(job) for all jobs, and here after(job) for each that is done, in no fixed order.

    The result of a job is in the files that it leaves, so which process did it, and when, does not matter.
    """
    done = _in_turn(jobs, work) if min(processes, len(jobs)) <= 1 else _at_once(jobs, work, processes)
    # Closed here: an error holds on to the generator, and its children must not write beyond this call.
    ncols, nrows = shutil.get_terminal_size()  # 80 x 24 where a terminal claims to have none, as in containers
    with _Bar(total=len(jobs), desc=title, disable=None, ncols=ncols, nrows=nrows) as bar, closing(done):
        for job in done:
            bar.update()
            if after is not None:
                after(job)


def _in_turn(jobs: Sequence[int], work: Work) -> Generator[int, None, None]:
    for job in jobs:
        work(job)
        yield job


def _at_once(jobs: Sequence[int], work: Work, processes: int) -> Generator[int, None, None]:
    with _children(jobs, work, min(processes, len(jobs))) as children:
        while children:
            for connection in wait(list(children)):
                assert isinstance(connection, Connection)
                try:
                    done = connection.recv()
                except EOFError:
                    child = children.pop(connection)
                    child.join()
                    if child.exitcode == 1:
                        raise RuntimeError("a packing process failed; its traceback stands above") from None
                    if child.exitcode:
                        raise lost(child.pid, child.exitcode) from None
                    continue
                if isinstance(done, UserError):
                    raise done
                yield done


@contextmanager
def _children(jobs: Sequence[int], work: Work, count: int) -> Iterator[dict[Connection, ForkProcess]]:
    # Forked: a child starts in milliseconds, shares what was planned and keeps the locks of its parent.
    context = multiprocessing.get_context("fork")
    children: dict[Connection, ForkProcess] = {}
    try:
        for rank in range(count):
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=_child, args=(theirs, jobs[rank::count], work, os.getpid()), daemon=True)
            child.start()
            theirs.close()
            children[ours] = child
        yield children
    finally:
        for child in children.values():
            child.terminate()
        for child in children.values():
            child.join()


def lost(pid: int | None, exitcode: int) -> WorkerLost:
    """The error for a process that ended before its jobs were done."""
    ended = f"was killed by signal {-exitcode}" if exitcode < 0 else f"ended with {exitcode}"
    want = ", as the kernel does for want of memory" if exitcode == -signal.SIGKILL else ""
    return WorkerLost(f"packing process {pid} {ended}{want}; run the same command again, with fewer --processes")


def _child(connection: Connection, jobs: Sequence[int], work: Work, parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its children
    for job in jobs:
        if os.getppid() != parent:
            return
        try:
            work(job)
            connection.send(job)
        except UserError as error:
            connection.send(error)
            return
        except OSError as error:
            connection.send(SaveError(f"a packing process failed ({error}); run the same command again to go on"))
            return
