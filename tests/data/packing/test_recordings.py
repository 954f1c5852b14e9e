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
from scipy.io import savemat, wavfile

from savae_dist.data import Shards
from savae_dist.data.packing.packer import Options, pack_source
from savae_dist.data.packing.sources import Bad, Item, Sample, Source
from savae_dist.data.packing.sources.recordings import Recording, Windows, apportion, recordings, split
from savae_dist.data.packing.sources.signals import read_signal, resample
from savae_dist.errors import BadSample, ConfigError, DataError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 1000))
TOOL = [sys.executable, str(ROOT / "tools" / "make_shards.py")]


def items(source: Source) -> list[Item]:
    return [item for part in range(len(source.splits)) for item in source.read(part)]


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
    assert items(recordings(folder, Windows(64, 64))) == [Bad("shorter than a window", str(folder / "a.npy"))]
    x = X[0].copy()
    x[130] = np.nan
    source = recordings(one_file(tmp_path, x), Windows(64, 64))
    with pytest.raises(DataError, match=r"finite: 1 \(a\.npy at 128\)"):
        pack_source(source, tmp_path / "s")
    (made,) = pack_source(source, tmp_path / "s", Options(bad_budget=1))
    assert made["samples"] == 14


def write_all(folder: Path) -> dict[str, tuple[np.ndarray, float, tuple[str, ...]]]:
    """Files of all kinds; by name what is to be read from each: values, rate and which variables to ask for."""
    folder.mkdir()
    counts = (X * 5000).astype(np.int16)
    wavfile.write(folder / "pcm.wav", 8000, counts.T)
    wavfile.write(folder / "mono.wav", 8000, counts[0])
    wavfile.write(folder / "float.wav", 48000, X.T.astype(np.float32))
    wavfile.write(folder / "int32.wav", 8000, counts.T.astype(np.int32) * 65536)
    wavfile.write(folder / "bytes.wav", 8000, (counts[0] % 256).astype(np.uint8))
    np.save(folder / "rows.npy", X)
    np.save(folder / "columns.npy", X.T)
    np.savez(folder / "x.npz", x=X, other=X[:, :5], fs=np.array(12000))
    np.savez(folder / "named.npz", a=X[0], b=X[1], rate=500.0)
    np.savez(folder / "only.npz", signal=X)
    savemat(folder / "m.mat", {"X097_DE_time": X[0][:, None], "X097_FE_time": X[1][:, None], "X097RPM": 1796.0})
    savemat(folder / "one.mat", {"signal": X.T, "fs": 25600.0})
    np.savetxt(folder / "plain.csv", X.T, delimiter=",", fmt="%.17g")
    np.savetxt(folder / "named.csv", X.T, delimiter=";", fmt="%.17g", header="left;right", comments="")
    pcm = counts / 32768
    return {
        "pcm.wav": (pcm, 8000, ()),
        "mono.wav": (pcm[:1], 8000, ()),
        "float.wav": (X.astype(np.float32), 48000, ()),
        "int32.wav": (pcm, 8000, ()),
        "bytes.wav": (((counts[:1] % 256) - 128) / 128, 8000, ()),
        "rows.npy": (X, 0, ()),
        "columns.npy": (X, 0, ()),
        "x.npz": (X, 12000, ()),
        "named.npz": (X[::-1], 500, ("b", "a")),
        "only.npz": (X, 0, ()),
        "m.mat": (X[:1], 0, ("*_DE_time",)),
        "one.mat": (X, 25600, ()),
        "plain.csv": (X, 0, ()),
        "named.csv": (X[1:], 0, ("right",)),
    }


def test_every_kind_of_file_bit_for_bit(tmp_path):
    for name, (expected, rate, variables) in write_all(tmp_path / "f").items():
        x, own = read_signal(tmp_path / "f" / name, variables)
        assert x.tobytes() == np.ascontiguousarray(expected, np.float64).tobytes(), name
        assert (x.shape, own) == (expected.shape, rate), name


def test_files_that_hold_no_signal(tmp_path):
    write_all(tmp_path / "f")
    v73 = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" ") + b"\x89HDF\r\n\x1a\n"
    np.savez(tmp_path / "pickle.npz", x=np.array([{}], dtype=object))
    (tmp_path / "text.csv").write_text("1,2\n3,four\n")
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    np.save(tmp_path / "complex.npy", X + 1j)
    for name, content in (("v73.mat", v73), ("a.mat", b"no"), ("a.wav", b"RIFF"), ("a.npz", b""), ("a.npy", b"\x93N")):
        (tmp_path / name).write_bytes(content)
    expected = {
        "v73.mat": "MATLAB 7.3 .HDF5., save it with -v7",
        "f/m.mat": "several variables, name one with --variable",
        "f/named.npz": "several variables",
        "cube.npy": "neither .length. nor",
        "complex.npy": "values of type complex128",
        "none.wav": "missing",
    }
    for name in (*expected, "a.mat", "a.wav", "a.npz", "a.npy", "pickle.npz", "text.csv"):
        with pytest.raises(BadSample, match=expected.get(name, "undecodable")):
            read_signal(tmp_path / name)
    with pytest.raises(BadSample, match="no variable y"):
        read_signal(tmp_path / "f" / "x.npz", ("y",))


def spectrum(x: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and amplitudes of the middle of a signal, by a window of low side lobes, between the bins as well."""
    x = x[len(x) // 8 : -len(x) // 8]
    window = np.blackman(len(x)) ** 2
    n = 8 * len(x)
    return np.fft.rfftfreq(n, 1 / rate), 2 * np.abs(np.fft.rfft(x * window, n)) / window.sum()


@pytest.mark.parametrize(
    ("rate", "to"), [(48000, 12000), (44100, 16000), (8000, 12000), (25600, 12000), (51200.5, 12800.125)]
)
def test_resampling_keeps_tones_and_removes_aliases(rate, to):
    t = np.arange(40_000) / rate
    low = min(rate, to) / 2
    kept = resample(np.sin(2 * np.pi * 0.31 * low * t)[None], rate, to)[0]
    assert len(kept) == np.ceil(40_000 * to / rate)
    frequency, amplitude = spectrum(kept, to)
    assert abs(frequency[amplitude.argmax()] - 0.31 * low) <= frequency[1]
    far = np.abs(frequency - 0.31 * low) > 100 * frequency[1]
    assert amplitude.max() == pytest.approx(1, abs=1e-3)
    assert amplitude[far].max() < 1e-4
    exact = np.sin(2 * np.pi * 0.31 * low * np.arange(len(kept)) / to)  # same phase: sample 0 stays at 0 s
    assert np.abs(kept - exact)[200:-200].max() < 1e-3
    edge = resample(np.sin(2 * np.pi * 0.89 * low * t)[None], rate, to)[0]
    assert spectrum(edge, to)[1].max() == pytest.approx(1, abs=1e-3)
    if to < rate:
        for above in (1.01, 1.2, 1.5):  # parts of the new Nyquist frequency; all below the old one
            alias = resample(np.sin(2 * np.pi * above * low * t + 1)[None], rate, to)[0]
            assert spectrum(alias, to)[1].max() < 3e-4


def test_resampling_of_level_slope_and_odd_rates():
    line = np.arange(2.0, 402.0)[None]
    assert np.allclose(resample(line, 48000, 12000)[0], line[0, ::4], atol=1e-9)  # no step where the recording ends
    assert resample(line, 100.0, 100) is line
    with pytest.raises(ConfigError, match="smaller ratio"):
        resample(line, 44100.0007, 12000)


def test_windows_are_cut_after_resampling(tmp_path):
    folder = one_file(tmp_path, X)
    source = recordings(folder, Windows(100, 50, rate=12000, source_rate=48000))
    made = items(source)
    whole = resample(X, 48000, 12000).astype(np.float32)
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


def test_apportion_by_largest_remainder():
    assert apportion(20, [0.7, 0.15, 0.15]) == [14, 3, 3]
    assert apportion(4, [0.7, 0.15, 0.15]) == [2, 1, 1]
    assert apportion(2, [0.7, 0.15, 0.15]) == [1, 1, 0]
    assert apportion(1, [0.5, 0.5]) == [1, 0]
    assert apportion(1000, [0.8, 0.2]) == [800, 200]
    for n in range(1, 60):
        counts = apportion(n, [0.6, 0.3, 0.1])
        assert sum(counts) == n
        assert min(counts) >= (n >= 3)


def test_split_is_by_recording_stratified_and_seeded():
    found = [Recording(Path(f"{i}"), str(i), f"r{i // 2}", "abc"[i // 2 % 3]) for i in range(120)]  # two files each
    shares = {"validation": 0.2, "test": 0.1}
    sets = split(found, shares, 0)
    by_recording = {one.name: set() for one in found}
    for one, name in zip(found, sets, strict=True):
        by_recording[one.name].add(name)
    assert {len(names) for names in by_recording.values()} == {1}
    for label in "abc":
        counts = Counter(name for one, name in zip(found, sets, strict=True) if one.label == label)
        assert counts == {"train": 28, "validation": 8, "test": 4}
    assert split(found, shares, 0) == sets
    assert split(found, shares, 1) != sets
    assert split(found, {"validation": 0, "test": 0}, 0) == ("",) * 120
    with pytest.raises(ConfigError, match="less than 1"):
        split(found, {"validation": 0.5, "test": 0.5}, 0)
    with pytest.raises(ConfigError, match="too few for a test"):
        split(found[:4], shares, 0)


def test_no_recording_is_in_two_sets(tmp_path):
    for i in range(12):
        one_file(tmp_path, X[0] + i, f"{'ab'[i % 2]}/{i}.npy")
    command = [*TOOL, "recordings", str(tmp_path / "set"), str(tmp_path / "s"), "--length", "100", "--hop", "25"]
    command += ["--source-rate", "1000", "--validation", "0.2", "--test", "0.2", "--processes", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen: dict[str, set[str]] = {}
    for name in ("train", "validation", "test"):
        assert str(tmp_path / "s" / name) in done.stdout
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
    source = recordings(tmp_path / "list.csv", Windows(100, 100), shares={"validation": 0.3})
    assert source.splits == ("train", "test", "train", "train")
    made = pack_source(source, tmp_path / "s")
    assert [(Path(one["folder"]).name, one["samples"]) for one in made] == [("train", 30), ("test", 10)]
    (tmp_path / "list.csv").write_text("\n".join(rows).replace("test,1", "test,0") + "\n")
    with pytest.raises(DataError, match="recording 0 is in 'train'"):  # of two sets
        recordings(tmp_path / "list.csv", Windows(100, 100))
