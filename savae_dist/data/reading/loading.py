"""The batches of a reader, read here or ahead by worker processes, behind torch's own DataLoader."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import DataLoader, Dataset

from savae_dist.data.order.order import Request
from savae_dist.data.processes import serve
from savae_dist.data.reading.reader import RawBatch, Reader
from savae_dist.data.reading.shared import Place, SharedMemory
from savae_dist.data.remote.prefetch import Ahead
from savae_dist.errors import ConfigError, DataError, WorkerLost

PREFETCH = 4  # batches that each worker reads ahead
Sent = RawBatch | Place | DataError


class _Guarded(Dataset[Sent]):
    """Hands a DataError over as a value: raised in a worker it would arrive wrapped in a traceback of many lines."""

    def __init__(self, reader: Reader, shared: SharedMemory | None) -> None:
        self.reader, self.shared = reader, shared

    def __getitem__(self, request: Request) -> Sent:
        try:
            batch = self.reader[request]
        except DataError as error:
            return error
        place = self.shared.put(*batch.arrays(), (batch.labelled, batch.bad)) if self.shared is not None else None
        return batch if place is None else place


def _serve(parent: int, _: int) -> None:
    serve(parent)


def loader(reader: Reader, requests: Iterable[Request], workers: int, pin: bool) -> Iterator[RawBatch]:
    """The batches of `requests`, in their order, read ahead by `workers` processes (0: in this one).

    Workers have one torch thread each (torch sees to it). They are forked where that is safe: they only touch numpy
    and files, start in milliseconds, share a set that is held in memory, and as children of this process end with it.
    A fork server would be the parent of its workers and die of a signal to the group.
    Remote shards are fetched ahead by threads of this process.
    WorkerLost where a worker has died.
    """
    requests = iter(requests)
    first = list(islice(requests, 1))
    requests = chain(first, requests)
    shared = None
    if workers and first and sys.platform == "linux":
        fetcher, rows = reader.fetcher, max(len(first[0].slots), 1)
        shared = SharedMemory(workers, PREFETCH + 1, rows, fetcher.shape, fetcher.dtype)
    with Ahead(reader.shards.fetch) as ahead:
        if reader.streams:
            requests = ahead.watched(requests, reader.order, reader.shards.keep, workers * PREFETCH)
        with closing(_batches(_Guarded(reader, shared), requests, workers)) as batches:
            for sent in batches:
                if isinstance(sent, DataError):
                    raise sent
                if isinstance(sent, Place):
                    assert shared is not None
                    sent = RawBatch.of(*shared.take(sent), *sent.rest)
                yield sent.together(pin) if pin else sent


def _batches(guarded: _Guarded, requests: Iterable[Request], workers: int) -> Generator[Sent]:
    loading = DataLoader(
        guarded,
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        prefetch_factor=PREFETCH if workers else None,
        multiprocessing_context=("fork" if sys.platform == "linux" else "spawn") if workers else None,
        worker_init_fn=partial(_serve, os.getpid()),
        generator=torch.Generator(),  # otherwise it takes a number from torch's global one
    )
    if not workers:
        yield from loading
        return
    before, children = signal.getsignal(signal.SIGCHLD), multiprocessing.active_children()
    try:
        # As many semaphores, each a page of /dev/shm, as torch makes: made halfway it would print a traceback.
        tried = [multiprocessing.Semaphore() for _ in range(3 * (workers + 1) + 5)]
        del tried
        batches = iter(loading)
    except OSError as error:
        raise _cannot_start(workers, error) from error
    # Torch's handler raises where a worker dies, whatever this process is doing, even in the middle of saving.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    started = [child for child in multiprocessing.active_children() if child not in children]
    try:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                raise _lost(started) or error from None
            yield batch
    finally:
        # In the end no worker is left, even one that waits for a store; torch would wait for some seconds for each.
        for worker in started:
            worker.kill()
            worker.join()


def _cannot_start(workers: int, error: OSError) -> ConfigError:
    refused = ConfigError(
        f"data.workers={workers}: processes cannot be started ({error}); make room in /dev/shm and memory "
        "(docker: --shm-size), or set data.workers=0"
    )
    refused.everywhere = False
    return refused


def _lost(workers: Sequence[BaseProcess]) -> WorkerLost | None:
    """The error for the first worker that has died, if any has."""
    dead = [worker for worker in workers if worker.exitcode is not None]
    if not dead:
        return None
    code = dead[0].exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    advice = {
        -signal.SIGKILL: "for want of memory, unless somebody did: lower data.workers, or give it more memory; ",
        -signal.SIGBUS: "/dev/shm or the memory is full, or a table of the index was cut short: see to it; ",
    }.get(code, "")
    which = f"worker process {dead[0].pid}, one of data.workers={len(workers)},"
    return WorkerLost(f"{which} {how}: {advice}run it again to go on")
