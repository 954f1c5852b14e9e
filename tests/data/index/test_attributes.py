"""Several values a sample: read from JSON, texts and arrays, and served by sample."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.stores import web
from helpers.tars import X, tar

from savae_dist.config.members import attribute_rule
from savae_dist.data import AttributeTable, Order, Reader, Request, Shards, Store, attributes_of, index_set, survey
from savae_dist.data.formats.npy import encode_image, encode_npy
from savae_dist.data.index.choice import Choice
from savae_dist.data.index.losses import check_losses
from savae_dist.errors import ConfigError, DataError
from savae_dist.training.batches import BatchBuilder, BatchSplit

NAN = np.nan


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path: Path, ending: str, contents: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    members = [(f"k{i}.png", encode_image(X[i % 12])) for i in range(len(contents))]
    path.write_bytes(tar([*members, *((f"k{i}.{ending}", content) for i, content in enumerate(contents))]))
    return path


def jsons(*values: object) -> list[bytes]:
    return [json.dumps(value).encode() for value in values]


# The rule, the ending and the contents of the members, the names and the values that come of them.
READ: dict[str, tuple[str, str, list[bytes], list[str], list[list[float]]]] = {
    "an object": ("json:a", "json", jsons({"a": {"smile": 1, "male": False}}, {"a": {"male": 1, "age": 2.5}}, {}),
                  ["age", "male", "smile"], [[NAN, 0, 1], [2.5, 1, NAN], [NAN] * 3]),
    "several hot": ("json:tags", "json", jsons({"tags": [1, 0, 1]}, {"tags": [0, 0, 0]}), ["0", "1", "2"],
                    [[1, 0, 1], [0, 0, 0]]),
    "several fields": ("json:age,pose.yaw", "json", jsons({"age": 3, "pose": {"yaw": 0.5}}, {"age": 4, "name": "x"}),
                       ["age", "pose.yaw"], [[3, 0.5], [4, NAN]]),
    "all fields": ("meta.json:.", "meta.json", jsons({"b": 3, "a": 1}, {"a": None}), ["a", "b"], [[1, 3], [NAN, NAN]]),
    "two objects": ("json:p,q", "json", jsons({"p": {"x": 1}, "q": [2, 3]}), ["p.x", "q.0", "q.1"], [[1, 2, 3]]),
    "a text": ("attr.txt", "attr.txt", [b"1 -1  1\n", b"\xef\xbb\xbf0,0.5;2"], ["0", "1", "2"],
               [[1, -1, 1], [0, 0.5, 2]]),
    "an array": ("face.npy", "face.npy", [encode_npy(np.arange(11.0)), encode_npy(np.ones(11))],
                 [str(i) for i in range(11)], [list(range(11)), [1] * 11]),
    "too large": ("txt", "txt", [b"1e300 nan"], ["0", "1"], [[3e38, NAN]]),
}  # fmt: skip


@pytest.mark.parametrize("kind", READ)
def test_what_holds_attributes(tmp_path, kind):
    rule, ending, contents, names, values = READ[kind]
    write(tmp_path / "s" / "a.tar", ending, contents)
    shards = index_set([tmp_path / "s"], attributes=rule)
    assert shards.spec.attributes == tuple(names)
    assert shards.label_counts == {-1: len(contents)}
    np.testing.assert_array_equal(AttributeTable(shards).of(np.arange(len(contents))), np.array(values, np.float32))
    assert f"attributes  {', '.join(names)} of {rule}" in survey(shards)


def several(folder: Path) -> Path:
    """Three shards whose samples name different attributes; their label stands beside them."""
    for shard in range(3):
        values = [{"label": i % 2, "a": {f"n{shard}": i, "all": 10 * shard + i}} for i in range(4 + shard)]
        write(folder / f"{shard}.tar", "json", jsons(*values))
    return folder


def expected() -> np.ndarray:
    places = [(shard, i) for shard in range(3) for i in range(4 + shard)]
    rows = [[10 * shard + i, *(i if n == shard else NAN for n in range(3))] for shard, i in places]
    return np.array(rows, np.float32)


def test_any_number_of_processes_and_any_source_makes_the_same(tmp_path):
    folder, choice = several(tmp_path / "served" / "s"), Choice(y="json:label", attributes="json:a")
    made = []
    for processes in (1, 3):
        home = tmp_path / f"i{processes}"
        shards = index_set([folder], home, y="json:label", attributes="json:a", processes=processes)
        assert shards.spec.attributes == ("all", "n0", "n1", "n2")
        np.testing.assert_array_equal(AttributeTable(shards).of(np.arange(15)), expected())
        made.append({path.name: path.read_bytes() for path in home.iterdir() if path.is_file()})
    assert made[0] == made[1]
    assert [name for name in made[0] if "attributes" in name] == ["attributes.npy"]
    with web(tmp_path / "served") as server:
        pattern = f"{server.url}/s/{{0..2}}.tar"
        remote = Shards.open(pattern, Store(tmp_path / "c"), choice)
        np.testing.assert_array_equal(AttributeTable(remote).of(np.arange(15)), expected())
        assert remote.digest == shards.digest
        index_set([folder], y="json:label", attributes="json:a")
        fetched = Shards.open(f"{server.url}/s", Store(tmp_path / "d"))
        np.testing.assert_array_equal(AttributeTable(fetched).of(np.arange(15)), expected())
    shutil.copytree(folder, tmp_path / "t")
    both = Shards.open([folder, tmp_path / "t"])
    np.testing.assert_array_equal(AttributeTable(both).of(np.arange(30)), np.concatenate([expected()] * 2))
    np.testing.assert_array_equal(AttributeTable(both).of(np.array([29, 0, 14])), expected()[[14, 0, 14]])
    other = index_set([folder], tmp_path / "other", y="json:label")
    assert (other.spec.attributes, attributes_of(other)) == ((), None)
    with pytest.raises(DataError, match="different attributes"):
        Shards.open([tmp_path / "i1", tmp_path / "other"])


def test_they_are_part_of_what_identifies_a_set(tmp_path):
    write(tmp_path / "a" / "s.tar", "json", jsons({"a": {"x": 1}}, {"a": {"x": 2}}))
    one, other = (index_set([tmp_path / "a"], tmp_path / name, attributes="json:a") for name in ("1", "2"))
    assert one.digest == other.digest != index_set([tmp_path / "a"], tmp_path / "3").digest
    write(tmp_path / "b" / "s.tar", "json", jsons({"a": {"x": 1}}, {"a": {"x": 3}}))
    changed = index_set([tmp_path / "b"], attributes="json:a").index["shards"][0]
    assert changed["attributes"] != one.index["shards"][0]["attributes"]


def test_a_batch_has_those_of_its_samples(tmp_path):
    shards = Shards.open(several(tmp_path / "s"), choice=Choice(y="json:label", attributes="json:a"))
    reader = Reader(shards, Order(shards.counts, 0, 2, 2), 0)
    for table, wanted in ((attributes_of(shards), True), (None, False)):
        builder = BatchBuilder(BatchSplit(8), torch.device("cpu"), lambda x: x, 0, None, table)
        raw = reader[Request(0, 8, range(8))]
        batch = builder.batch(raw)
        assert (batch.attributes is not None) == wanted
        if batch.attributes is not None:
            np.testing.assert_array_equal(batch.attributes.numpy(), expected()[raw.id.numpy()])


def test_a_validation_set_has_the_columns_of_the_training_set(tmp_path):
    write(tmp_path / "t" / "s.tar", "json", jsons({"a": {"x": 1, "y": 2}}))
    write(tmp_path / "v" / "s.tar", "json", jsons({"a": {"y": 5, "z": 6}}))
    train, other = (index_set([tmp_path / name], attributes="json:a") for name in "tv")
    seen = other.with_spec(train.spec)
    np.testing.assert_array_equal(AttributeTable(seen).of(np.array([0])), np.array([[NAN, 5]], np.float32))


BAD = {
    "text": (jsons({"a": {"x": "old"}}, {"a": {"x": 1}}), "json:a", "the attribute x is 'old', no number"),
    "nested": (jsons({"a": {"x": [1]}}, {"a": {"x": 1}}), "json:a", "the attribute x is [1], no number"),
    "damaged": ([b"{", *jsons({"a": 1})], "json:a", "damaged JSON"),
}


@pytest.mark.parametrize("kind", BAD)
def test_values_that_are_none_cost_their_sample(tmp_path, kind):
    contents, rule, found = BAD[kind]
    write(tmp_path / "s" / "a.tar", "json", contents)
    shards = index_set([tmp_path / "s"], attributes=rule)
    with pytest.raises(DataError) as caught:
        check_losses("s", shards.index, 0.1)
    assert "1 of 2 samples are of no use, more than data.bad_budget=0.1 allows" in str(caught.value)
    assert f": label 1 (k0: {found}" in str(caught.value)


def test_where_there_are_none_it_is_said(tmp_path):
    write(tmp_path / "s" / "a.tar", "json", jsons({"b": 1}))
    with pytest.raises(DataError, match=r"data\.attributes=json:a finds nothing; members are json 1, png 1"):
        index_set([tmp_path / "s"], attributes="json:a")
    for rule in ("json", "json:", "json:a,,b", "txt:a", "", "a b"):
        with pytest.raises(ConfigError, match=r"^data\.attributes="):
            attribute_rule(rule)


def test_columns_of_blocks(tmp_path):
    columns = json.dumps({"speed": [1, 2, None], "load": [0.5, 1, 2], "name": ["a", "b", "c"]}).encode()
    (tmp_path / "a.tar").write_bytes(tar([("b.x.npy", encode_npy(X[:3])), ("b.json", columns)]))
    shards = index_set([tmp_path / "a.tar"], y="json:name", attributes="json:speed,load")
    assert shards.spec.attributes == ("load", "speed")
    np.testing.assert_array_equal(
        AttributeTable(shards).of(np.arange(3)), np.array([[0.5, 1], [1, 2], [2, NAN]], np.float32)
    )
    short = [("c.x.npy", encode_npy(X[:3])), ("c.json", b'{"speed": [1]}')]
    (tmp_path / "a.tar").write_bytes(tar([("b.x.npy", encode_npy(X[:3])), ("b.json", columns), *short]))
    assert "label 3 (c, ...: speed is no list of 3 attributes)" in "\n".join(
        survey(index_set([tmp_path / "a.tar"], attributes="json:speed"))
    )
