"""What the packer says of sources that are not as it expects them: what there is, and the option that decides."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from savae_dist.data import Shards
from tools.make_shards import main

X = np.random.default_rng(0).standard_normal((2, 400))


def image(path: Path, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros(size, np.uint8)).save(path)


def packed(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    """The exit code, and all that was said."""
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out + said.err


# Folders that are no classes.


def test_one_folder_around_the_classes_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat", "dog"):
        image(tmp_path / "set" / "data" / name / "1.png")
    code, said = packed(capsys, "images", tmp_path / "set", tmp_path / "out")
    assert code == 0
    assert "names  data" in said
    assert "data: of the first folder; --label parent takes the last (cat, dog)" in said


def test_files_beside_the_folders_of_classes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat/1.png", "dog/1.png", "3.png", "4.png"):
        image(tmp_path / "set" / name)
    code, said = packed(capsys, "images", tmp_path / "set", tmp_path / "out")
    assert code == 0
    assert "2 files in no folder of a class are unlabelled (3.png)" in said


def test_sets_among_recordings_under_any_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("Training", "DEV", "testing"):
        for name in ("inner", "outer"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            np.save(tmp_path / "set" / split / name / "1.npy", X[0])
    code, said = packed(capsys, "recordings", tmp_path / "set", tmp_path / "out", "--length", 100)
    assert code == 0
    assert "DEV (validation), Training (train), testing (test)" in said
    for split in ("train", "validation", "test"):
        assert Shards.open(tmp_path / "out" / split).spec.class_names == ("inner", "outer")


# A pattern that matches several.


@pytest.mark.parametrize("kind", ["mat", "npz", "h5"])
def test_of_several_that_match_the_one_that_bears_the_file_s_number(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    held = {"X098_DE_time": X[0], "X099_DE_time": X[1]}
    folder = tmp_path / "set" / "normal"
    folder.mkdir(parents=True)
    if kind == "mat":
        savemat(folder / "99.mat", held)
    elif kind == "npz":
        np.savez(folder / "099.npz", **held)
    else:
        with h5py.File(folder / "99.h5", "w") as file:
            for name, values in held.items():
                file[name] = values
    words = ["recordings", tmp_path / "set", tmp_path / "out", "--length", 100, "--variable", "*_DE_time"]
    code, said = packed(capsys, *words)
    assert code == 0
    assert "channels  X099_DE_time" in said
    assert "left out  X098_DE_time (not asked for)" in said


def test_a_match_of_one_more_says_what_it_has_and_what_the_others_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, held in (("a", {"A_DE": X[0]}), ("b", {"A_DE": X[0], "B_DE": X[1]})):
        (tmp_path / "set" / name).mkdir(parents=True)
        np.savez(tmp_path / "set" / name / "run.npz", **held)
    words = ["recordings", tmp_path / "set", tmp_path / "out", "--length", 400, "--variable", "*_DE"]
    code, said = packed(capsys, *words)
    assert code == 65
    assert "shape: 1 (b/run.npz at 0: float32 [2, 400] and not float32 [400])" in said
    code, said = packed(capsys, *words, "--bad-budget", 1)
    assert code == 0
    assert "A_DE (a/run.npz); A_DE, B_DE (b/run.npz)" in said
    assert "lost as a whole, since no sample of them can be used: b" in said


# Formats that are not read.


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["recordings", "--length", "8"],
            "holds 2 files *.m4a, 1 file *.bin, 1 file without an ending and none that can",
        ),
        (["images"], "holds 2 files *.m4a, 1 file *.bin, 1 file without an ending and none that can"),
        (["table"], "holds 2 files *.m4a, 1 file *.bin, 1 file without an ending and none of .parquet .arrow; for"),
    ],
)
def test_a_folder_of_other_files_is_told_by_what_it_holds(
    tmp_path: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x/a.m4a", "x/b.m4a", "y/c.bin", "y/README"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"1")
    code, said = packed(capsys, words[0], tmp_path / "set", tmp_path / "out", *words[1:])
    assert code == 65
    assert told in said


def test_a_file_of_another_kind_is_told_by_its_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.csv").write_text("1,2\n")
    code, said = packed(capsys, "table", tmp_path / "a.csv", tmp_path / "out")
    assert code == 65
    assert "holds 1 file *.csv and none of .parquet .arrow; for others see `hub csv --data-files FILE`" in said
    code, said = packed(capsys, "arrays", tmp_path / "a.csv", tmp_path / "out")
    assert code == 65
    assert "is missing or not an .npz (it ends in .csv)" in said
    for kind in ("table", "arrays"):
        code, said = packed(capsys, kind, tmp_path / "none.npz", tmp_path / "out")
        assert code == 65
        assert "does not exist" in said


def test_windows_in_tables_have_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"signal": X.astype(np.float32).tolist(), "label": [0, 1]}), tmp_path / "a.parquet")
    code, _ = packed(capsys, "table", tmp_path / "a.parquet", tmp_path / "out", "--rate", 500)
    assert code == 0
    assert Shards.open(tmp_path / "out").spec.rate == 500
