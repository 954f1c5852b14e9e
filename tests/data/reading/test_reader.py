from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from savae_dist.data import (
    Order,
    Proportions,
    RawBatch,
    Reader,
    Request,
    Shards,
    evaluation_requests,
    loader,
    pack,
    training_order,
)
from savae_dist.data.order.permutation import PACK, permutation
from savae_dist.errors import ConfigError, DataError

SIZES = [1, 7, 97, 1001]


def make(folder: Path, n: int, *, labelled: float = 1.0, classes: int = 5, layout="packed", windows=False) -> Shards:
    """n samples that carry their own number, in several shards and blocks."""
    number = np.arange(n)
    x = np.zeros((n, 4), np.float32) if windows else np.zeros((n, 2, 2), np.uint8)
    x.reshape(n, 4)[:, 0], x.reshape(n, 4)[:, 1] = number % 251, number // 251
    y = np.where(np.random.default_rng(1).random(n) < labelled, number % classes, -1)
    pack(x, y, folder, layout=layout, shard_size=max(1, n // 3), block=16, class_names=[str(k) for k in range(classes)])
    return Shards.open(folder)


def numbers(batch: RawBatch) -> list[int]:
    flat = batch.x.reshape(len(batch.x), 4).long()
    return (flat[:, 0] + 251 * flat[:, 1]).tolist()


def first_batches(
    shards: Shards, batch: int, steps: int, rank: int = 0, ranks: int = 1, workers: int = 0, begin: int = 0, **asked
):
    order = training_order(shards, Proportions(**asked), seed=3, lanes=8, window=2, batch_size=batch)
    reader = Reader(shards, order, 0)
    requests = (Request(step * batch, batch, range(rank, batch, ranks)) for step in range(begin, steps))
    return list(loader(reader, requests, workers, False))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_each_sample_once_per_epoch_over_all_ranks(tmp_path, size, ranks):
    shards, batch = make(tmp_path / "s", size), 12
    steps = -(-2 * size // batch)  # two epochs, which batches straddle
    by_position: dict[int, int] = {}
    for rank in range(ranks):
        for step, raw in enumerate(first_batches(shards, batch, steps, rank, ranks)):
            positions = (step * batch + raw.slot).tolist()
            assert not by_position.keys() & set(positions)
            by_position |= dict(zip(positions, numbers(raw), strict=True))
    for epoch in range(2):
        seen = [by_position[position] for position in range(epoch * size, (epoch + 1) * size)]
        assert sorted(seen) == list(range(size))
    if size > 7:
        assert [by_position[i] for i in range(size)] != [by_position[size + i] for i in range(size)]


def check_parts(parts: list[list[RawBatch]], expected: list[RawBatch]) -> None:
    """What the ranks hold of each global batch is, together, that batch."""
    for step, whole in enumerate(expected):
        mine = [batches[step] for batches in parts]
        slots = torch.cat([part.slot for part in mine])
        assert sorted(slots.tolist()) == list(range(len(whole.x)))
        for name in ("x", "y", "id"):
            joined = torch.cat([vars(part)[name] for part in mine])
            assert torch.equal(joined[slots.argsort()], vars(whole)[name])
        assert {part.labelled for part in mine} == {whole.labelled}


@pytest.mark.parametrize("asked", [{}, {"labelled": 0.5, "balance": 1.0}], ids=["order", "mixture"])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_global_batches_are_the_same_for_all_ranks_and_workers(tmp_path, workers, ranks, asked):
    shards, batch, steps = make(tmp_path / "s", 97, labelled=0.4), 20, 12  # two epochs and a half
    expected = first_batches(shards, batch, steps, **asked)
    parts = [first_batches(shards, batch, steps, rank, ranks, workers, **asked) for rank in range(ranks)]
    check_parts(parts, expected)


@pytest.mark.parametrize("asked", [{}, {"labelled": 0.5, "balance": 1.0}], ids=["order", "mixture"])
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path, asked):
    shards, batch = make(tmp_path / "s", 97, labelled=0.4), 20
    expected = first_batches(shards, batch, 12, **asked)
    for begin, end, ranks in ((0, 4, 2), (4, 9, 4), (9, 12, 1)):  # the epoch ends inside the fifth and the tenth
        parts = [first_batches(shards, batch, end, rank, ranks, begin=begin, **asked) for rank in range(ranks)]
        check_parts(parts, expected[begin:end])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", SIZES)
def test_evaluation_reads_every_sample_once(tmp_path, size, workers):
    shards = make(tmp_path / "s", size)
    reader = Reader(shards, Order.sequential(shards.counts), 0)
    seen = []
    for rank in range(2):
        for batch in loader(reader, evaluation_requests(size, 10, rank, 2), workers, False):
            assert batch.id.tolist() == [batch_id for batch_id in batch.id.tolist() if batch_id % 2 == rank]
            seen += numbers(batch)
    assert sorted(seen) == list(range(size))


def test_values_labels_and_ids_belong_together(tmp_path):
    shards = make(tmp_path / "s", 200, classes=7)
    stored = permutation(200, 0, PACK)  # pack's shuffle: id i holds what was sample stored[i]
    for batch in first_batches(shards, 32, 10):
        assert batch.x.dtype == torch.uint8
        assert {batch.y.dtype, batch.id.dtype, batch.slot.dtype} == {torch.int64}
        assert numbers(batch) == stored[batch.id.numpy()].tolist()
        assert batch.y.tolist() == [number % 7 for number in numbers(batch)]
        assert batch.slot.tolist() == list(range(32))


@pytest.mark.parametrize("labelled", [0.0, 0.3, 1.0])
def test_labelled_count_is_of_the_whole_global_batch(tmp_path, labelled):
    shards = make(tmp_path / "s", 97, labelled=labelled)
    whole = first_batches(shards, 16, 20)
    part = first_batches(shards, 16, 20, rank=3, ranks=4)
    counts = [int((batch.y >= 0).sum()) for batch in whole]
    assert [batch.labelled for batch in whole] == counts
    assert [batch.labelled for batch in part] == counts
    assert (shards.all_labels() >= 0).sum() == sum(shards.label_counts.get(k, 0) for k in range(5))


@pytest.mark.parametrize("layout", ["packed", "samples"])
@pytest.mark.parametrize("windows", [False, True])
def test_memory_cache_gives_the_same(tmp_path, layout, windows):
    shards = make(tmp_path / "s", 97, layout=layout, windows=windows)
    order = Order(shards.counts, 0, 8, 2)
    mapped, held = Reader(shards, order, 0), Reader(shards, order, 0, cache="memory")
    for start in range(0, 300, 30):
        a, b = (reader[Request(start, 30, range(0, 30, 2))] for reader in (mapped, held))
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.id, b.id)
    b.x.zero_()  # a batch is the caller's own
    assert torch.equal(held[Request(270, 30, range(0, 30, 2))].x, a.x)


def test_reader_and_batch_survive_pickling(tmp_path):
    shards = make(tmp_path / "s", 97)
    reader = Reader(shards, Order(shards.counts, 0, 8, 2), 0)
    batch = reader[Request(0, 10, range(10))]
    for again in (pickle.loads(pickle.dumps(reader))[Request(0, 10, range(10))], pickle.loads(pickle.dumps(batch))):
        assert torch.equal(again.x, batch.x)
        assert torch.equal(again.y, batch.y)
        assert again.labelled == batch.labelled


def flip_row(shards: Shards, sample: int) -> tuple[str, int]:
    """Flip one byte of a stored sample; its shard and row."""
    shard = int(np.searchsorted(shards.starts, sample, side="right")) - 1
    row = sample - int(shards.starts[shard])
    table = shards.samples(shard)[row]
    with shards.path(shard).open("r+b") as file:
        file.seek(int(table["offset"]) + int(table["size"]) - 1)
        value = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([value ^ 0x10]))
    return shards.names[shard], row


@pytest.mark.parametrize("layout", ["packed", "samples"])
@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_flipped_byte_is_found_redrawn_and_reported(tmp_path, layout, cache, workers):
    shards, batch = make(tmp_path / "s", 97, layout=layout), 10
    victim = 40
    name, _ = flip_row(shards, victim)
    order = Order(shards.counts, 0, 4, 1)
    steps = -(-2 * 97 // batch)
    requests = [Request(step * batch, batch, range(batch)) for step in range(steps)]
    batches = list(loader(Reader(shards, order, 1, cache), requests, workers, False))
    positions = np.concatenate([step * batch + raw.slot.numpy() for step, raw in enumerate(batches)])
    shard_ids, rows = order.locate(positions)
    wanted = shards.starts[shard_ids] + rows
    got = np.concatenate([raw.id.numpy() for raw in batches])
    hit = wanted == victim
    assert hit.sum() >= 2
    assert (got[~hit] == wanted[~hit]).all()
    assert victim not in got
    stored = permutation(97, 0, PACK)
    assert [n for raw in batches for n in numbers(raw)] == stored[got].tolist()
    assert [y for raw in batches for y in raw.y.tolist()] == (stored[got] % 5).tolist()
    for position in positions[hit]:  # from the same window
        shard, row = order.window_of(int(position))
        assert got[position] in (shards.starts[shard] + row)
    bad = [entry[:2] for raw in batches for entry in raw.bad]
    assert bad == [("crc", name)] * hit.sum()


@pytest.mark.parametrize("layout", ["packed", "samples"])
def test_the_report_names_shard_and_key(tmp_path, layout):
    shards = make(tmp_path / "s", 97, layout=layout)
    name, row = flip_row(shards, 50)
    batch = Reader(shards, Order.sequential(shards.counts), 1)[Request(45, 10, range(10))]
    shard = name.removeprefix("shards-").removesuffix(".tar")
    key = f"{shard}-{row:06d}" if layout == "samples" else f"{shard}-{row // 16:06d}[{row % 16}]"
    assert batch.bad == [("crc", name, key)]
    assert batch.id.tolist() == [45, 46, 47, 48, 49, 51, 52, 53, 54]  # evaluation drops it
    assert batch.slot.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert len(batch.x) == len(batch.y) == 9


def poison(shards: Shards, sample: int, value: float) -> None:
    """Write a value into a stored window and make its tables agree: bad before it was indexed."""
    shard = int(np.searchsorted(shards.starts, sample, side="right")) - 1
    with shards.path(shard).open("r+b") as file:
        file.seek(int(shards.samples(shard)["offset"][sample - shards.starts[shard]]) + 4)
        file.write(np.float32(value).tobytes())
    for path in shards.home.iterdir():
        if path.suffix != ".tar":
            path.unlink()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_windows_that_are_not_finite_are_redrawn(tmp_path, value, cache):
    poison(make(tmp_path / "s", 97, windows=True), 33, value)
    shards = Shards.open(tmp_path / "s")
    reader = Reader(shards, Order(shards.counts, 0, 4, 2), 1, cache)
    batch = reader[Request(0, 97, range(97))]
    assert torch.isfinite(batch.x).all()
    assert 33 not in batch.id
    assert [reason for reason, _, _ in batch.bad] == ["finite"]
    assert np.isfinite(shards.with_normalise("dataset").spec.mean).all()


def test_labels_out_of_range_are_none(tmp_path):
    shards = make(tmp_path / "s", 97)
    narrow = shards.with_spec(type(shards.spec)("image", (1, 2, 2), 3, "unit"))  # labels 3 and 4 are none of these
    wide, few = (Reader(s, Order(s.counts, 0, 4, 9), 0)[Request(0, 97, range(97))] for s in (shards, narrow))
    outside = int((shards.all_labels() >= 3).sum())
    assert narrow.foreign == outside > 0 == shards.foreign
    assert few.y.tolist() == [label if label < 3 else -1 for label in wide.y.tolist()]
    assert torch.equal(few.x, wide.x)
    assert (len(few.bad), few.labelled) == (0, 97 - outside)


def test_redrawing_keeps_the_labelled_count(tmp_path):
    shards = make(tmp_path / "s", 97, labelled=0.3)
    for victim in range(0, 97, 4):
        flip_row(shards, victim)
    reader = Reader(shards, Order(shards.counts, 0, 2, 3), 97)
    for start in range(0, 970, 10):
        batch = reader[Request(start, 10, range(10))]
        assert batch.labelled == int((batch.y >= 0).sum())


def test_redrawing_does_not_depend_on_history_ranks_or_workers(tmp_path):
    shards = make(tmp_path / "s", 97)
    for victim in range(0, 97, 5):
        flip_row(shards, victim)
    order = Order(shards.counts, 0, 4, 3)
    reader = Reader(shards, order, 97)
    once = [reader[Request(start, 10, range(10))].id for start in range(0, 200, 10)]
    for start in reversed(range(0, 200, 10)):
        fresh = Reader(shards, order, 97)
        parts = [fresh[Request(start, 10, range(rank, 10, 2))] for rank in (1, 0)]
        ids = torch.empty(10, dtype=torch.int64)
        for part in parts:
            ids[part.slot] = part.id
        assert torch.equal(ids, once[start // 10])


@pytest.mark.parametrize("workers", [0, 1])
def test_over_the_budget_it_stops_with_the_counts(tmp_path, workers):
    shards = make(tmp_path / "s", 97)
    for victim in (3, 50, 90):
        flip_row(shards, victim)
    order = Order(shards.counts, 0, 4, 2)
    requests = [Request(0, 97, range(97))] * 3
    assert len(list(loader(Reader(shards, order, 3), requests, workers, False))) == 3  # the same three, met again
    with pytest.raises(DataError, match=r"3 \(crc: 3\).*bad_budget=2") as caught:
        list(loader(Reader(shards, order, 2), requests, workers, False))
    assert len(str(caught.value).splitlines()) == 1


def test_a_window_without_a_usable_sample_stops(tmp_path):
    shards = make(tmp_path / "s", 7)
    for victim in range(7):
        flip_row(shards, victim)
    with pytest.raises(DataError, match=r"no usable sample.*shuffle_window") as caught:
        Reader(shards, Order(shards.counts, 0, 1, 9), 100)[Request(0, 1, range(1))]
    assert len(str(caught.value).splitlines()) == 1


def test_a_shard_that_vanishes_while_reading(tmp_path):
    shards = make(tmp_path / "s", 97)
    reader = Reader(shards, Order(shards.counts, 0, 4, 2), 0)
    shards.path(1).unlink()
    with pytest.raises(DataError, match=r"shards-000001.tar cannot be read") as caught:
        list(loader(reader, [Request(0, 97, range(97))], 1, False))
    assert len(str(caught.value).splitlines()) == 1


def test_more_shards_than_may_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("savae_dist.data.reading.gather.most_open", lambda: 2)
    shards = make(tmp_path / "s", 97)
    reader = Reader(shards, Order(shards.counts, 0, 4, 4), 0)
    assert sorted(numbers(reader[Request(0, 97, range(97))])) == list(range(97))
    assert len(reader.fetcher._files) == 2


def test_no_slots_is_an_empty_batch(tmp_path):
    shards = make(tmp_path / "s", 7)
    batch = Reader(shards, Order(shards.counts, 0, 1, 9), 0)[Request(0, 3, range(0))]
    assert batch.x.shape == (0, 2, 2)
    assert batch.labelled == 3


def test_loader_leaves_the_global_generator_alone(tmp_path):
    shards = make(tmp_path / "s", 7)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first_batches(shards, 4, 3)
    first_batches(shards, 4, 3, workers=1)
    assert torch.equal(torch.get_rng_state(), before)


GROUP_SIGNAL = """
import os, signal, sys
from savae_dist.data import Order, Reader, Request, Shards, loader

class Whoami(Reader):
    def __getitem__(self, request):
        batch = super().__getitem__(request)
        batch.bad.append((os.getpid(), torch.get_num_threads()))
        return batch

import torch
received = []
signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
shards = Shards.open(sys.argv[1])
reader = Whoami(shards, Order(shards.counts, 0, 4, 2), 0)
batches = loader(reader, (Request(i, 8, range(8)) for i in range(10**9)), 1, False)
before = next(batches).bad
os.killpg(0, signal.SIGTERM)
after = [next(batches).bad for _ in range(50)]
batches.close()
try:
    os.kill(before[0][0], 0)
except ProcessLookupError:
    print(received == [signal.SIGTERM], after == [before] * 50, before[0][1])
"""


def test_workers_have_one_thread_and_survive_a_signal_to_the_group(tmp_path):
    make(tmp_path / "s", 97)
    command = [sys.executable, "-c", GROUP_SIGNAL, str(tmp_path / "s")]
    done = subprocess.run(command, start_new_session=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "True", "1"], done.stderr


def test_arguments_that_cannot_work(tmp_path):
    shards = make(tmp_path / "s", 97)
    with pytest.raises(ConfigError, match=r"data\.cache"):
        Reader(shards, Order(shards.counts, 0, 4, 2), 0, cache="device")
    with pytest.raises(ConfigError, match="order"):
        Reader(shards, Order([97, 1], 0, 4, 2), 0)
