"""Labels as other writers spell them, and what is said where they are not read."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tars import Members, X, read, tar

from savae_dist.config.members import label_rule, sample_endings
from savae_dist.data import Shards, index_set, pack, survey
from savae_dist.data.formats.npy import encode_image, encode_npy
from savae_dist.data.index.choice import Choice
from savae_dist.data.index.labels import MAX_CLASSES, Label, as_label, folder_of, text_label
from savae_dist.errors import BadSample, ConfigError, DataError

NAMES = ["dog", "cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(path: Path, ending: str, contents: list[bytes | str], keys: list[str] | None = None) -> Path:
    """A tar of an image and one more member for each content."""
    keys = keys or [f"k{i:02d}" for i in range(len(contents))]
    members: Members = []
    for i, (key, content) in enumerate(zip(keys, contents, strict=True)):
        members.append((f"{key}.png", encode_image(X[i])))
        if ending:
            members.append((f"{key}.{ending}", content.encode() if isinstance(content, str) else content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar(members))
    return path


def texts(*values: object) -> list[bytes | str]:
    return [json.dumps(value) for value in values]


def folders(*names: str) -> list[str]:
    return [f"{name}/{i}" for i, name in enumerate(names)]


# y, the ending of the label's member, its contents, keys, and the labels and class names that come of it.
WRITTEN: dict[str, tuple[str | None, str, list[bytes | str], list[str] | None, list[int], tuple[str, ...]]] = {
    "names": (None, "cls", [*NAMES], None, [1, 0, 1, 2], ("cat", "dog", "eel")),
    "names, named": ("cls", "cls", [*NAMES], None, [1, 0, 1, 2], ("cat", "dog", "eel")),
    "floats": (None, "cls", ["0.0", "1.", "-1.0", "2.00\n"], None, [0, 1, -1, 2], ()),
    "byte order mark": (None, "cls", [codecs.BOM_UTF8 + b"1", b"0", b"\xff\xfe1\0", b"\xfe\xff\0" + b"2"], None,
                        [1, 0, 1, 2], ()),
    "marked names": (None, "cls", [codecs.BOM_UTF8 + "é".encode(), "a", "é", "a\r\n"], None, [1, 0, 1, 0], ("a", "é")),
    "json": ("json:label", "json", texts({"label": 1}, {"label": 0}, {"label": 1.0}, {"id": 3}), None,
             [1, 0, 1, -1], ()),
    "json of names": ("json:label", "json", texts(*({"label": one} for one in NAMES)), None, [1, 0, 1, 2],
                      ("cat", "dog", "eel")),
    "nested json": ("json:a.class.1", "json", texts(*({"a": {"class": [9, n]}} for n in "0112")), None,
                    [0, 1, 1, 2], ()),
    "one-hot json": ("meta.json:y", "meta.json", texts(*({"y": one} for one in ([0, 0, 1], [1, 0], [0.0, 1.0], [7]))),
                     None, [2, 0, 1, 7], ()),
    "true and false": ("json:ill", "json", texts({"ill": True}, {"ill": False}, {"ill": None}), None, [1, 0, -1], ()),
    "txt": ("txt", "txt", ["3", "0", "1\n"], None, [3, 0, 1], ()),
    "another ending": ("class.id", "class.id", ["3", "0", "1"], None, [3, 0, 1], ()),
    "numbers among names": ("txt", "txt", ["a", "10", "9", "b", "a"], None, [2, 0, 1, 3, 2], ("10", "9", "a", "b")),
    "folder": ("folder", "", [""] * 4, folders(*NAMES), [1, 0, 1, 2], ("cat", "dog", "eel")),
    "folder below a set": ("folder", "", [""] * 3, ["./train/b/1", "train/a/x/2", "val/b/3"], [1, 0, 1], ("a", "b")),
    "numbered folders": ("folder", "", [""] * 3, folders("10", "9", "10"), [1, 0, 1], ("9", "10")),
    "key": (r"key:_([a-z]+)$", "", [""] * 3, ["1_dog", "x/2_cat", "3_dog"], [1, 0, 1], ("cat", "dog")),
    "key of the folder": (r"key:^[^/]+/([^/]+)/", "", [""] * 2, ["s1/b/1", "s2/a/2"], [1, 0], ("a", "b")),
    "all of the json": ("json:.", "json", texts(2, "1", 0.0), None, [2, 1, 0], ()),
    "array": ("y.npy", "y.npy", [encode_npy(np.array(2)), encode_npy(np.array([1.0])), encode_npy(np.eye(3)[0])], None,
              [2, 1, 0], ()),
    "none": ("none", "cls", ["3", "0", "1"], None, [-1] * 3, ()),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITTEN)
def test_labels_of_other_writers(tmp_path, kind):
    y, ending, contents, keys, labels, names = WRITTEN[kind]
    path = write(tmp_path / "s" / "a.tar", ending, contents, keys)
    shards = index_set([path], tmp_path / "i", y=y)
    assert (shards.all_labels().tolist(), shards.spec.class_names) == (labels, names)
    assert shards.spec.classes == max(len(names), max(labels) + 1)
    x, got, reasons = read(shards)
    assert (x == X[: len(labels)]).all()
    assert (got.tolist(), reasons) == (labels, {})
    first_use = Shards.open(tmp_path / "s", choice=Choice(y=y))
    assert first_use.all_labels().tolist() == labels
    assert first_use.digest == shards.digest


def test_the_numbers_of_names_are_those_of_the_packer(tmp_path):
    """Whichever shards and processes they come from; given class names decide, and what is none of them is bad."""
    for number, names in enumerate((["b", "c"], ["a", "c"], ["c", "c"])):
        write(tmp_path / "s" / f"{number}.tar", "cls", [*names])
    made = []
    for processes in (1, 3):
        shards = index_set([tmp_path / "s"], tmp_path / f"i{processes}", processes=processes)
        assert shards.all_labels().tolist() == [1, 2, 0, 2, 2, 2]
        made.append({path.name: path.read_bytes() for path in (tmp_path / f"i{processes}").iterdir() if path.is_file()})
    assert made[0] == made[1]
    given = index_set([tmp_path / "s"], class_names=["c", "a"])
    assert given.all_labels().tolist() == [-2, 0, 1, 0, 0, 0]
    assert "bad         1: label 1 (k00: 'b'); others take their place" in survey(given)


def test_the_set_that_is_validated_on_has_the_numbers_of_the_training_set(tmp_path):
    write(tmp_path / "t" / "a.tar", "cls", ["b", "c", "d"])
    write(tmp_path / "v" / "a.tar", "cls", ["a", "d", "b"])
    train = Shards.open(tmp_path / "t")
    known = Shards.open(tmp_path / "v", choice=Choice(known=train.spec.class_names)).with_spec(train.spec)
    assert (known.all_labels().tolist(), known.foreign) == ([-1, 2, 0], 1)
    write(tmp_path / "w" / "a.tar", "cls", ["a", "d", "b"])
    with pytest.raises(DataError, match="calls class 0 'a'"):
        Shards.open(tmp_path / "w").with_spec(train.spec)


BESIDE: dict[str, tuple[str, list[bytes | str], list[str] | None, str]] = {
    "json": ("json", texts({"id": 1, "category": 2}), None, "json 1 (with id, category): data.y=json:category"),
    "odd json": ("meta.json", texts({"shoe": 2}), None, "meta.json 1 (with shoe): data.y=meta.json:FIELD"),
    "txt": ("txt", ["3"], None, "txt 1 (3 first): data.y=txt"),
    "index": ("index", ["cat"], None, "index 1 ('cat' first): data.y=index"),
    "a value": ("json", texts("cat"), None, "json 1 ('cat' first): data.y=json:."),
    "array": ("label.npy", [encode_npy(np.array([3]))], None, "label.npy 1 (3 first): data.y=label.npy"),
    "folder": ("", [""] * 2, ["cat/1", "dog/2"], "folders cat, dog: data.y=folder"),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_what_looks_like_a_label_is_told_with_the_option(tmp_path, capsys, kind):
    ending, contents, keys, told = BESIDE[kind]
    write(tmp_path / "s" / "a.tar", ending, contents, keys)
    shards = Shards.open(tmp_path / "s")
    assert f"no sample has a label, and beside them stand {told}" in capsys.readouterr().err
    assert f"labels      no sample has a label, and beside them stand {told}" in survey(shards)
    with pytest.raises(DataError) as caught:
        index_set([tmp_path / "s"], y="answer")
    assert "data.y=answer finds no label; " in str(caught.value)
    assert told in str(caught.value)
    if "FIELD" not in told:
        with_option = Shards.open(tmp_path / "s", choice=Choice(y=told.rpartition("data.y=")[2]))
        assert with_option.label_counts.get(-1, 0) == 0


def test_pictures_of_a_pickle_and_a_caption_are_no_hints(tmp_path):
    for ending, content in (("pkl", b"3"), ("txt", "a long\ncaption"), ("jpg.txt", "")):
        write(tmp_path / ending / "a.tar", ending, [content])
        assert not [line for line in survey(index_set([tmp_path / ending])) if line.startswith("labels")]


def in_range(label: Label) -> None:
    if isinstance(label, int) and not -1 <= label < MAX_CLASSES:
        raise BadSample("label", str(label))


NO_LABELS = ["0.5", "", "a\nb", "\0", "x" * 300, "nan", "1e400", "99999999999", "-7", b"\xff\xfe\xfd"]


@pytest.mark.parametrize("text", NO_LABELS, ids=repr)
def test_texts_that_are_no_label(text):
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(BadSample, match="label"):
        in_range(text_label(content))


@pytest.mark.parametrize("value", [0.5, [1, 1], [0, 0], [], {"a": 1}, ["a", "b"], [[1, 1]], float("inf")], ids=repr)
def test_values_that_are_no_label(value):
    with pytest.raises(BadSample, match="label") as caught:
        as_label(value)
    assert caught.value.found.isprintable()


def test_bad_labels_name_what_was_found(tmp_path, capsys):
    write(tmp_path / "s" / "a.tar", "json", texts({"label": [1, 1]}, {"label": 1}, {"label": {"cat": 1}}))
    shards = Shards.open(tmp_path / "s", choice=Choice(y="json:label"))
    assert shards.all_labels().tolist() == [-2, 1, -2]
    told = (
        "2 of 3 samples (66.7%) are of no use: label 2 (k00, k02: a list of 2, which is neither one label nor one-hot)"
    )
    assert told in capsys.readouterr().err
    write(tmp_path / "t" / "a.tar", "json", ["{", '{"label": 1}'])
    damaged = index_set([tmp_path / "t"], y="json:label")
    assert "label 1 (k00: damaged JSON" in survey(damaged)[6]


def test_an_index_that_cannot_be_made_leaves_the_one_before(tmp_path):
    write(tmp_path / "s" / "a.tar", "json", texts({"label": 1}, {"label": 0}))
    index_set([tmp_path / "s"], y="json:label")
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    for wrong in ({"y": "json:other"}, {"x": "jpg"}, {"attributes": "json:other"}):
        with pytest.raises(DataError):
            index_set([tmp_path / "s"], **wrong)
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before
    assert read(Shards.open(tmp_path / "s"))[1].tolist() == [1, 0]


def test_captions_are_no_classes(tmp_path):
    contents: list[bytes | str] = [f"a picture of thing {i}" for i in range(12)]
    write(tmp_path / "s" / "a.tar", "txt", contents)
    write(tmp_path / "s" / "b.tar", "txt", [f"{text} again" for text in contents])
    with pytest.raises(DataError, match=r"24 different texts \(a picture of thing 0, .*no classes: let data\.y"):
        index_set([tmp_path / "s"], y="txt")
    assert index_set([tmp_path / "s"], y="none").label_counts == {-1: 24}


def test_labels_of_blocks_as_others_write_them(tmp_path):
    labels = {
        "column": np.array([[2], [0], [1]]), "one-hot": np.eye(3)[[2, 0, 1]], "floats": np.array([2.0, 0.0, 1.0]),
        "bytes": np.eye(3, dtype=np.uint8)[[2, 0, 1]],
    }  # fmt: skip
    for name, y in labels.items():
        (tmp_path / f"{name}.tar").write_bytes(tar([("b.x.npy", encode_npy(X[:3])), ("b.y.npy", encode_npy(y))]))
        assert index_set([tmp_path / f"{name}.tar"]).all_labels().tolist() == [2, 0, 1]
    wrong = {"two-hot": np.ones((3, 3)), "half": np.full(3, 0.5), "few": np.zeros(2), "cube": np.zeros((3, 1, 1))}
    for name, y in wrong.items():
        path = tmp_path / f"{name}.tar"
        path.write_bytes(
            tar([("a.x.npy", encode_npy(X[:3])), ("b.x.npy", encode_npy(X[:3])), ("b.y.npy", encode_npy(y))])
        )
        assert "label 3 (b, ...: y.npy holds float64" in "\n".join(survey(index_set([path])))
    columns = json.dumps({"machine": ["m2", "m1", "m2"]}).encode()
    (tmp_path / "j.tar").write_bytes(tar([("b.x.npy", encode_npy(X[:3])), ("b.json", columns)]))
    machines = index_set([tmp_path / "j.tar"], y="json:machine")
    assert (machines.all_labels().tolist(), machines.spec.class_names) == ([1, 0, 1], ("m1", "m2"))


def test_an_index_is_of_its_choice(tmp_path):
    """Another choice gets an index of its own, and leaves that beside the shards alone; none takes what is there."""
    path = write(tmp_path / "s" / "a.tar", "json", texts({"a": 0, "b": 5}, {"a": 1, "b": 4}))
    a = Shards.open(path.parent, choice=Choice(y="json:a"))
    before = {one.name: one.read_bytes() for one in path.parent.iterdir()}
    b = Shards.open(path.parent, choice=Choice(y="json:b"))
    assert (a.all_labels().tolist(), b.all_labels().tolist()) == ([0, 1], [5, 4])
    assert a.digest != b.digest
    assert Shards.open(path.parent).all_labels().tolist() == [0, 1]
    assert Shards.open(path, choice=Choice(y="json:b")).home == b.home != a.home
    assert {one.name: one.read_bytes() for one in path.parent.iterdir()} == before


def test_the_packer_s_sets_are_as_they_were(tmp_path):
    """Nothing in the digest tells of members, and no choice is needed."""
    pack(X, np.arange(12) % 3, tmp_path / "s", layout="samples")
    shards = Shards.open(tmp_path / "s", choice=Choice())
    assert not {"x", "y"} & shards.index.keys()
    del shards.index["shards"][0]["members"], shards.index["shards"][0]["folders"], shards.index["told"]
    assert shards.digest == Shards.open(tmp_path / "s").digest


@pytest.mark.parametrize(
    "y", ["", "json", "json:", "json:a..b", "cls:x", "key:", "key:a", "key:(a)(b)", "key:(", "a b"]
)
def test_rules_that_say_nothing(y):
    with pytest.raises(ConfigError, match=r"^data\.y="):
        label_rule(y)


def test_rules():
    assert label_rule("json:a.0.b") == ("json", "json", ("a", "0", "b"))
    assert label_rule(".CLS") == ("member", "cls", ())
    assert sample_endings("jpg | .LEFT.png") == ("jpg", "left.png")
    for x in ("", "a/b", "jpg||png", "."):
        with pytest.raises(ConfigError, match=r"^data\.x="):
            sample_endings(x)
    assert [folder_of(key) for key in ("a", "a/b", "./a/b", "train/a/b", "train/b", "Test/c/d/e", "a/train/b")] == [
        "", "a", "a", "a", "train", "c", "a"
    ]  # fmt: skip
