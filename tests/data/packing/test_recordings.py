"""Windows of recordings: where they lie, what they are called, how they are resampled and which set they go to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import webdataset
from helpers.launching import ROOT
from scipy.io import wavfile

from savae_dist.data import Shards
from savae_dist.data.packing.packer import Options, pack_source
from savae_dist.data.packing.readers.signal import Part, Signal
from savae_dist.data.packing.resampling import Resampled
from savae_dist.data.packing.sources import Bad, Item, Note, Sample, Source
from savae_dist.data.packing.sources.recordings import Windows, recordings
from savae_dist.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 1000))
TOOL = [sys.executable, str(ROOT / "tools" / "make_shards.py")]


def items(source: Source) -> list[Item]:
    found = (item for part in range(len(source.splits)) for item in source.read(part))
    return [item for item in found if not isinstance(item, Note)]


def one_file(tmp_path: Path, x: np.ndarray, name: str = "a.npy") -> Path:
    folder = tmp_path / "set"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    np.save(folder / name, x)
    return folder


@pytest.mark.parametrize(("n", "length", "hop"), [(1000, 64, 64), (1000, 64, 10), (64, 64, 7), (1000, 100, 300)])
@pytest.mark.parametrize("channels", [1, 2])
def test_windows_lie_where_arithmetic_says(tmp_path, n, length, hop, channels):
    x = X[:channels, :n]
    made = items(recordings(one_file(tmp_path, x), Windows(length, hop)))
    assert len(made) == (n - length) // hop + 1
    for k, sample in enumerate(made):
        assert isinstance(sample, Sample)
        assert sample.attributes["start"] == k * hop
        expected = x[:, k * hop : k * hop + length].astype(np.float32)
        assert sample.x.tobytes() == expected.tobytes()
        assert sample.x.shape == ((length,) if channels == 1 else (channels, length))


def test_what_is_too_short_or_not_finite_is_named(tmp_path):
    folder = one_file(tmp_path, X[0, :63])
    assert items(recordings(folder, Windows(64, 64))) == [
        Bad("shorter than a window", f"{folder / 'a.npy'}: 63 samples of 64")
    ]
    x = X[0].copy()
    x[130] = np.nan
    source = recordings(one_file(tmp_path, x), Windows(64, 64))
    with pytest.raises(DataError, match=r"finite: 1 \(a\.npy at 128\)"):
        pack_source(source, tmp_path / "s")
    (made,) = pack_source(source, tmp_path / "s", Options(bad_budget=1))
    assert made["samples"] == 14


def test_windows_are_cut_after_resampling(tmp_path):
    folder = one_file(tmp_path, X)
    source = recordings(folder, Windows(100, 50, rate=12000, source_rate=48000))
    made = items(source)
    whole = Resampled(Signal([Part(("a", "b"), X, 1)]), 48000, 12000).read(0, 250).astype(np.float32)
    assert [item.attributes["start"] for item in made] == [0, 50, 100, 150]
    assert made[3].x.tobytes() == whole[:, 150:250].tobytes()
    assert (made[0].attributes["rate"], made[0].attributes["source_rate"]) == (12000, 48000)
    pack_source(source, tmp_path / "s")
    assert Shards.open(tmp_path / "s").spec.rate == 12000
    (bad,) = items(recordings(folder, Windows(100, 50, rate=12000)))
    assert bad.reason == "sampling rate unknown, give --source-rate"


def test_different_rates_need_one(tmp_path):
    for name, rate in (("a.wav", 8000), ("b.wav", 16000)):
        (tmp_path / "set").mkdir(exist_ok=True)
        wavfile.write(tmp_path / "set" / name, rate, X[0].astype(np.float32))
    with pytest.raises(DataError, match=r"2 sampling rates \(8000, 16000 Hz\).*--rate"):
        pack_source(recordings(tmp_path / "set", Windows(64, 64)), tmp_path / "s")
    (made,) = pack_source(recordings(tmp_path / "set", Windows(64, 64, rate=8000)), tmp_path / "s")
    assert (made["rate"], made["samples"]) == (8000, 1000 // 64 + 500 // 64)


def test_recording_machine_and_rate_stay_with_each_window(tmp_path):
    one_file(tmp_path, X, "a.npy")
    one_file(tmp_path, X * 2, "b.npy")
    lines = ["path,label,machine,rate,recording", "set/a.npy,good,M1,100,run 1", "set/b.npy,bad,M2,100,"]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    for layout in ("packed", "samples"):
        (made,) = pack_source(recordings(tmp_path / "list.csv", Windows(100, 100)), tmp_path / layout, Options(layout))
        assert (made["names"], made["counts"], made["rate"]) == ("bad, good", {0: 10, 1: 10}, 100)
        read = webdataset.WebDataset(str(tmp_path / layout / "shards-000000.tar"), shardshuffle=False).decode()
        seen = Counter()
        for one in read:
            kept = one["json"] if layout == "packed" else {name: [value] for name, value in one["json"].items()}
            x = one["x.npy"] if layout == "packed" else one["npy"][None]
            y = one["y.npy"].tolist() if layout == "packed" else [one["cls"]]
            for i in range(len(x)):
                machine, start = kept["machine"][i], kept["start"][i]
                expected = (X if machine == "M1" else X * 2)[:, start : start + 100].astype(np.float32)
                assert x[i].tobytes() == expected.tobytes()
                seen[machine, kept["recording"][i], kept["file"][i], kept["rate"][i], y[i]] += 1
        assert seen == {("M1", "run 1", "set/a.npy", 100, 1): 10, ("M2", "set/b.npy", "set/b.npy", 100, 0): 10}


def test_annotations_label_the_windows_that_lie_inside(tmp_path):
    folder = one_file(tmp_path, X[0], "deep/a.npy")
    one_file(tmp_path, X[0], "other/b.npy")
    rows = ["path,start,end,label", "deep/a.npy,0.1,0.3,1", "deep/a.npy,0.3,0.5,1", "deep/a.npy,0.5,0.7,2"]
    (tmp_path / "notes.csv").write_text("\n".join(rows) + "\n")
    windows = Windows(100, 50, source_rate=1000)
    made = items(recordings(folder, windows, annotations=tmp_path / "notes.csv"))
    labels = {item.attributes["start"]: item.label for item in made if item.attributes["file"] == "deep/a.npy"}
    # 100..499 is class 1 (two neighbours joined), 500..699 class 2; a window that lies across an edge has no label
    expected = (
        dict.fromkeys(range(0, 901, 50))
        | dict.fromkeys(range(100, 401, 50), "1")
        | dict.fromkeys(range(500, 601, 50), "2")
    )
    assert labels == expected
    assert {item.label for item in made if item.attributes["file"] == "other/b.npy"} == {"other"}


@pytest.mark.parametrize(
    ("start", "end", "inside"),
    [
        ("0.1", "0.2", True),
        ("0.1001", "0.2", False),
        ("0.1", "0.1999", False),
        ("0.0999", "0.2001", True),
    ],
)
def test_edges_of_an_annotation(tmp_path, start, end, inside):
    folder = one_file(tmp_path, X[0])
    (tmp_path / "notes.csv").write_text(f"path,start,end,label\na.npy,{start},{end},7\n")
    made = items(recordings(folder, Windows(1000, 1000, 10_000, 1000), annotations=tmp_path / "notes.csv"))
    assert made[1].label == ("7" if inside else None)  # 1000..1999 at 10 kHz


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b.npy,0,1,x", "names b.npy, which is no recording"),
        ("a.npy,1,1,x", "no interval"),
        ("a.npy,z,1,x", "'z' is no number"),
        ("a.npy,0.5,1,x\na.npy,0.9,2,y", "two labels at 0.9"),
    ],
)
def test_annotations_that_are_wrong(tmp_path, row, message):
    (tmp_path / "notes.csv").write_text(f"path,start,end,label\n{row}\n")
    with pytest.raises(DataError, match=message):
        recordings(one_file(tmp_path, X), Windows(100, 50), annotations=tmp_path / "notes.csv")


def test_no_recording_is_in_two_sets(tmp_path):
    for i in range(12):
        one_file(tmp_path, X[0] + i, f"{'ab'[i % 2]}/{i}.npy")
    command = [*TOOL, "recordings", str(tmp_path / "set"), str(tmp_path / "s"), "--length", "100", "--hop", "25"]
    command += ["--source-rate", "1000", "--validation", "0.2", "--test", "0.2", "--processes", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen: dict[str, set[str]] = {}
    for name in ("train", "validation", "test"):
        assert f"\n{name:>12}  samples " in done.stdout
        shards = Shards.open(tmp_path / "s" / name)
        assert shards.spec.class_names == ("a", "b")
        assert set(shards.label_counts) == {0, 1}
        blocks = webdataset.WebDataset(str(tmp_path / "s" / name / "shards-000000.tar"), shardshuffle=False)
        for one in blocks:
            for recording in json.loads(one["json"])["recording"]:
                seen.setdefault(recording, set()).add(name)
    assert len(seen) == 12
    assert {len(names) for names in seen.values()} == {1}


def test_splits_that_are_given_hold(tmp_path):
    rows = ["path,label,split,recording"]
    for i, name in enumerate(["train", "test", "train", "train"]):
        one_file(tmp_path, X, f"{i}.npy")
        rows.append(f"set/{i}.npy,{i % 2},{name},{i}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    source = recordings(tmp_path / "list.csv", Windows(100, 100), rules=None)
    assert source.splits == ("train", "test", "train", "train")
    made = pack_source(source, tmp_path / "s")
    assert [(Path(one["folder"]).name, one["samples"]) for one in made] == [("train", 30), ("test", 10)]
    (tmp_path / "list.csv").write_text("\n".join(rows).replace("test,1", "test,0") + "\n")
    with pytest.raises(DataError, match="0 is in 'train' and in 'test'"):  # of two sets
        recordings(tmp_path / "list.csv", Windows(100, 100))
