"""Sets by group from every kind of source, through the tool: no group is on both sides, and the grouping is told."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from savae_dist.data import Order, Reader, Request, Shards
from savae_dist.data.packing.command_line import parse
from tools.make_shards import main

COUNT = 40
IMAGES = np.arange(COUNT, dtype=np.uint8)[:, None, None] + np.zeros((8, 8), np.uint8)  # a sample's number is its gray
Y = np.arange(COUNT) % 2
PATIENTS = [f"p{i // 4}" for i in range(COUNT)]  # ten of four samples, two of each class


def png(x: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(x).save(stream, "PNG")
    return stream.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def folder(home: Path) -> list[str]:
    for i in range(COUNT):
        path = home / "set" / "ab"[Y[i]] / PATIENTS[i] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(IMAGES[i]))
    return ["images", str(home / "set"), "--group-by", "(p[0-9]+)/"]


def listed(home: Path) -> list[str]:
    folder(home)
    rows = [f"set/{'ab'[Y[i]]}/{PATIENTS[i]}/{i}.png,{'ab'[Y[i]]},{PATIENTS[i]}" for i in range(COUNT)]
    (home / "list.csv").write_text("\n".join(["path,label,patient", *rows]) + "\n")
    return ["images", str(home / "list.csv"), "--group-by", "patient"]


def npz(home: Path) -> list[str]:
    np.savez(home / "a.npz", x=IMAGES, y=Y, patient=PATIENTS)
    return ["arrays", str(home / "a.npz"), "--group-by", "patient"]


def npy(home: Path) -> list[str]:
    for name, array in (("x", IMAGES), ("y", Y), ("patients", np.array(PATIENTS))):
        np.save(home / f"{name}.npy", array)
    beside = ["--labels", str(home / "y.npy"), "--group-by", str(home / "patients.npy")]
    return ["arrays", str(home / "x.npy"), *beside]


def mnist(home: Path) -> list[str]:
    np.save(home / "patients.npy", np.array(PATIENTS))
    for name, array in (("images-idx3", IMAGES), ("labels-idx1", Y.astype(np.uint8))):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (home / f"{name}-ubyte").write_bytes(head + array.tobytes())
    return ["idx", str(home / "images-idx3-ubyte"), "--group-by", str(home / "patients.npy")]


def rows(**more: object) -> pa.Table:
    pictures = pa.array([{"bytes": png(x), "path": None} for x in IMAGES])
    return pa.table({"picture": pictures, "label": Y, "patient": PATIENTS, **more})


def parquet(home: Path) -> list[str]:
    pq.write_table(rows(), home / "a.parquet", row_group_size=7)
    return ["table", str(home / "a.parquet"), "--group-by", "patient"]


def arrow(home: Path) -> list[str]:
    with pa.ipc.new_stream(str(home / "a.arrow"), rows().schema) as file:
        file.write_table(rows(), max_chunksize=7)
    return ["table", str(home / "a.arrow"), "--group-by", "patient"]


def hub_tables(home: Path) -> list[str]:
    for i in range(2):
        pq.write_table(rows()[i::2], home / f"{i}.parquet")
    files = [word for i in range(2) for word in ("--data-files", str(home / f"{i}.parquet"))]
    return ["hub", "parquet", *files, "--group-by", "patient"]


def hub_folder(home: Path) -> list[str]:
    for i in range(COUNT):
        path = home / "set" / "ab"[Y[i]] / f"{PATIENTS[i]}_{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(IMAGES[i]))
    return ["hub", str(home / "set"), "--group-by", "/(p[0-9]+)_"]


def hub_tars(home: Path, name: str = "a", samples: range = range(COUNT)) -> list[str]:
    with tarfile.open(home / f"{name}.tar", "w") as tar:
        for i in samples:
            add(tar, f"{PATIENTS[i]}_{i:02d}.left.png", png(IMAGES[i]))
            kept = {"what": {"number": int(Y[i]), "name": "ab"[Y[i]]}, "patient": PATIENTS[i]}
            add(tar, f"{PATIENTS[i]}_{i:02d}.json", json.dumps(kept).encode())
    return [
        "hub",
        "webdataset",
        "--data-files",
        str(home / f"{name}.tar"),
        "--y",
        "json.what.name",
        "--group-by",
        "(.*)_",
    ]


def signals(home: Path) -> list[str]:
    made = ["path,label,machine"]
    for i in range(COUNT):
        np.save(home / f"{i}.npy", np.full(16, i, np.float32))
        made.append(f"{i}.npy,{'ab'[Y[i]]},{PATIENTS[i]}")
    (home / "list.csv").write_text("\n".join(made) + "\n")
    return ["recordings", str(home / "list.csv"), "--length", "16"]


SOURCES = [folder, listed, npz, npy, mnist, parquet, arrow, hub_tables, hub_folder, hub_tars, signals]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def numbers(home: Path) -> list[int]:
    """The samples of a set, by the gray value or level that each is made of."""
    shards = Shards.open(home)
    batch = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, shards.size, range(shards.size))]
    return sorted(int(one.ravel()[0]) for one in batch.x)


def kept_groups(home: Path) -> set[str]:
    """The groups that the shards name."""
    found: set[str] = set()
    for path in home.glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                if member.name.endswith(".json"):
                    found |= set(json.load(tar.extractfile(member))["group"])
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_no_group_is_on_both_sides(tmp_path: Path, source: Callable[[Path], list[str]], capsys) -> None:
    words = source(tmp_path)
    command = [words[0], words[1], str(tmp_path / "out"), *words[2:], "--processes", "1"]
    assert main([*command, "--validation", "0.2", "--test", "0.1"]) == 0
    said = capsys.readouterr().out
    by = words[words.index("--group-by") + 1] if "--group-by" in words else "machine"
    assert said.count(f"divided  by {by}: 7 in train, 2 in validation, 1 in test") == 1
    found = {name: numbers(tmp_path / "out" / name) for name in ("train", "validation", "test")}
    assert sorted(n for some in found.values() for n in some) == list(range(COUNT))
    groups = {name: {PATIENTS[n] for n in some} for name, some in found.items()}
    assert [len(groups[name]) for name in found] == [7, 2, 1]
    for name in found:
        assert kept_groups(tmp_path / "out" / name) == groups[name]
        assert Shards.open(tmp_path / "out" / name).label_counts == {0: len(found[name]) // 2, 1: len(found[name]) // 2}
    left_out = [command[0], command[1], str(tmp_path / "left"), *command[3:], "--leave-out", "p3"]
    assert main(left_out) == 0
    assert numbers(tmp_path / "left" / "test") == [12, 13, 14, 15]
    assert main([*left_out[:2], str(tmp_path / "no"), *left_out[3:-1], "p33"]) == 2
    assert "--leave-out p33: no such group; there are p0, p1" in capsys.readouterr().err


def test_the_summary_of_several_sets_says_once_what_they_share(tmp_path: Path, capsys) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES, y=Y)
    command = ["arrays", str(tmp_path / "a.npz"), str(tmp_path / "out"), "--processes", "1"]
    assert main([*command, "--validation", "0.2", "--test", "0.2"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["folder"] == str(tmp_path / "out")
    assert told["classes"] == "2"
    for name, half in (("train", 12), ("validation", 4), ("test", 4)):  # the last two have equally many
        bytes_ = sum(path.stat().st_size for path in (tmp_path / "out" / name).glob("*.tar"))
        counts = {0: half, 1: half}
        assert told[name] == f"samples {2 * half}  shards 1  bytes {bytes_}  counts {counts}  unlabelled 0"


def test_sets_that_a_column_names(tmp_path: Path, capsys) -> None:
    given = ["val" if i in range(8, 16) else "train" for i in range(COUNT)]
    pq.write_table(rows(split=given), tmp_path / "a.parquet", row_group_size=7)
    np.savez(tmp_path / "a.npz", x=IMAGES, y=Y, patient=PATIENTS, split=given)
    made = {"table": "a.parquet", "arrays": "a.npz", "hub": "parquet"}
    for kind, name in made.items():
        path = name if kind == "hub" else str(tmp_path / name)
        more = ["--data-files", str(tmp_path / "a.parquet")] if kind == "hub" else []
        command = [kind, path, str(tmp_path / kind), "--processes", "1", "--group-by", "patient", *more]
        assert main(command) == 0
        assert numbers(tmp_path / kind / "validation") == list(range(8, 16))
        assert "divided  as given, by patient: 8 in train, 2 in validation" in capsys.readouterr().out
        assert main([*command, "--overwrite", "--test", "0.2"]) == 2
        assert "names its sets itself; leave --validation, --test" in capsys.readouterr().err
    given[8] = "train"
    pq.write_table(rows(split=given), tmp_path / "a.parquet", row_group_size=7)
    assert main(["table", str(tmp_path / "a.parquet"), str(tmp_path / "no"), "--group-by", "patient"]) == 65
    assert "p2 is in 'train' and in 'validation': what belongs together goes to one set" in capsys.readouterr().err
    pq.write_table(rows(split=["new", None] * 20), tmp_path / "a.parquet")
    assert main(["table", str(tmp_path / "a.parquet"), str(tmp_path / "no")]) == 65
    assert "is in 'new'; give each one of train, validation, test" in capsys.readouterr().err


def test_named_splits_of_the_hub_become_sets(tmp_path: Path, capsys) -> None:
    for name, samples in (("train", range(28)), ("test", range(28, COUNT))):
        (tmp_path / "set" / name).mkdir(parents=True)
        hub_tars(tmp_path / "set" / name, "a", samples)
    command = ["hub", str(tmp_path / "set"), str(tmp_path / "out"), "--split", "train,test", "--y", "json.what.number"]
    assert main([*command, "--group-by", "json.patient", "--processes", "1"]) == 0
    said = capsys.readouterr().out
    assert "divided  as given, by json.patient: 7 in train, 3 in test" in said
    assert "passed over  columns __key__, __url__" in said
    assert numbers(tmp_path / "out" / "train") == list(range(28))
    assert numbers(tmp_path / "out" / "test") == list(range(28, COUNT))
    hub_tars(tmp_path / "set" / "test", "a", range(26, COUNT))
    assert main([*command, "--overwrite", "--group-by", "json.patient"]) == 65
    assert "p6 is in 'train' and in 'test'" in capsys.readouterr().err
    for split, words in (
        ("train,unsupervised", "unsupervised is none of train, val"),
        ("train,training", "the same set"),
    ):
        assert main(["hub", str(tmp_path / "set"), str(tmp_path / "no"), "--split", split]) == 2
        assert words in capsys.readouterr().err


def test_a_field_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, capsys) -> None:
    words = hub_tars(tmp_path)
    command = [*words[:2], str(tmp_path / "out"), *words[2:4]]
    for option, name in (("--y", "json.label"), ("--x", "right.png"), ("--group-by", "machine")):
        assert main([*command, option, name]) == 2
        said = capsys.readouterr().err
        assert "has the columns left.png, json.what.number, json.what.name, json.patient, __key__" in said
        assert f"name one with {option}" in said
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for i in range(8):
            add(tar, f"{i}.png", png(IMAGES[i]))
            add(tar, f"{i}.cls", b"cat")
    assert main([*words[:2], str(tmp_path / "out"), "--data-files", str(tmp_path / "b.tar")]) == 65
    assert "its .cls are no numbers: index the tars as they are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("idx a b --size 28", "idx has no --size, which is for images, table, hub"),
        ("images a b --variable x", "images has no --variable, which is for recordings"),
        ("recordings a b --length 8 --range=0,1", "recordings has no --range, which is for images, arrays"),
        ("digits a --validation 0.1", "digits has no --validation, which is for images, arrays, idx, table, hub, rec"),
        ("table a b --none", "table does not understand --none; see make_shards table --help"),
        ("hub a b c", "hub does not understand c"),
    ],
)
def test_an_option_of_another_source_is_refused_with_its_own(words: str, told: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(words.split())
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_sets_of_several_arrays_take_no_groups(tmp_path: Path, capsys) -> None:
    np.savez(
        tmp_path / "a.npz", x_train=IMAGES[:30], y_train=Y[:30], x_test=IMAGES[30:], y_test=Y[30:], patient=PATIENTS
    )
    assert main(["arrays", str(tmp_path / "a.npz"), str(tmp_path / "out"), "--group-by", "patient"]) == 2
    assert "names its sets itself; leave --group-by away" in capsys.readouterr().err
    np.savez(tmp_path / "b.npz", x=IMAGES, y=Y, patient=PATIENTS[:-1])
    assert main(["arrays", str(tmp_path / "b.npz"), str(tmp_path / "out"), "--group-by", "patient"]) == 65
    assert "--group-by patient has 39 values, and there are 40 samples" in capsys.readouterr().err
