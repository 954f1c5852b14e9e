"""tools/index_shards.py and the survey behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.launching import ROOT
from helpers.tars import ALL, GOOD, WHOLE, X, Y, read, tar

from savae_dist.data import Shards, index_set, pack, survey
from savae_dist.data.formats.npy import encode_image, encode_npy
from savae_dist.errors import ConfigError, DataError
from tools.index_shards import main

TOOL = [sys.executable, str(ROOT / "tools" / "index_shards.py")]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def call(capsys) -> Callable[..., list[str]]:
    """The tool, in this process: the lines that it prints, of errors where it ends with another code than 0."""

    def run(*arguments: object, code: int = 0) -> list[str]:
        assert main([str(argument) for argument in arguments]) == code
        printed = capsys.readouterr()
        return (printed.err if code else printed.out).splitlines()

    return run


def foreign(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "a.tar").write_bytes(WHOLE)
    odd = [("x.png", b"no image"), ("y.png", encode_image(X[0])), ("y.cls", b"cat"), ("z.pkl", b"x"), ("/w.png", b"x")]
    (folder / "b.tar").write_bytes(tar([*odd, *GOOD]))
    return folder


def test_the_tool_says_what_is_in_a_set(tmp_path, call):
    folder = foreign(tmp_path / "set")
    quick = call(folder)
    size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert quick[:4] == [
        f"index       {folder}",
        "samples     26 images 1x6x5, 3 classes, 1 unlabelled",
        f"shards      2 of {size / 1000:.3g} kB, samples, stored as uint8 6x5",
        "members     png 27, cls 25; not used: pkl 1 (z.pkl)",
    ]
    assert quick[4:8] == [
        "classes     0 8, 1 8, 2 8",
        "told        1 names (cat) among 24 numbers are no labels",
        "dropped     2: name 1 (/w), no sample 1 (z)",
        "bad         2: label 1 (y: 'cat'), undecodable 1 (x); others take their place",
    ]
    assert quick[8].startswith("of no use   4 of 28 samples (14.3%); say what tells the labels: data.y=cls, ")
    assert quick[9:] == ["memory      780 bytes with data.cache=memory"]
    half = encode_image(X[0])
    (folder / "c.tar").write_bytes(tar([*GOOD, ("half.png", half[:45] + bytes(9) + half[54:])]))
    assert call(folder)[7] == quick[7]  # its header is whole
    thorough = call(folder, "--decode", "--processes", 2)
    assert thorough[7] == "bad         3: label 1 (y: 'cat'), undecodable 2 (x, half); others take their place"
    (folder / "c.tar").unlink()
    call(folder)
    shards = Shards.open(folder)
    assert (read(shards)[0] == X[ALL * 2]).all()
    assert read(shards)[2] == {"label": 1, "undecodable": 1}
    named = call(folder, "--class-names", "a,b")
    assert named[4] == "classes     a 8, b 8"
    unread = "undecodable 1 (x)"
    assert named[6] == f"bad         10: label 9 (k02, k05, k08, k11, k02, ...: 2), {unread}; others take their place"
    assert Shards.open(folder).spec.class_names == ("a", "b")


def test_an_index_elsewhere_stands_for_the_shards(tmp_path, call):
    one, two = foreign(tmp_path / "one"), foreign(tmp_path / "two")
    before = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    call(one / "{a,b}.tar", two, "--out", tmp_path / "index")
    assert sorted(path.name for folder in (one, two) for path in folder.iterdir()) == before
    shards = Shards.open(tmp_path / "index")
    assert shards.names == ["a.tar", "b.tar", "a.tar", "b.tar"]
    assert len(read(shards)[0]) == 48
    with pytest.raises(ConfigError, match=r"2 folders; name one .* --out"):
        index_set([one, two])


@pytest.mark.parametrize("windows", [False, True])
def test_any_number_of_processes_makes_the_same(tmp_path, windows):
    x = np.random.default_rng(0).standard_normal((40, 9)).astype(np.float32) if windows else X[np.arange(40) % 12]
    made = []
    pack(x, np.arange(40) % 3, tmp_path / "s", layout="samples", shard_size=6)
    for processes in (1, 3):
        index_set([tmp_path / "s"], tmp_path / f"i{processes}", decode_all=True, processes=processes)
        made.append({path.name: path.read_bytes() for path in (tmp_path / f"i{processes}").iterdir() if path.is_file()})
    assert made[0] == made[1]
    again = index_set([tmp_path / "s"])
    assert again.digest == Shards.open(tmp_path / "i3").digest


def test_the_kind_of_the_first_sample_decides_whoever_reads_it(tmp_path):
    """Another kind in a later shard is bad, with as many processes as there are shards; of sizes the most common."""
    (tmp_path / "a.tar").write_bytes(tar([("x.png", b"no image"), *GOOD]))
    (tmp_path / "b.tar").write_bytes(tar([("v.png", encode_image(np.zeros((9, 9), np.uint8)))]))
    (tmp_path / "c.tar").write_bytes(tar([("w.npy", encode_npy(np.zeros(9)))]))
    shards = index_set([tmp_path], decode_all=True, processes=3)
    assert shards.stored_shape == (6, 5)
    assert [list(one["bad"]) for one in shards.index["shards"]] == [["undecodable"], [], ["dtype"]]


def test_what_the_first_use_leaves_out_is_told(tmp_path, capsys):
    folder = foreign(tmp_path / "set")
    Shards.open(folder)
    lost, members, names = capsys.readouterr().err.splitlines()
    assert "4 of 28 samples (14.3%) are of no use: label 1 (y: 'cat'), name 1 (/w)" in lost
    assert lost.endswith("no sample 1 (z), undecodable 1 (x)")
    assert members.endswith("members png 27, cls 25; not used: pkl 1 (z.pkl)")
    assert names.endswith("1 names (cat) among 24 numbers are no labels")
    Shards.open(folder)
    assert capsys.readouterr().err == ""


def test_the_first_five_keys_of_each_reason(tmp_path):
    members = [*GOOD, *((f"n{i}.txt", b"") for i in range(7))]
    (tmp_path / "a.tar").write_bytes(tar(members))
    (tmp_path / "b.tar").write_bytes(tar(members))
    shards = index_set([tmp_path])
    assert shards.index["shards"][0]["dropped"] == {"no sample": {"count": 7, "keys": [f"n{i}" for i in range(5)]}}
    assert "dropped     14: no sample 14 (n0, n1, n2, n3, n4, ...)" in survey(shards)


def test_survey_of_windows_and_of_empty_classes(tmp_path):
    x = np.random.default_rng(0).standard_normal((30, 2, 16)).astype(np.float32)
    pack(x, np.where(np.arange(30) % 2, 7, -1), tmp_path / "s", rate=100.0)
    lines = survey(Shards.open(tmp_path / "s"))
    assert lines[0] == "samples     30 signals 2x16 at 100 Hz, 8 classes, 15 unlabelled"
    assert "classes     7 15; 7 of 8 classes have no sample" in lines
    assert lines[-1] == "memory      3.84 kB with data.cache=memory"


def test_errors_are_one_line(tmp_path, call):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.tar").write_bytes(b"no tar" * 200)
    for arguments, code in (
        ([tmp_path / "empty"], 65),
        ([tmp_path / "a.tar"], 65),
        ([tmp_path / "none.tar"], 65),
        (["pipe:touch x"], 2),
        ([tmp_path / "a.tar", "--processes", 0], 2),
        ([tmp_path / "a.tar", "--out", tmp_path / "a.tar" / "x"], 74),
    ):
        (line,) = call(*arguments, code=code)
        assert line.startswith("index_shards: ")
    assert not (tmp_path / "index.json").exists()


def test_indexing_again_leaves_a_reader_alone(tmp_path):
    """Tables are replaced, never shortened under somebody who has mapped them."""
    folder = tmp_path / "s"
    pack(X, Y, folder, layout="samples")
    shards = Shards.open(folder)
    labels, table = shards.all_labels(), shards.samples(0).copy()
    mapped = shards.samples(0)
    (folder / "shards-000000.tar").write_bytes(WHOLE[: 3 * 2048])
    index_set([folder])
    assert (shards.all_labels() == labels).all()
    assert (mapped == table).all()
    assert json.loads((folder / "index.json").read_text())["shards"][0]["count"] < 12
    with pytest.raises(DataError, match="is not what its index was made with"):
        shards.samples(0)


def test_the_program_starts(tmp_path):
    done = subprocess.run([*TOOL, str(tmp_path / "none.tar")], capture_output=True, text=True, timeout=120)
    assert (done.returncode, len(done.stderr.splitlines())) == (65, 1)
    assert "none.tar is missing" in done.stderr or "cannot be read" in done.stderr
