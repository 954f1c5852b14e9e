"""What is held out: apart from what is trained on, always the same, whole recordings, and never trained on."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.stores import web

from savae_dist.data import Proportions, Reader, Request, Shards, Store, hold_out, loader, pack, sequential
from savae_dist.data import training_order as order_of
from savae_dist.data.index import recordings as module
from savae_dist.data.packing.packer import Options, pack_source
from savae_dist.data.packing.sources import Item, Sample, Source
from savae_dist.errors import ConfigError, DataError

BATCH = 24


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images(folder: Path, n: int = 230, layout: str = "packed", first: int = 0) -> str:
    """`n` images that carry their own number, in three classes of unequal size and unlabelled ones."""
    x = np.zeros((n, 4, 4), np.uint8)
    x[:, 0, :2] = np.stack(np.divmod(first + np.arange(n), 256), 1)
    y = np.searchsorted([n // 2, n // 2 + n // 4, n // 2 + n // 4 + n // 8], np.arange(n), side="right")
    pack(x, np.where(y == 3, -1, y), folder, layout=layout, shard_size=40, block=16)
    return str(folder)


def windows_of(labels: dict[str, str | None], groups: dict[str, str], count: int, part: int) -> Iterator[Item]:
    name = list(labels)[part]
    group = {"group": groups[name]} if name in groups else {}
    for start in range(count + part):
        yield Sample(np.full(8, part, np.float32), labels[name], {"recording": name, "start": start, **group})


def recorded(
    folder: Path, labels: dict[str, str | None], count: int = 12, groups: dict[str, str] | None = None, **options: Any
) -> str:
    """Windows of these recordings, shuffled over several shards; each holds the number of its recording."""
    read = partial(windows_of, labels, groups or {}, count)
    source = Source(read, ("",) * len(labels), json.dumps([labels, groups, count]))
    pack_source(source, folder, Options(shard_size=50, block=16, **options))
    return str(folder)


TEN = {f"r{number}": "ab"[number % 2] for number in range(10)}


def numbers(x: np.ndarray) -> np.ndarray:
    """Those that the images carry."""
    return x[:, 0, 0].astype(int) * 256 + x[:, 0, 1]


def trained_on(shards: Shards, cache: str = "none", epochs: int = 3, **asked: Any) -> set[int]:
    """The ids of all samples of some epochs, read in batches by two ranks."""
    order = order_of(shards, Proportions(**asked), seed=1, lanes=4, window=2, batch_size=BATCH)
    reader = Reader(shards, order, shards.size, cache)  # type: ignore[arg-type]
    requests = (
        Request(start, BATCH, range(rank, BATCH, 2))
        for start in range(0, epochs * shards.size, BATCH)
        for rank in range(2)
    )
    return {one for raw in loader(reader, requests, 0, False) for one in raw.id.tolist()}


def evaluated(shards: Shards) -> list[int]:
    """The ids that an evaluation reads, in its order."""
    reader = Reader(shards, sequential(shards), shards.size)
    batches = (min(7, shards.size - start) for start in range(0, shards.size, 7))
    return [one for n, size in enumerate(batches) for one in reader[Request(7 * n, size, range(size))].id.tolist()]


@pytest.mark.parametrize(
    ("layout", "cache", "asked"),
    [
        ("packed", "none", {}),
        ("samples", "memory", {}),
        ("packed", "memory", {"labelled": 0.3}),
        ("samples", "none", {"balance": 1.0}),
        ("packed", "none", {"weights": (0.7, 0.3), "labelled": 1.0}),
    ],
)
def test_no_sample_stands_on_both_sides_and_none_is_lost(
    layout: str, cache: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    """Whatever the mixture: of one set or of two with weights, in blocks or one by one, from disk or memory."""
    sets = [images(tmp_path / "a", layout=layout), images(tmp_path / "b", 90, layout, first=230)]
    shards = Shards.open(sets if "weights" in asked else sets[0])
    train, held = hold_out(shards, 0.2)
    read, measured = trained_on(train, cache, 6, **asked), evaluated(held)
    everything = set(range(shards.size))
    if "weights" in asked:  # of the labelled only
        everything = set(np.flatnonzero(shards.all_labels() >= 0).tolist())
    assert not read & set(measured)
    assert len(measured) == len(set(measured)) == held.size
    assert everything <= read | set(measured)
    assert train.size + held.size == shards.size
    of_train = [label for label in shards.all_labels()[sorted(read)].tolist() if label >= 0]
    assert {label: of_train.count(label) for label in range(3)} == {
        label: train.label_counts[label] for label in range(3)
    }


def test_every_class_gives_its_share(tmp_path: Path) -> None:
    """The same in every call, whatever was read before; the whole share, to within one sample of each class."""
    shards = Shards.open(images(tmp_path / "set"))
    for share in (0.05, 0.1, 0.37, 0.45):
        train, held = hold_out(shards, share)
        assert held.size == int(shards.size * share)
        for label, count in shards.label_counts.items():
            assert abs(held.label_counts[label] - share * count) < 1
            assert train.label_counts[label] + held.label_counts[label] == count
        labels = shards.all_labels()[evaluated(held)]
        assert {k: n for k in held.label_counts if (n := int((labels == k).sum()))} == held.label_counts
        assert evaluated(hold_out(Shards.open(tmp_path / "set"), share)[1]) == evaluated(held)
    assert train.digest == held.digest == shards.digest


@pytest.mark.parametrize("options", [{}, {"layout": "samples"}, {"seed": 5}])
def test_windows_of_one_recording_stay_together(options: dict[str, Any], tmp_path: Path) -> None:
    """Of each class one of five recordings, the same ones however the windows were shuffled and stored."""
    shards = Shards.open(recorded(tmp_path / "set", TEN, **options))
    train, held = hold_out(shards, 0.2)
    reader = Reader(shards, sequential(shards), 0)
    recording = reader[Request(0, shards.size, range(shards.size))].x[:, 0].numpy().astype(int)
    read, measured = trained_on(train), evaluated(held)
    assert read | set(measured) == set(range(shards.size))
    assert not set(recording[sorted(read)]) & set(recording[measured])
    assert sorted(set(recording[measured].tolist())) == [5, 6]
    assert held.part is not None
    assert train.part is not None
    assert (train.part.recordings, held.part.recordings) == (8, 2)


def test_a_recording_in_two_sets_is_one(tmp_path: Path) -> None:
    sets = [recorded(tmp_path / "long", TEN), recorded(tmp_path / "short", TEN, count=5)]
    shards = Shards.open(sets)
    train, held = hold_out(shards, 0.2)
    reader = Reader(shards, sequential(shards), 0)
    recording = reader[Request(0, shards.size, range(shards.size))].x[:, 0].numpy().astype(int)
    measured = evaluated(held)
    assert set(recording[measured].tolist()) == {5, 6}
    assert not {5, 6} & set(recording[sorted(trained_on(train, weights=(0.5, 0.5)))].tolist())
    parts = shards.parts[np.searchsorted(shards.starts, measured, side="right") - 1]
    assert set(parts.tolist()) == {0, 1}


def test_no_class_loses_its_last(tmp_path: Path) -> None:
    """Class b has one recording, and so keeps it; of images, a class of one sample keeps that."""
    train, held = hold_out(Shards.open(recorded(tmp_path / "set", {**dict.fromkeys("xyz", "a"), "w": "b"})), 0.5)
    assert (held.label_counts.keys(), train.label_counts.keys()) == ({0}, {0, 1})
    pack(np.zeros((9, 4, 4), np.uint8), np.array([0, 1, 2, 3, 4, 5, 5, 6, 7]), tmp_path / "images")
    train, held = hold_out(Shards.open(tmp_path / "images"), 0.5)
    assert train.label_counts.keys() == set(range(8))
    assert held.label_counts == {5: 1}


def test_too_few_to_hold_one_out(tmp_path: Path) -> None:
    alone = Shards.open(recorded(tmp_path / "set", {"x": "a", "y": "b"}))
    with pytest.raises(ConfigError, match=r"data.hold_out=0.1 of 2 recordings in 2 classes holds none out"):
        hold_out(alone, 0.1)
    pack(np.zeros((9, 4, 4), np.uint8), np.arange(9), tmp_path / "images")
    with pytest.raises(ConfigError, match="of 9 samples in 9 classes"):
        hold_out(Shards.open(tmp_path / "images"), 0.5)


def test_a_bad_sample_is_not_replaced_by_one_that_is_held_out(tmp_path: Path) -> None:
    shards = Shards.open(images(tmp_path / "set"))
    train, held = hold_out(shards, 0.5)
    shard = tmp_path / "set" / shards.names[0]
    content, block = bytearray(shard.read_bytes()), shards.blocks(0)[0]
    start = int(block["offset"])
    for row in range(0, 16, 2):
        content[start + row * 16 + 15] ^= 1
    shard.write_bytes(content)
    read = trained_on(train)
    assert read.isdisjoint(set(np.flatnonzero(held.part.holds(0)) + shards.starts[0]))  # type: ignore[union-attr]
    assert read.isdisjoint(range(0, 16, 2))
    assert not read & set(evaluated(held))


def test_remote_shards_are_split_alike(tmp_path: Path) -> None:
    """And no window reaches for more shards than before, so that a cache of a few is enough."""
    kept = Shards.open(recorded(tmp_path / "set", TEN | {"u0": None, "u1": None}))
    train, held = hold_out(kept, 0.2)
    with web(tmp_path) as server:
        biggest = max(shard["bytes"] for shard in kept.index["shards"])
        store = Store(tmp_path / "remote", 3 * biggest)
        there, apart = hold_out(Shards.open(f"{server.url}/set", store), 0.2)
        for asked in ({}, {"labelled": 0.5}):
            assert trained_on(there, epochs=1, **asked) == trained_on(train, epochs=1, **asked)
        assert evaluated(apart) == evaluated(held)
        assert not trained_on(there) & set(evaluated(apart))
        before = len(server.gets())
        hold_out(Shards.open(f"{server.url}/set", store), 0.2)
        assert len(server.gets()) == before  # who belongs together is known by now


def foreign(folder: Path, texts: list[bytes]) -> Shards:
    folder.mkdir()
    x = io.BytesIO()
    np.save(x, np.zeros(8, np.float32))
    with tarfile.open(folder / "a.tar", "w") as tar:
        for number, text in enumerate(texts):
            for end, content in (("json", text), ("npy", x.getvalue()), ("cls", b"0")):
                info = tarfile.TarInfo(f"d/{number}.{end}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return Shards.open(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff", b'{"recording": 1.5}', b'{"recording": ["a"]}'])
def test_damaged_names_are_refused_where_others_are_whole(text: bytes, tmp_path: Path) -> None:
    """And do no harm where none are named."""
    whole = [b'{"recording": 7}'] * 6 + [b'{"recording": "\\ud800"}'] * 6
    with pytest.raises(DataError, match=r"a.tar: of 1 samples the json .* is damaged"):
        hold_out(foreign(tmp_path / "named", [*whole, text]), 0.5)
    found = module.recordings(foreign(tmp_path / "whole", [*whole, b'{"other": 1}'])).rows(np.arange(13))
    assert [len(set(found[:6].tolist())), len(set(found[:12].tolist())), found[12]] == [1, 2, module.NONE]
    if b"recording" not in text:
        assert not len(module.recordings(foreign(tmp_path / "none", [b"{}", text])))


def test_a_table_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    shards = Shards.open(recorded(tmp_path / "set", TEN))
    hold_out(shards, 0.2)
    path = next(path for path in (tmp_path / "cache").rglob("recordings/*.npy") if "group" not in path.name)
    for content in (b"", path.read_bytes()[:-8], path.read_bytes().replace(b"<u8", b"<i8")):
        path.write_bytes(content)
        with pytest.raises(DataError, match="delete it to read"):
            hold_out(shards, 0.2)


MACHINES = {f"r{number}": f"m{number // 2 % 4}" for number in range(16)}  # four machines of four recordings


def parted(shards: Shards, held: Shards) -> tuple[set[int], set[int]]:
    """The recordings on both sides: of what stays and of what is held out."""
    apart = set(evaluated(held))
    order = order_of(shards, Proportions(), seed=0, lanes=1, window=1, batch_size=1)
    sides: tuple[set[int], set[int]] = (set(), set())
    for raw in loader(
        Reader(shards, order, shards.size), [Request(i, 1, range(1)) for i in range(shards.size)], 0, False
    ):
        sides[int(raw.id[0]) in apart].add(int(raw.x.ravel()[0]))
    return sides


@pytest.mark.parametrize(
    ("by", "groups", "unit", "whole"),
    [
        ("auto", MACHINES, "groups", True),
        ("group", MACHINES, "groups", True),
        ("recording", MACHINES, "recordings", False),
        ("auto", {}, "recordings", False),
        # Where some name no machine, those stay together by recording.
        ("auto", {name: machine for name, machine in MACHINES.items() if machine != "m3"}, "groups", True),
    ],
)
def test_a_machine_is_held_out_as_a_whole(
    by: Any, groups: dict[str, str], unit: str, whole: bool, tmp_path: Path
) -> None:
    labels = {name: "ab"[int(name[1:]) % 2] for name in MACHINES}
    shards = Shards.open(recorded(tmp_path / "set", labels, groups=groups))
    kept, held = hold_out(shards, 0.25, by)
    assert held.part.unit == unit  # type: ignore[union-attr]
    stays, goes = parted(shards, held)
    assert not stays & goes  # recordings are never parted
    assert stays | goes == set(range(16))
    machines = [{MACHINES[f"r{one}"] for one in side if f"r{one}" in groups} for side in (stays, goes)]
    assert bool(machines[0] & machines[1]) == (not whole and bool(groups))
    assert set(held.label_counts) == {0, 1}
    assert kept.size + held.size == shards.size


def test_sets_without_groups_are_split_as_before_there_were_any(tmp_path: Path) -> None:
    shards = Shards.open(recorded(tmp_path / "set", TEN))
    assert evaluated(hold_out(shards, 0.2)[1]) == evaluated(hold_out(shards, 0.2, "recording")[1])


def test_names_that_are_not_there_cannot_be_asked_for(tmp_path: Path) -> None:
    shards = Shards.open(recorded(tmp_path / "set", TEN))
    with pytest.raises(ConfigError, match=r"data.hold_out_by=group: the shards name no groups; .* --group-by"):
        hold_out(shards, 0.2, "group")
    with pytest.raises(ConfigError, match=r"data.hold_out_by=recording: the shards name no recordings"):
        hold_out(Shards.open(images(tmp_path / "images")), 0.2, "recording")
    alone = Shards.open(recorded(tmp_path / "alone", TEN, groups=dict.fromkeys(TEN, "m1")))
    with pytest.raises(ConfigError, match=r"0.2 of 1 groups .* give data.hold_out_by=recording, or name data.val"):
        hold_out(alone, 0.2)
    assert hold_out(alone, 0.2, "recording")[1].size
