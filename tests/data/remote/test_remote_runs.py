"""Shards behind URLs: the same samples as from local ones, through a bounded cache, fetched before they are needed."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import SMALL, command, environment, status, weights
from helpers.stores import BUCKET, S3, Web, held, s3, web

from savae_dist.config.schema import DataConfig
from savae_dist.data import Order, RawBatch, Reader, Request, Shards, Store, evaluation_requests, loader, pack
from savae_dist.data.index.tables import INDEX
from savae_dist.data.remote import retry
from savae_dist.errors import ConfigError, DataError
from savae_dist.run import setup
from savae_dist.train import main

LANES, WINDOW, BATCH = 4, 1, 32


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 24 shards packed, as samples, and as samples without an index."""
    folder, rng = tmp_path_factory.mktemp("served"), np.random.default_rng(0)
    x, y = rng.integers(0, 256, (600, 12, 12)).astype(np.uint8), rng.integers(-1, 4, 600)
    for layout in ("packed", "samples"):
        pack(x, y, folder / layout, layout=layout, shard_size=25, block=8)
    (folder / "foreign").mkdir()
    for path in (folder / "samples").glob("*.tar"):
        shutil.copy(path, folder / "foreign")
    return folder


@pytest.fixture
def served(sets: Path) -> Iterator[Web]:
    with web(sets) as server:
        yield server


def batches(shards: Shards, workers: int = 0, steps: int = 40, cache="none", ranks: int = 1) -> list[RawBatch]:
    reader = Reader(shards, Order(shards.counts, 3, LANES, WINDOW), 0, cache)
    return list(loader(reader, requests(steps, ranks), workers, False))


def requests(steps: int, ranks: int = 1) -> Iterator[Request]:
    return (Request(step * BATCH, BATCH, range(0, BATCH, ranks)) for step in range(steps))


def same(a: list[RawBatch], b: list[RawBatch]) -> bool:
    pairs = list(zip(a, b, strict=True))
    return all(torch.equal(vars(p)[k], vars(q)[k]) for p, q in pairs for k in ("x", "y", "id", "slot"))


def let_go(store: Store) -> int:
    """Files of the cache that this process maps though they are gone."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split()[5] for line in lines if f"{store.folder}/shards" in line and line.endswith("(deleted)")})


@pytest.mark.parametrize("layout", ["packed", "samples"])
@pytest.mark.parametrize(("workers", "cache"), [(0, "none"), (2, "none"), (0, "memory")])
def test_remote_samples_are_the_local_ones(layout, workers, cache, served: Web, sets: Path, tmp_path: Path):
    local = Shards.open(sets / layout)
    remote = Shards.open(f"{served.url}/{layout}/", Store(tmp_path / "cache"))
    assert served.gets() == []  # neither its size nor its content is asked for before it is needed
    assert remote.digest == local.digest
    assert remote.describe() == local.describe()
    assert same(batches(remote, workers, cache=cache), batches(local))
    assert sorted(served.gets()) == sorted(local.names)  # two epochs, each shard fetched once


@pytest.mark.parametrize("fault", ["503", "reset", "truncated", "wrong", "slow"])
def test_faults_of_the_server_change_no_sample(fault: str, served: Web, sets: Path, tmp_path: Path):
    served.faults = [fault, "", "", fault, fault] * 3
    remote = Shards.open(f"{served.url}/packed", Store(tmp_path / "cache"))
    assert same(batches(remote), batches(Shards.open(sets / "packed")))
    assert served.faults == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_of_two_windows_is_enough(workers: int, served: Web, sets: Path, tmp_path: Path):
    local = Shards.open(sets / "packed")
    largest = max(shard["bytes"] for shard in local.index["shards"])
    store = Store(tmp_path / "cache", 2 * LANES * WINDOW * largest)
    remote = Shards.open(f"{served.url}/packed", store)
    remote.check_cache(2 * LANES * WINDOW)
    with pytest.raises(ConfigError, match=r"data\.cache_bytes=\d+ cannot hold the 9 remote shards"):
        remote.check_cache(2 * LANES * WINDOW + 1)
    reader = Reader(remote, Order(remote.counts, 3, LANES, WINDOW), 0)
    seen = []
    for batch in loader(reader, requests(60), workers, False):
        seen.append(batch)
        assert held(store.folder / "shards") <= store.cache.limit
        assert let_go(store) <= 2 * LANES  # what is mapped and gone takes up disk too
    assert same(seen, batches(local, steps=60))
    if not workers:  # whose batches under way reach beyond these small windows
        # 3.2 epochs: a shard that is read again soon after may still be held, and few are fetched in vain.
        assert 2 * len(local.names) < len(served.gets()) <= 4 * len(local.names)


def test_the_next_windows_are_fetched_while_this_one_is_read(served: Web, sets: Path, tmp_path: Path):
    remote = Shards.open(f"{served.url}/packed", Store(tmp_path / "cache"))
    order = Order(remote.counts, 3, LANES, WINDOW)
    steps = loader(Reader(remote, order, 0), requests(20), 0, False)
    next(steps)
    drawn = {remote.names[shard] for shard in order.locate(np.arange(BATCH))[0]}
    ahead = [remote.names[shard] for shard in order.shards_between(0, BATCH + order.reach)]
    until = time.monotonic() + 20
    while set(served.gets()) != set(ahead):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert drawn < set(ahead) < set(remote.names)
    assert served.gets()[:4] != sorted(served.gets()[:4])  # in the order of need, not of the names
    served.always = "503"  # what comes next is here already
    for _ in range(2):
        next(steps)


def test_a_rank_fetches_the_shards_of_its_lanes_only(served: Web, tmp_path: Path):
    remote = Shards.open(f"{served.url}/packed", Store(tmp_path / "cache"))
    order = Order(remote.counts, 3, LANES, WINDOW)
    steps = loader(Reader(remote, order, 0), requests(2, ranks=2), 0, False)
    list(steps)
    mine = {remote.names[shard] for shard in order.shards_between(0, 2 * BATCH + order.reach, 2)}
    assert set(served.gets()) <= mine < {remote.names[s] for s in order.shards_between(0, 2 * BATCH + order.reach)}


def test_validation_streams_through_the_cache(served: Web, sets: Path, tmp_path: Path):
    local = Shards.open(sets / "samples")
    store = Store(tmp_path / "cache", 4 * max(shard["bytes"] for shard in local.index["shards"]))
    remote = Shards.open(f"{served.url}/samples", store)
    found, expected = (
        list(loader(Reader(s, Order.sequential(s.counts), 0), evaluation_requests(s.size, 50), 0, False))
        for s in (remote, local)
    )
    assert same(found, expected)
    assert set(served.gets()) == set(local.names)
    assert len(served.gets()) <= 1.25 * len(local.names)  # no thrashing
    assert held(store.folder / "shards") <= store.cache.limit


def test_foreign_shards_are_read_once_for_their_index(served: Web, sets: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(retry, "REFUSED_LIMIT", 0.2)  # of the index that is looked for beside them
    pattern = "foreign/shards-{000000..000023}.tar"
    shutil.copytree(sets / "foreign", tmp_path / "foreign")
    local = Shards.open(str(tmp_path / pattern))
    store = Store(tmp_path / "cache", 3 * max(shard["bytes"] for shard in local.index["shards"]))
    remote = Shards.open(f"{served.url}/{pattern}", store)
    fetched = served.gets()
    assert set(fetched) == set(local.names)
    assert len(fetched) <= 1.25 * len(local.names)
    assert remote.digest == local.digest
    assert Shards.open(f"{served.url}/{pattern}", store).digest == local.digest
    assert served.gets() == fetched
    assert same(batches(remote), batches(local))
    assert [path for path in remote.home.iterdir() if path.is_symlink()] == []


def test_a_part_of_a_packed_folder_uses_its_index(served: Web, sets: Path, tmp_path: Path):
    pattern = "packed/shards-{000003..000015}.tar"
    local, remote = Shards.open(str(sets / pattern)), Shards.open(f"{served.url}/{pattern}", Store(tmp_path / "cache"))
    assert served.gets() == []
    assert same(batches(remote), batches(local))


def test_local_and_remote_shards_in_one_list(served: Web, sets: Path, tmp_path: Path):
    names = [sets / "packed" / f"shards-{number:06d}.tar" for number in range(4)]
    mixed = [*map(str, names[:2]), *(f"{served.url}/packed/{path.name}" for path in names[2:])]
    remote = Shards.open(mixed, Store(tmp_path / "cache"))
    assert same(batches(remote), batches(Shards.open(list(map(str, names)))))
    assert len(list((tmp_path / "cache" / "shards").glob("[!.]*"))) == 2  # local ones stay where they are


def test_a_changed_set_is_another_set(sets: Path, tmp_path: Path):
    shutil.copytree(sets / "packed", tmp_path / "served" / "packed")
    store = Store(tmp_path / "cache")
    with web(tmp_path / "served") as server:
        first = batches(Shards.open(f"{server.url}/packed", store))
        shutil.rmtree(tmp_path / "served" / "packed")
        x = np.random.default_rng(9).integers(0, 256, (600, 12, 12)).astype(np.uint8)
        pack(x, np.zeros(600, int), tmp_path / "served" / "packed", shard_size=25, block=8)
        assert same(batches(Shards.open(f"{server.url}/packed", store)), batches(Shards.open(server.folder / "packed")))
        assert not same(batches(Shards.open(f"{server.url}/packed", store)), first)


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "../samples/shards-000000.tar"), ("name", "/etc/hostname"), ("table", "../../escaped"), ("name", "..")],
)
def test_an_index_cannot_point_elsewhere(key: str, value: str, sets: Path, tmp_path: Path):
    shutil.copytree(sets / "packed", tmp_path / "served" / "packed")
    path = tmp_path / "served" / "packed" / INDEX
    index = json.loads(path.read_text())
    index["shards"][3][key] = value
    path.write_text(json.dumps(index))
    with web(tmp_path / "served") as server, pytest.raises(DataError, match="names what lies elsewhere"):
        Shards.open(f"{server.url}/packed", Store(tmp_path / "cache"))
    assert not list(tmp_path.glob("cache/**/*.npy"))


@pytest.mark.parametrize("what", ["idx", "blocks"])
@pytest.mark.parametrize("damage", ["flip", "cut", "huge"])
def test_tables_that_do_not_fit_the_index_are_refused(what: str, damage: str, sets: Path, tmp_path: Path):
    shutil.copytree(sets / "packed", tmp_path / "served" / "packed")
    path = tmp_path / "served" / "packed" / f"shards-000002.{what}.npy"
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-3] ^= 1
    elif damage == "cut":
        del content[-5:]
    else:
        content = content.replace(b"(25,)", b"(9999999999999,)").replace(b"(4,)", b"(9999999999999,)")
    path.write_bytes(content)
    with web(tmp_path / "served") as server, pytest.raises(DataError, match=r"shards-000002.*does not fit"):
        Shards.open(f"{server.url}/packed", Store(tmp_path / "cache"))


def test_a_shard_that_is_not_the_indexed_one_stops_the_run(sets: Path, tmp_path: Path):
    shutil.copytree(sets / "packed", tmp_path / "served" / "packed")
    path = tmp_path / "served" / "packed" / "shards-000002.tar"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with web(tmp_path / "served") as server:
        remote = Shards.open(f"{server.url}/packed", Store(tmp_path / "cache"))
        with pytest.raises(DataError, match=r"shards-000002\.tar has the crc32 .*upload it again"):
            batches(remote, 2)


def test_wrong_urls_end_the_start_in_one_line(served: Web, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(retry, "REFUSED_LIMIT", 0.2)
    arguments = [*SMALL, f"output={tmp_path / 'run'}", f"data.cache_dir={tmp_path / 'cache'}", "--check"]
    for url, code, words in [
        (f"{served.url}/nothing", 65, "is a folder made by tools/make_shards.py"),
        (f"{served.url}/foreign/none.tar", 65, "correct data.train"),
        ("nosuch://bucket/set", 2, "nosuch"),
        (f"{served.url}/{{a,b", 2, "unbalanced braces"),
    ]:
        assert main([f"data.train={url}", *arguments]) == code
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert words in error
    assert main([f"data.train={served.url}/packed", "data.cache_bytes=20000", *arguments]) == 2
    assert "cannot hold the 24 remote shards" in capsys.readouterr().err
    assert main([f"data.train={served.url}/packed", *arguments]) == 0


def test_a_node_needs_room_for_its_own_lanes_only(served: Web, sets: Path, tmp_path: Path, monkeypatch):
    sizes = sorted(shard["bytes"] for shard in json.loads((sets / "packed" / INDEX).read_text())["shards"])
    remote = Shards.open(f"{served.url}/packed", Store(tmp_path / "cache", sum(sizes[-4:])))
    data = DataConfig(shuffle_window=1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")

    def order(lanes: int) -> Order:
        return Order(remote.counts, 0, lanes, 1)

    setup.check_cache(data, remote, order(4), ranks=2)
    for lanes, ranks, here in ((4, 2, 2), (6, 2, 1), (3, 2, 1)):  # of three lanes both ranks read all
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
        with pytest.raises(ConfigError, match=r"data\.cache_bytes=\d+ cannot hold"):
            setup.check_cache(data, remote, order(lanes), ranks)
    setup.check_cache(replace(data, cache="memory"), remote, order(4), ranks=1)  # one shard after the other
    setup.check_cache(data, Shards.open(sets / "packed"), order(400), ranks=1)


@pytest.mark.parametrize(("key", "value"), [("outage_limit", -1.0), ("outage_limit", math.inf), ("cache_bytes", 0)])
def test_settings_that_cannot_work(key: str, value: float):
    with pytest.raises(ConfigError, match=f"data.{key}"):
        replace(DataConfig(), **{key: value}).check()


STEPS = ["system.vec_steps=400", "system.decoder_steps=60", "checkpoint_every=200", "data.shuffle_window=1"]
LANES_OF_RUN = 2


@pytest.mark.faults
@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 1)])
def test_a_store_that_is_gone_for_ten_seconds_changes_nothing(processes: int, workers: int, sets: Path, tmp_path: Path):
    """The S3 server is killed in mid-run and comes back: the run ends with the weights of one on local shards."""
    largest = max(shard["bytes"] for shard in json.loads((sets / "packed" / INDEX).read_text())["shards"])
    keys = [*SMALL, *STEPS, f"data.lanes={LANES_OF_RUN}", f"data.workers={workers}", "log_every=20"]
    local = [*keys, f"data.train={sets}/packed", f"data.validation={sets}/samples", f"output={tmp_path}/local"]
    subprocess.run(command(processes, *local), env=environment(), check=True, timeout=240, capture_output=True)
    with s3(sets, tmp_path / "s3.log") as server:
        remote = [*keys, f"data.train=s3://{BUCKET}/packed", f"data.validation=s3://{BUCKET}/samples"]
        remote += [f"output={tmp_path}/remote", f"data.cache_dir={tmp_path}/cache"]
        remote += [f"data.cache_bytes={2 * LANES_OF_RUN * largest}", "data.outage_limit=120"]
        with (tmp_path / "run.log").open("wb") as log:
            start = time.monotonic()
            run = subprocess.Popen(
                command(processes, *remote), env={**environment(), **server.environment}, stdout=log, stderr=log
            )
            try:
                interrupt(run, server)
                assert run.wait(240) == 0, (tmp_path / "run.log").read_text()
            finally:
                run.kill()
        gets, took = server.gets(), time.monotonic() - start
    said = (tmp_path / "run.log").read_text()
    assert max(map(float, re.findall(r"answers again after ([\d.]+) s", said))) > 5  # it did stand still
    assert status(tmp_path / "remote")["outcome"] == "done"
    a, b = weights(tmp_path / "remote"), weights(tmp_path / "local")
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[name], b[name]) for name in a)
    kept = sum(path.stat().st_size for path in (tmp_path / "cache" / "shards").glob("[!.]*"))
    assert kept <= 2 * LANES_OF_RUN * largest
    print(f"\n{processes} processes, {workers} workers: {gets} GETs of shards, {took:.1f} s, {kept} bytes kept")
    print("\n".join(line for line in said.splitlines() if "s3://" in line))


def interrupt(run: subprocess.Popen[bytes], server: S3) -> None:
    """Kill the server once the run is training, and start it again ten seconds later."""
    until = time.monotonic() + 120
    while server.gets() < 90:  # 24 for the class means before the first step, some 250 for the first phase
        assert run.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    server.kill()
    time.sleep(10)
    assert run.poll() is None
    server.start()
