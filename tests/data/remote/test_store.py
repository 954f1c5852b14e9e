"""Remote files: whole, verified, in a cache that stays within its bounds, whatever the server does meanwhile."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fsspec.registry import _registry
from helpers.launching import free_port
from helpers.stores import BUCKET, Web, held, s3, web

from savae_dist.config.urls import is_remote, shown, shown_value
from savae_dist.data.remote import retry, store
from savae_dist.data.remote.retry import Refused, Stopped
from savae_dist.data.remote.store import Store, name_of
from savae_dist.errors import ConfigError, DataError

SIZE = 100_000
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Web]:
    folder = tmp_path / "served"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.tar").write_bytes(np.random.default_rng(number).bytes(SIZE))
    with web(folder) as server:
        yield server


def crc(server: Web, number: int) -> int:
    return zlib.crc32((server.folder / f"{number}.tar").read_bytes())


def read(cache: Store, server: Web, number: int = 0, known: int | None = None) -> bytes:
    known = crc(server, number) if known is None else known
    with cache.open(f"{server.url}/{number}.tar", SIZE, known) as file:
        return file.read()


def right(server: Web, number: int = 0) -> bytes:
    return (server.folder / f"{number}.tar").read_bytes()


def kept(cache: Store) -> list[str]:
    """What lies in the cache, by the end of its names."""
    return sorted(path.name.partition("-")[2] for path in (cache.folder / "shards").glob("[!.]*"))


def check_one_line(message: object, *words: str) -> None:
    assert "\n" not in str(message)
    for word in words:
        assert word in str(message)


@contextmanager
def measured(cache: Store) -> Iterator[list[int]]:
    """The bytes in the cache's folder, looked at over and over."""
    used, done = [0], threading.Event()
    (cache.folder / "shards").mkdir(parents=True, exist_ok=True)

    def look() -> None:
        while not done.wait(0.001):
            used.append(held(cache.folder / "shards"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield used
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("fault", ["503", "429", "reset", "truncated", "short", "wrong", "slow"])
def test_a_file_comes_whole_through_every_fault(fault: str, ranges: bool, served: Web, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(store, "PIECE", 30_000)
    served.ranges, served.faults = ranges, [fault, "", fault]
    cache = Store(tmp_path / "cache", 10 * SIZE, 30)
    assert read(cache, served) == right(served)
    assert not served.faults
    asked = len(served.gets())
    assert read(cache, served) == right(served)
    assert len(served.gets()) == asked  # from the cache
    assert kept(cache) == ["0.tar"]


def test_a_broken_connection_costs_one_piece(served: Web, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(store, "PIECE", SIZE // 4)
    served.faults = ["", "", "reset", "", ""]
    assert read(Store(tmp_path / "cache", 10 * SIZE, 30), served) == right(served)
    assert len(served.gets()) == 5


@pytest.mark.parametrize("fault", ["wrong", "short"])
def test_content_that_stays_wrong_ends_in_one_line(fault: str, served: Web, tmp_path: Path):
    served.always = fault
    cache = Store(tmp_path / "cache", 10 * SIZE, 30)
    with pytest.raises(DataError) as error:
        read(cache, served)
    check_one_line(error.value, f"{served.url}/0.tar", "upload it again")
    assert len(served.gets()) == retry.WrongContent.TRIES
    assert kept(cache) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_an_answer_without_end_is_wrong_content(ranges: bool, served: Web, tmp_path: Path):
    served.always, served.ranges = "endless", ranges
    cache = Store(tmp_path / "cache", 10 * SIZE, 30)
    with pytest.raises(DataError) as error:
        read(cache, served)
    check_one_line(error.value, f"{served.url}/0.tar", f"{SIZE + 1} bytes in answer for", "upload it again")
    assert error.value.code == 65


def test_an_answer_that_comes_byte_by_byte_is_an_outage(served: Web, tmp_path: Path):
    """It ends after `outage_limit`, not after twice that, or when all has come."""
    served.always = "drip"
    cache, start = Store(tmp_path / "cache", 10 * SIZE, 1.0), time.monotonic()
    with pytest.raises(DataError) as error:
        read(cache, served)
    assert 1.0 <= time.monotonic() - start < 4
    check_one_line(error.value, f"{served.url}/0.tar: no answer for data.outage_limit=1 s", " bytes in 1.")
    assert error.value.code == 75


@pytest.mark.parametrize("status", ["404", "403", "401", "410"])
def test_what_is_refused_is_not_asked_for_long(status: str, served: Web, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(retry, "REFUSED_LIMIT", 0.3)
    served.always = status
    start = time.monotonic()
    with pytest.raises(DataError) as error:
        read(Store(tmp_path / "cache", 10 * SIZE, 100), served)
    assert time.monotonic() - start < 5
    check_one_line(error.value, f"{served.url}/0.tar", "data.train", "credentials")


def test_what_is_refused_at_first_may_be_there_a_moment_later(served: Web, tmp_path: Path):
    served.faults = ["404", "403"]
    assert read(Store(tmp_path / "cache", 10 * SIZE, 100), served) == right(served)


@pytest.mark.parametrize("before", ["404", "short"])
def test_an_outage_starts_the_patience_with_refusals_anew(before: str, served: Web, tmp_path: Path, monkeypatch):
    """As when a store stops and starts again: refused at the end and at the beginning, out of reach in between."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(retry, "REFUSED_LIMIT", 0.1)  # less than the outage lasts
    served.faults = [before, *["503"] * 4, "404"]
    assert read(Store(tmp_path / "cache", 10 * SIZE, 100), served) == right(served)
    assert len(served.gets()) == 7


def test_an_outage_within_the_limit_only_takes_time(served: Web, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(retry, "WORTH_TELLING", 0.1)
    served.always = "503"
    threading.Timer(1, lambda: vars(served).update(always="")).start()
    start = time.monotonic()
    assert read(Store(tmp_path / "cache", 10 * SIZE, 30), served) == right(served)
    assert time.monotonic() - start > 0.9
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "503" in said[0]
    assert "answers again after" in said[1]


def test_an_outage_beyond_the_limit_ends_in_one_line(tmp_path: Path):
    url = f"http://user:secret@127.0.0.1:{free_port()}/a.tar?signature=secret"
    cache, start = Store(tmp_path / "cache", 10 * SIZE, 0.7), time.monotonic()
    with pytest.raises(DataError) as error:
        cache.open(url, SIZE, None)
    assert 0.7 <= time.monotonic() - start < 5
    check_one_line(error.value, "http://127.0.0.1", "/a.tar: no answer for data.outage_limit=0.7 s", "ClientConnector")
    assert "secret" not in str(error.value)
    assert kept(cache) == []


def test_the_least_recently_used_goes_first(served: Web, tmp_path: Path):
    cache = Store(tmp_path / "cache", 3 * SIZE + 10, 30)
    with measured(cache) as used:
        for number in (0, 1, 2, 0, 3):
            read(cache, served, number)
        assert kept(cache) == ["0.tar", "2.tar", "3.tar"]
        for number in (4, 5, 1, 0, 2, 3, 3, 4):
            assert read(cache, served, number) == right(served, number)
    assert kept(cache) == ["2.tar", "3.tar", "4.tar"]
    assert 2 * SIZE < max(used) <= cache.cache.limit


def test_who_has_a_file_open_keeps_it(served: Web, tmp_path: Path):
    cache = Store(tmp_path / "cache", SIZE, 30)
    with cache.open(f"{served.url}/0.tar", SIZE, None) as file:
        assert read(cache, served, 1) == right(served, 1)
        assert kept(cache) == ["1.tar"]
        assert file.read() == right(served, 0)


def test_many_at_once_stay_within_the_bounds(served: Web, tmp_path: Path):
    """Twelve processes' worth of threads for six files, of which the cache can hold two."""
    served.slow = 0.01
    cache, wrong = Store(tmp_path / "cache", 2 * SIZE, 30), []

    def run(first: int) -> None:
        for number in range(first, first + 12):
            if read(cache, served, number % 6) != right(served, number % 6):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(first,)) for first in range(12)]
    with measured(cache) as used:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)
    assert SIZE < max(used) <= 2 * SIZE


def test_processes_share_one_download(served: Web, tmp_path: Path):
    """Also a process forked from one whose connections are open."""
    cache = Store(tmp_path / "cache", 10 * SIZE, 30)
    read(cache, served, 5)
    served.slow = 0.3

    def run() -> None:
        os._exit(0 if all(read(cache, served, number) == right(served, number) for number in range(2)) else 1)

    children = [FORK.Process(target=run) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    assert sorted(served.gets()) == ["0.tar", "1.tar", "5.tar"]


@pytest.mark.faults
def test_a_killed_download_leaves_nothing_that_looks_whole(served: Web, tmp_path: Path):
    cache = Store(tmp_path / "cache", 2 * SIZE, 30)
    read(cache, served, 1)
    served.slow = 30
    child = FORK.Process(target=read, args=(cache, served, 0))
    child.start()
    assert child.pid is not None
    until = time.monotonic() + 30
    while "0.tar.partial" not in kept(cache) or len(served.gets()) < 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert kept(cache) == ["0.tar.partial", "1.tar"]
    served.slow = 0
    with measured(cache) as used:
        assert read(cache, served, 2) == right(served, 2)  # its room is taken back, if something else needs it
        assert "2.tar" in kept(cache)
        assert read(cache, served, 0) == right(served, 0)
    assert max(used) <= 2 * SIZE
    assert "0.tar" in kept(cache)


@pytest.mark.faults
def test_a_killed_s3_server_is_waited_for(served: Web, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(retry, "WORTH_TELLING", 0.5)
    with s3(served.folder, tmp_path / "s3.log") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        cache = Store(tmp_path / "cache", 10 * SIZE, 60)
        with cache.open(f"s3://{BUCKET}/0.tar", SIZE, crc(served, 0)) as file:
            assert file.read() == right(served)
        server.kill()
        threading.Timer(2, server.start).start()
        with cache.open(f"s3://{BUCKET}/1.tar", SIZE, crc(served, 1)) as file:
            assert file.read() == right(served, 1)
        assert server.gets() == 2
        with pytest.raises(Refused, match=r"s3://bucket/none\.tar: FileNotFoundError"):
            cache.open(f"s3://{BUCKET}/none.tar", SIZE, None)
    said = capsys.readouterr().err.splitlines()
    assert ["trying for 60 s" in said[0], "answers again after" in said[1], len(said)] == [True, True, 2]


def test_a_download_that_nobody_waits_for_stops(served: Web, tmp_path: Path):
    served.always = "503"
    cache, stop = Store(tmp_path / "cache", 2 * SIZE, 30), threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Stopped):
        cache.fetch(f"{served.url}/0.tar", SIZE, None, stop)
    assert kept(cache) == []


def test_a_file_cut_short_on_disk_is_fetched_again(served: Web, tmp_path: Path):
    cache = Store(tmp_path / "cache", 2 * SIZE, 30)
    read(cache, served)
    os.truncate(cache.path(f"{served.url}/0.tar", SIZE, crc(served, 0)), 10)
    assert read(cache, served) == right(served)


def test_a_signature_is_no_part_of_what_is_kept(served: Web, tmp_path: Path):
    cache = Store(tmp_path / "cache", 2 * SIZE, 30)
    a, b = (cache.path(f"https://host/a.tar?X-Signature={key}", SIZE, 5) for key in "ab")
    assert a == b
    assert a != cache.path("https://host/a.tar", SIZE, 6)
    one, other = (cache.path(f"https://host/get.tar?file={key}", SIZE, None) for key in "ab")
    assert one != other


def test_a_full_disk_is_told_at_once(served: Web, tmp_path: Path, monkeypatch):
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    cache = Store(tmp_path / "cache", 2 * SIZE, 30)
    with pytest.raises(DataError) as error:
        read(cache, served)
    check_one_line(error.value, "No space left", "data.cache_dir")
    assert served.gets() == []
    assert kept(cache) == []


def test_what_cannot_work_is_named(served: Web, tmp_path: Path, monkeypatch):
    with pytest.raises(ConfigError, match=r"data\.cache_bytes=10 .*0\.tar of 100000 bytes"):
        read(Store(tmp_path / "cache", 10, 30), served)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)  # fsspec keeps the class once a test has used it
    with pytest.raises(ConfigError, match=r"pip install savae-dist\[remote\]"):
        Store(tmp_path / "cache").read("s3://bucket/index.json", 1000)
    with pytest.raises(ConfigError, match="nosuch"):
        Store(tmp_path / "cache").read("nosuch://bucket/index.json", 1000)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"data\.cache_dir"):
        Store(tmp_path / "file").open(f"{served.url}/0.tar", SIZE, None)


def test_urls():
    assert all(map(is_remote, ("s3://b/x.tar", "https://h/a-{0..9}.tar", "hf://datasets/a/b", "memory://x")))
    assert not any(
        map(is_remote, ("/data/x.tar", "x.tar", "file:///data/x.tar", "pipe:cat x", Path("s3://b/x"), "a:b"))
    )
    assert shown("https://user:word@host:1/a/b.tar?key=1#x") == "https://host:1/a/b.tar"
    assert shown("hf://datasets/o/n@main/a.tar") == "hf://datasets/o/n@main/a.tar"
    assert shown_value(["s3://u:p@b/x.tar?k=1", "/a?b", 3]) == ["s3://b/x.tar", "/a?b", 3]
    assert name_of("https://host/a/b.tar?x=/c.tar") == "b.tar"
