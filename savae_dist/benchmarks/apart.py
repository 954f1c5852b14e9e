"""Work in a child process: if it hangs or crashes, this process goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def apart(work: Callable[..., Iterable[T]], *arguments: object) -> Iterator[Callable[[float], T]]:
    """A function that gives the next result of work(*arguments) within so many seconds.

    It raises TimeoutError after that time, and EOFError if the work is done or the process has ended; the error of the
    process stands on stderr. The process is killed at the end of the context.
    """
    fresh = get_context("spawn")  # CUDA cannot be used in a fork of a process that has used it
    ours, theirs = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_send, args=(theirs, work, arguments), daemon=True)
    process.start()
    theirs.close()

    def next_result(seconds: float) -> T:
        if not ours.poll(max(seconds, 0.0)):
            raise TimeoutError
        return ours.recv()

    try:
        yield next_result
    finally:
        process.kill()
        process.join()


def _send(there: Connection, work: Callable[..., Iterable[T]], arguments: tuple[object, ...]) -> None:
    for result in work(*arguments):
        there.send(result)
