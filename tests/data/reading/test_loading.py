"""Workers: what they hand over needs no /dev/shm, and one that dies is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from helpers.launching import environment

from savae_dist.data import Order, RawBatch, Reader, Request, Shards, loader, pack
from savae_dist.data.reading.loading import PREFETCH
from savae_dist.data.reading.shared import SharedMemory
from savae_dist.errors import ConfigError, WorkerLost


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("loading") / "s"
    pack(np.random.default_rng(0).integers(0, 256, (90, 4, 4)).astype(np.uint8), np.arange(90) % 3, folder)
    return Shards.open(folder)


class Telling(Reader):
    """A reader whose batches name the process that read them."""

    def __getitem__(self, request: Request) -> RawBatch:
        batch = super().__getitem__(request)
        batch.bad.append((str(os.getpid()), "", ""))
        return batch


def endless(shards: Shards, workers: int) -> Iterator[RawBatch]:
    requests = (Request(i * 8, 8, range(8)) for i in range(10**9))
    return loader(Telling(shards, Order(shards.counts, 0, 4, 2), 0), requests, workers, False)


def test_a_worker_that_is_killed_is_named(shards):
    batches = endless(shards, 2)
    worker = int(next(batches).bad[0][0])
    os.kill(worker, signal.SIGKILL)
    time.sleep(0.3)  # torch's handler of SIGCHLD would raise here, in the middle of whatever the trainer does
    with pytest.raises(WorkerLost, match=rf"{worker}, one of data.workers=2, was killed by SIGKILL.*memory") as caught:
        list(islice(batches, 4 * PREFETCH))
    assert (caught.value.code, caught.value.everywhere) == (75, False)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_that_reaches_workers_too_is_for_the_trainer(shards, number):
    batches = endless(shards, 1)
    worker = int(next(batches).bad[0][0])
    subprocess.run(["kill", f"-{number.value}", str(worker)], check=True)
    time.sleep(0.1)
    assert {int(next(batches).bad[0][0]) for _ in range(3 * PREFETCH)} == {worker}
    batches.close()


def test_a_batch_is_pickled_without_a_file_of_dev_shm(shards):
    batch = Reader(shards, Order(shards.counts, 0, 4, 2), 0)[Request(0, 8, range(8))]
    assert b"rebuild_storage" not in bytes(ForkingPickler.dumps(batch))


def test_batches_that_are_held_and_those_of_other_sizes(shards):
    """More than there are places for, and larger than the first: they come all the same, each of its own."""
    reader = Reader(shards, Order(shards.counts, 0, 4, 2), 0)
    requests = [Request(0, 8, range(8)), Request(8, 0, range(0)), *(Request(i * 20, 20, range(20)) for i in range(30))]
    expected = [reader[request] for request in requests]
    got = list(loader(reader, requests, 2, False))
    for a, b in zip(got, expected, strict=True):
        for name in ("x", "y", "id", "slot"):
            assert torch.equal(vars(a)[name], vars(b)[name])
        assert a.labelled == b.labelled
    got[3].x.zero_()  # a batch is the caller's own
    assert torch.equal(got[4].x, expected[4].x)


def test_memory_that_is_not_there_is_told():
    with pytest.raises(ConfigError, match=r"data.workers=64: no memory for 320 batches of 1,000,000,000,000,000 bytes"):
        SharedMemory(64, 5, 10**9, (1000, 1000), np.dtype(np.uint8))


NO_ROOM = """
import sys
from savae_dist.data import Order, Reader, Request, Shards, loader
from savae_dist.errors import ConfigError

shards = Shards.open(sys.argv[1])
requests = (Request(i * 4096, 4096, range(4096)) for i in range(20))  # 64 KiB each
try:
    print(sum(len(batch.x) for batch in loader(Reader(shards, Order(shards.counts, 0, 4, 2), 0), requests, 2, False)))
except ConfigError as error:
    print(error.code, error.everywhere, error)
"""


@pytest.mark.faults
@pytest.mark.parametrize("size", ["4k", "96k"])
def test_a_dev_shm_that_is_too_small(shards: Shards, size: str) -> None:
    """Room for the semaphores only: everything is read. Not even for these: refused at the start."""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm || exit 77; exec "$@"'
    command = ["unshare", "-m", "bash", "-c", script, "-", sys.executable, "-c", NO_ROOM, str(shards.home)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    if "unshare failed" in done.stderr or done.returncode == 77:
        pytest.skip("needs the right to mount")
    if size == "96k":
        assert done.stdout.split() == ["81920"], done.stderr
    else:
        assert done.stdout.startswith("2 False data.workers=2: processes cannot be started"), done.stderr
        assert "/dev/shm" in done.stdout
        assert "Traceback" not in done.stderr
