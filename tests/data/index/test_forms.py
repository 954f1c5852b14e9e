"""Sets of pictures of many forms: what the index keeps of them, what a run makes of them, and what is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import SIZES, deep, mixed, mixed_tars, photo, saved
from helpers.tars import GOOD, tar

from savae_dist.config.schema import DataConfig
from savae_dist.data import Order, Reader, Request, Shards, index_set, loader, pack, survey
from savae_dist.data.formats.resize import read_picture
from savae_dist.data.index.pictures import Wanted, forms_of, told, with_pictures
from savae_dist.data.index.scan import FORM
from savae_dist.errors import ConfigError, DataError
from savae_dist.preprocess import Pictures, normalise
from savae_dist.sets import open_shards


def all_of(shards: Shards, workers: int = 0, rank: int = 0, ranks: int = 1, cache: str = "none") -> list[np.ndarray]:
    reader = Reader(shards, Order(shards.counts, 0, 2, 2), 0, cache)
    requests = [Request(start, 12, range(rank, 12, ranks)) for start in range(0, 120, 12)]
    return [one.x.numpy().copy() for one in loader(reader, requests, workers, pin=False)]


def test_the_index_keeps_the_form_of_each_sample(tmp_path: Path) -> None:
    shards = Shards.open(mixed_tars(tmp_path / "set"))
    forms = np.concatenate([forms_of(shards, shard) for shard in range(3)])
    expected = [(*SIZES[i % 5], 1 if i % 5 == 4 else 3, 8) for i in range(60)]
    assert forms.tolist() == expected
    told_sizes = {tuple(one[:2]): one[2] for one in shards.index["forms"]["sizes"]}
    assert told_sizes == dict.fromkeys(SIZES, 12)
    assert shards.index["forms"] | {"sizes": 0} == {
        **{"known": 60, "distinct": 5, "gray": 12, "deep": 0, "top": 0},
        "sizes": 0,
    }


def test_pictures_of_all_sizes_become_one_form(tmp_path: Path) -> None:
    shards = Shards.open(mixed_tars(tmp_path / "set"))
    for size, resize, mode in (((20, 20), "crop", "rgb"), ((16, 30), "pad", "gray"), ((50, 9), "stretch", "auto")):
        ours = with_pictures(shards, Wanted(size, resize, mode))
        pictures = Pictures(size, resize, "gray" if mode == "gray" else "rgb")
        assert ours.spec.pictures == pictures
        assert ours.spec.shape == pictures.channels_first
        batch = Reader(ours, Order.sequential(ours.counts), 0)[Request(0, 60, range(60))]
        assert not batch.bad
        files = [content for name, content in mixed(60) if name.endswith("jpg")]
        assert (batch.x.numpy() == np.stack([read_picture(one, pictures) for one in files])).all()


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_all_workers_and_ranks_read_the_same(tmp_path: Path, workers: int) -> None:
    shards = with_pictures(Shards.open(mixed_tars(tmp_path / "set")), Wanted((24, 24)))
    here = all_of(shards)
    assert all(np.array_equal(one, other) for one, other in zip(here, all_of(shards, workers), strict=True))
    halves = [all_of(shards, workers, rank, 2) for rank in range(2)]
    for whole, first, second in zip(here, *halves, strict=True):
        assert np.array_equal(whole[::2], first)
        assert np.array_equal(whole[1::2], second)
    if not workers:
        assert all(np.array_equal(one, other) for one, other in zip(here, all_of(shards, cache="memory"), strict=True))


def test_without_a_size_the_sizes_are_told_with_their_counts(tmp_path: Path) -> None:
    folder = str(mixed_tars(tmp_path / "set"))
    with pytest.raises(DataError) as caught:
        open_shards(DataConfig(train=folder))
    message = str(caught.value)
    assert message.startswith(f"{folder} holds pictures of 5 sizes: 24x24 12, 25x29 12, 30x41 12, 37x60 12, 48x33 12: ")
    assert message.endswith(
        "48 of 60 are not of the most common one, more than data.bad_budget=0.01; "
        "data.size=128 or data.size=[HEIGHT,WIDTH] brings them to one"
    )
    with pytest.raises(DataError, match=r"5 sizes: .* data\.size=128"):
        open_shards(DataConfig(train=folder, mode="gray"))
    assert open_shards(DataConfig(train=folder, size=16))[0].spec.shape == (3, 16, 16)
    lines = survey(Shards.open(folder))
    assert (
        "pictures    5 sizes: 24x24 12, 25x29 12, 30x41 12, 37x60 12, 48x33 12; 48 are bad: data.size=128 brings them "
        "to one; 12 of 60 are gray, of which three equal channels are made; data.mode decides"
    ) in lines


def test_a_few_of_another_size_are_told_and_bad_as_before(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar([*GOOD, ("odd.png", saved(photo(9, 9, 0, 1), "png"))]))
    shards, _ = open_shards(DataConfig(train=str(tmp_path), bad_budget=0.2))
    assert shards.spec.shape == (1, 6, 5)
    assert told(shards) == ["2 sizes: 6x5 12, 9x9 1; 1 are bad: data.size=128 brings them to one"]
    batch = Reader(shards, Order.sequential(shards.counts), 1)[Request(0, 13, range(13))]
    assert [reason for reason, _, _ in batch.bad] == ["shape"]


def test_packed_images_are_resized_too_and_others_are_refused(tmp_path: Path) -> None:
    x = np.stack([photo(12, 16, seed, 1) for seed in range(8)])
    pack(x, np.zeros(8, np.int64), tmp_path / "images")
    shards, _ = open_shards(DataConfig(train=str(tmp_path / "images"), size=[6, 8], mode="rgb"))
    batch = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, 8, range(8))]
    assert batch.x.shape == (8, 6, 8, 3)
    stored = Shards.open(tmp_path / "images")
    raw = Reader(stored, Order.sequential(stored.counts), 0)[Request(0, 8, range(8))].x.numpy()
    assert np.abs(batch.x.numpy()[..., 0] - raw.reshape(8, 6, 2, 8, 2).mean((2, 4))).max() <= 0.5
    pack(np.zeros((8, 64), np.float32), np.zeros(8, np.int64), tmp_path / "windows", rate=10.0)
    for key, value in {"size": 32, "mode": "gray", "range": "0,100"}.items():
        with pytest.raises(ConfigError, match=rf"^data\.{key}=.* has no effect on signals: it is for images"):
            open_shards(replace(DataConfig(train=str(tmp_path / "windows")), **{key: value}))


def twelve_bits(folder: Path) -> Path:
    folder.mkdir()
    pictures = [photo(8, 8, seed, 1).astype(np.uint16) * 16 for seed in range(6)]
    members = [(f"k{i}.{kind}", deep(x, kind)) for i, x in enumerate(pictures) for kind in ["png", "tiff"][i % 2 :][:1]]
    (folder / "a.tar").write_bytes(tar(members))
    return folder


def test_sixteen_bits_are_kept_with_a_range_and_told_without(tmp_path: Path) -> None:
    folder = twelve_bits(tmp_path / "deep")
    top = max(int(photo(8, 8, seed, 1).max()) * 16 for seed in range(6))
    plain, _ = open_shards(DataConfig(train=str(folder)))
    assert told(plain) == [
        f"6 of 6 have 16 bits, which use values up to {top:,} of 65,535: cut to 8; data.range=[0,{top}] keeps them"
    ]
    shards, _ = open_shards(DataConfig(train=str(folder), range="0,4095"))
    x = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, 6, range(6))].x
    expected = np.stack([photo(8, 8, seed, 1).astype(np.uint16) * 16 for seed in range(6)])
    assert x.numpy().dtype == np.uint16
    assert (x.numpy() == expected).all()
    assert np.allclose(normalise(x, shards.spec)[:, 0], expected / 4095, atol=1e-6)
    for workers in (0, 2):
        assert all(one.dtype == np.uint16 for one in all_of(shards, workers))
    for wrong in ("5,5", "0,70000", "[0]", "x"):
        with pytest.raises(ConfigError, match=r"data\.range"):
            open_shards(DataConfig(train=str(folder), range=wrong))


def test_sets_of_other_sizes_are_joined(tmp_path: Path) -> None:
    mixed_tars(tmp_path / "one", 30)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "a.tar").write_bytes(tar(mixed(1)))
    shards = Shards.open([tmp_path / "one", tmp_path / "two"])
    assert shards.index["forms"]["known"] == 31
    assert shards.index["forms"]["sizes"][0] == [30, 41, 7]
    assert with_pictures(shards, Wanted((8, 8))).spec.shape == (3, 8, 8)


def test_any_number_of_processes_makes_the_same_index(tmp_path: Path) -> None:
    mixed_tars(tmp_path / "set")
    made = []
    for processes in (1, 3):
        index_set([tmp_path / "set"], tmp_path / f"i{processes}", processes=processes)
        made.append({path.name: path.read_bytes() for path in (tmp_path / f"i{processes}").iterdir() if path.is_file()})
    assert made[0] == made[1]
    assert sum(name.endswith(".forms.npy") for name in made[0]) == 3


def damaged_forms(path: Path) -> Sequence[bytes]:
    good = path.read_bytes()
    table = np.load(path)
    table["height"][0] += 1
    changed = good[: -table.nbytes] + table.tobytes()
    return good[:-3], good + b"x", b"", changed, b"\x93NUMPY" + bytes(40)


def test_a_damaged_table_of_forms_is_one_line(tmp_path: Path) -> None:
    shards = Shards.open(mixed_tars(tmp_path / "set"))
    path = tmp_path / "set" / "s-0.forms.npy"
    for content in damaged_forms(path):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"s-0\.forms\.npy .*delete"):
            forms_of(shards, 0)


def test_an_index_without_forms_is_read_as_before(tmp_path: Path) -> None:
    """One that was made by an older version, of pictures of one size."""
    (tmp_path / "a.tar").write_bytes(tar([*GOOD]))
    digest = Shards.open(tmp_path).digest
    index = json.loads((tmp_path / "index.json").read_text())
    del index["forms"], index["shards"][0]["forms"]
    (tmp_path / "index.json").write_text(json.dumps(index))
    shards, _ = open_shards(DataConfig(train=str(tmp_path), size=4))
    assert shards.digest == digest
    assert told(shards) == ["crop to 4x4 gray, 8 bits"]
    assert forms_of(shards, 0).tolist() == [(0, 0, 0, 0)] * 12
    assert forms_of(shards, 0).dtype == FORM


def test_an_index_with_impossible_forms_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar([*GOOD]))
    Shards.open(tmp_path)
    good = json.loads((tmp_path / "index.json").read_text())
    for key, value in {"sizes": [], "distinct": 0, "known": -1, "top": 70000, "gray": "x"}.items():
        (tmp_path / "index.json").write_text(json.dumps({**good, "forms": {**good["forms"], key: value}}))
        with pytest.raises(DataError, match=rf"forms\.{key} "):
            Shards.open(tmp_path)
