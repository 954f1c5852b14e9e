"""Mixtures: exact counts in every batch, every sample of a stream once per epoch, the same for all ranks."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from savae_dist.data import Mixture, Order, Proportions, Reader, Request, Shards, pack, training_order
from savae_dist.data.order.mixture import Group, Stream
from savae_dist.errors import ConfigError, DataError

NUMBERS = {0: 60, 1: 30, 2: 5, -1: 105}  # label -> samples; 200 in all


def make(folder: Path, numbers: dict[int, int], first: int = 0) -> Shards:
    """Samples that carry their own number, in shards of 40."""
    y = np.repeat(list(numbers), list(numbers.values()))
    x = np.zeros((len(y), 2, 2), np.uint8)
    x[:, 0, 0] = first + np.arange(len(y))
    pack(x, y, folder, shard_size=40, block=16, class_names=["a", "b", "c"])
    return Shards.open(folder)


def order_of(shards: Shards, *, batch_size: int = 32, seed: int = 3, **asked) -> Order | Mixture:
    return training_order(shards, Proportions(**asked), seed=seed, lanes=8, window=2, batch_size=batch_size)


def labels_drawn(shards: Shards, order: Order | Mixture, first: int, last: int) -> np.ndarray:
    return shards.labels(*order.locate(np.arange(first, last)))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Shards:
    return make(tmp_path_factory.mktemp("mixture") / "set", NUMBERS)


def test_without_proportions_it_is_the_plain_order(shards):
    assert isinstance(order_of(shards), Order)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("batch", [1, 32, 100])
def test_every_batch_has_its_labelled_share(shards, fraction, batch):
    order = order_of(shards, batch_size=batch, labelled=fraction)
    drawn = labels_drawn(shards, order, 0, 50 * batch).reshape(50, batch)
    labelled = (drawn >= 0).sum(1)
    exact = 1 - Fraction(str(fraction)).limit_denominator(1000)
    ends = [int(batch * (b + 1) * exact) for b in range(50)]  # of the unlabelled: floor((s + 1) f)
    assert (batch - labelled).tolist() == np.diff([0, *ends]).tolist()


def test_classes_are_balanced_exactly(shards):
    drawn = labels_drawn(shards, order_of(shards, batch_size=30, labelled=1.0, balance=1.0), 0, 3000)
    for batch in drawn.reshape(100, 30):
        assert Counter(batch.tolist()) == {0: 10, 1: 10, 2: 10}


def test_balance_between_takes_the_power_of_the_count(shards):
    drawn = Counter(labels_drawn(shards, order_of(shards, labelled=1.0, balance=0.5), 0, 32_000).tolist())
    total = sum(np.sqrt(NUMBERS[label]) for label in range(3))
    for label in range(3):
        assert abs(drawn[label] - 32_000 * np.sqrt(NUMBERS[label]) / total) <= 2


def test_balance_leaves_the_labelled_share_as_it_is(shards):
    drawn = Counter(labels_drawn(shards, order_of(shards, balance=1.0, batch_size=40), 0, 200 * 20).tolist())
    assert drawn[-1] == 105 * 20
    assert all(abs(drawn[label] - 95 * 20 / 3) <= 2 for label in range(3))


def test_each_sample_of_a_stream_once_per_epoch_of_it(shards):
    order = order_of(shards, labelled=0.5)
    positions = np.arange(32 * 27)  # whole batches; four epochs of the unlabelled
    rows = np.stack(order.locate(positions), 1)
    labels = shards.labels(rows[:, 0], rows[:, 1])
    stream, draws = order.deal(positions)
    for k, size in ((0, 105), (1, 95)):
        mine = rows[stream == k][np.argsort(draws[stream == k])]
        assert sorted(draws[stream == k].tolist()) == list(range(len(mine)))
        assert set((labels[stream == k] >= 0).tolist()) == {k == 1}
        for epoch in range(len(mine) // size):
            assert len({tuple(row) for row in mine[epoch * size : (epoch + 1) * size].tolist()}) == size


def test_random_access_equals_sequential(shards):
    whole = np.stack(order_of(shards, labelled=0.3, balance=0.7).locate(np.arange(2000)), 1)
    jumping, rng = order_of(shards, labelled=0.3, balance=0.7), np.random.default_rng(0)
    for _ in range(20):
        positions = rng.integers(0, 2000, 40)
        assert (np.stack(jumping.locate(positions), 1) == whole[positions]).all()


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_rank_sees_every_stream(shards, ranks):
    # Dealt in turn, a half would fall on every other slot, and so always on the same ranks.
    order = order_of(shards, batch_size=32, labelled=0.5)
    drawn = labels_drawn(shards, order, 0, 320) >= 0
    shares = [drawn[rank::ranks].mean() for rank in range(ranks)]
    assert all(0.3 < share < 0.7 for share in shares)


@pytest.mark.parametrize("asked", [{"labelled": 0.3}, {"labelled": 1.0}, {"balance": 1.0}], ids=str)
def test_the_shards_ahead_are_those_that_are_drawn_from(shards, asked):
    order = order_of(shards, batch_size=16, **asked)
    for first, last in ((0, 16), (16, 80), (10, 11), (300, 700)):
        drawn = set(order.locate(np.arange(first, last))[0].tolist())
        ahead = order.shards_between(first, last)
        assert drawn <= set(ahead)
        assert len(ahead) == len(set(ahead))
    far = order.shards_between(0, 100 * order.reach)
    assert set(far) == {shard for shard, count in enumerate(order.counts.tolist()) if count}


def test_a_share_smaller_than_any_float_step_is_kept():
    rare = Fraction(1, 10_000_000)
    streams = [Stream(Group(name, [9]), Order([9], 0, 1, 1), lambda _: np.zeros(9)) for name in "ab"]
    mixture = Mixture(streams, [rare, 1 - rare], 1, 0)
    assert mixture.deal([10_000_000 - 1, 10**11 - 1, 10**11]) == (
        pytest.approx([0, 0, 1]),
        pytest.approx([0, 9999, 10**11 - 10_000]),
    )


def test_a_bad_sample_is_replaced_from_its_own_stream(tmp_path):
    shards = make(tmp_path / "set", NUMBERS)
    order = order_of(shards, labelled=0.5)
    request = Request(0, 32, range(32))
    before = Reader(shards, order, 10)[request]
    slot = int((before.y >= 0).nonzero()[0])
    shard, row = (int(one[0]) for one in order.locate([slot]))
    offset = int(shards.samples(shard)["offset"][row])
    data = bytearray(shards.path(shard).read_bytes())
    data[offset] ^= 255
    shards.path(shard).write_bytes(data)
    after = Reader(Shards.open(tmp_path / "set"), order_of(shards, labelled=0.5), 10)[request]
    assert [reason for reason, _, _ in after.bad] == ["crc"]
    changed = (after.id != before.id).nonzero().flatten().tolist()
    assert changed == [slot]
    assert after.y[slot] >= 0
    assert after.labelled == before.labelled == 16


@pytest.mark.parametrize(
    ("asked", "numbers", "names"),
    [
        ({"labelled": 0.5}, {-1: 10}, "labelled samples"),
        ({"labelled": 0.5}, {0: 10}, "unlabelled samples"),
        ({"labelled": 0.5, "balance": 1.0}, {-1: 10}, "labelled samples"),
    ],
)
def test_a_share_of_nothing_is_refused(tmp_path, asked, numbers, names):
    with pytest.raises(ConfigError, match=f"data.labelled_fraction=0.5 asks for {names}") as caught:
        order_of(make(tmp_path / "set", numbers), **asked)
    assert len(str(caught.value).splitlines()) == 1


def test_an_order_of_other_shards_is_refused(shards):
    with pytest.raises((ConfigError, DataError), match="other shards"):
        Reader(shards, Order([200], 0, 8, 2), 0)


# Several sets.


def test_sets_are_joined_as_they_are_and_weighted(tmp_path):
    a, b = make(tmp_path / "a", {0: 50, -1: 10}), make(tmp_path / "b", {1: 150}, first=60)
    both = Shards.open([str(tmp_path / "a"), str(tmp_path / "b")])
    assert (both.size, both.spec.classes, both.index["class_names"]) == (210, 3, ["a", "b", "c"])
    assert both.all_labels().tolist() == [*a.all_labels().tolist(), *b.all_labels().tolist()]
    values = Reader(both, Order.sequential(both.counts), 0)[Request(0, 210, range(210))].x[:, 0, 0]
    parts = (Reader(one, Order.sequential(one.counts), 0)[Request(0, one.size, range(one.size))].x for one in (a, b))
    assert values.tolist() == [x for part in parts for x in part[:, 0, 0].tolist()]
    assert sorted(values.tolist()) == list(range(210))
    shard, _ = order_of(both, batch_size=40, weights=(3.0, 1.0)).locate(np.arange(400))
    assert both.parts[shard].reshape(10, 40).sum(1).tolist() == [10] * 10
    only = order_of(both, weights=(0.0, 1.0))
    assert set(both.parts[only.locate(np.arange(320))[0]].tolist()) == {1}


def test_statistics_of_joined_sets_are_those_of_all_windows(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 2, (30, 8)).astype(np.float32), rng.normal(-1, 5, (50, 8)).astype(np.float32)
    for name, x in (("a", a), ("b", b)):
        pack(x, np.zeros(len(x), int), tmp_path / name, shard_size=20)
    joined = Shards.open([tmp_path / "a", tmp_path / "b"]).with_normalise("dataset").spec
    everything = np.concatenate([a, b]).astype(np.float64)
    np.testing.assert_allclose([joined.mean[0], joined.std[0]], [everything.mean(), everything.std()], rtol=1e-12)


def test_sets_that_do_not_fit_together_are_refused(tmp_path):
    make(tmp_path / "a", {0: 5})
    pack(np.zeros((5, 3, 3), np.uint8), np.zeros(5, int), tmp_path / "b", class_names=["a", "b", "c"])
    pack(np.zeros((5, 2, 2), np.uint8), np.zeros(5, int), tmp_path / "c", class_names=["x", "y", "z"])
    for other, names in (("b", "shape"), ("c", "name their classes differently")):
        with pytest.raises(DataError, match=names) as caught:
            Shards.open([tmp_path / "a", tmp_path / other])
        assert len(str(caught.value).splitlines()) == 1
