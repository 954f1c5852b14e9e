"""predict, generate and reconstruct: what they write is what the pipeline says, and what is wrong is one line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pictures import photo, saved
from PIL import Image
from scipy.io import wavfile

from savae_dist.data import Shards
from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier
from savae_dist.origin import PictureFiles, Recordings
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.posteriors import PosteriorBank
from savae_dist.preprocess import DataSpec, normalise
from tools import generate, predict, reconstruct

NAMES = ("inner", "outer")
IMAGES = DataSpec("image", (3, 8, 12), 2, "unit", class_names=NAMES, origin=PictureFiles((8, 12), mode="rgb"))
WINDOWS = DataSpec("signal", (1, 32), 2, "window", rate=100.0, class_names=NAMES, origin=Recordings(32, 16))


def saved_pipeline(spec: DataSpec, folder: Path) -> Pipeline:
    torch.manual_seed(0)
    networks = {
        "encoder": ConvEncoder(spec.shape, 2, width=2, pools=1),
        "decoder": ConvDecoder(spec.shape, 2, width=2, pools=1, output="sigmoid" if spec.kind == "image" else "linear"),
        "classifier": DenseClassifier(2, 2, hidden=4),
    }
    bank = PosteriorBank(torch.randn(6, 2), torch.full((6, 2), -4.0), torch.arange(6) % 2)
    pipeline = Pipeline(networks, spec, bank, {"name": "savae"})
    pipeline.save_pretrained(folder)
    return pipeline


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def test_pictures_are_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = saved_pipeline(IMAGES, tmp_path / "saved")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(saved(photo(375, 500, number), "jpeg"))
    assert predict.main([str(tmp_path / "saved"), str(tmp_path / "photos")]) == 0
    rows = read(capsys.readouterr().out)
    x = pipeline.prepared(tmp_path / "photos")
    assert [row["file"] for row in rows] == [str(tmp_path / "photos" / f"{number}.jpg") for number in range(3)]
    assert [row["class"] for row in rows] == pipeline.classify(x).names()
    found = [[float(row[name]) for name in NAMES] for row in rows]
    np.testing.assert_allclose(found, pipeline.classify(x), atol=1e-5)
    own = normalise(torch.from_numpy(x), IMAGES)
    errors = (pipeline.decoded(pipeline.posterior(own).mean) - own).square().flatten(1).mean(1)
    np.testing.assert_allclose([float(row["error"]) for row in rows], errors, rtol=1e-3)


def test_recordings_are_predicted_window_by_window(tmp_path: Path) -> None:
    pipeline = saved_pipeline(WINDOWS, tmp_path / "saved")
    x = np.random.default_rng(0).normal(size=200).astype(np.float32)
    wavfile.write(tmp_path / "a.wav", 200, x)
    assert predict.main([str(tmp_path / "saved"), str(tmp_path / "a.wav"), "--out", str(tmp_path / "a.csv")]) == 0
    rows = read((tmp_path / "a.csv").read_text())
    assert [float(row["seconds"]) for row in rows] == [0, 0.16, 0.32, 0.48, 0.64]
    assert [row["class"] for row in rows] == pipeline.classify(tmp_path / "a.wav").names()
    scores = pipeline.score(pipeline.prepared(tmp_path / "a.wav"))
    assert [*rows[0]][-3:] == [f"score_{kind}" for kind in scores]
    for kind, values in scores.items():
        np.testing.assert_allclose([float(row[f"score_{kind}"]) for row in rows], values, rtol=1e-4)


def test_a_row_for_each_recording_is_the_mean_of_its_windows(tmp_path: Path) -> None:
    pipeline = saved_pipeline(WINDOWS, tmp_path / "saved")
    draws, files = np.random.default_rng(0), []
    for name, length in (("a", 200), ("b", 90)):
        files.append(str(tmp_path / f"{name}.wav"))
        wavfile.write(files[-1], 100, draws.normal(size=length).astype(np.float32))
    arguments = [str(tmp_path / "saved"), *files, "--per-file", "--out", str(tmp_path / "a.csv")]
    assert predict.main(arguments) == 0
    rows = read((tmp_path / "a.csv").read_text())
    assert [row["file"] for row in rows] == files
    for row, file in zip(rows, files, strict=True):
        x = pipeline.prepared(file)
        chances = pipeline.classify(x).mean(0)
        assert int(row["windows"]) == len(x)
        assert row["class"] == NAMES[int(chances.argmax())]
        np.testing.assert_allclose([float(row[name]) for name in NAMES], chances, atol=1e-5)
        for kind, values in pipeline.score(x).items():
            np.testing.assert_allclose(float(row[f"score_{kind}"]), np.mean(values), rtol=1e-4)


def test_what_cannot_be_predicted_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved_pipeline(IMAGES, tmp_path / "saved")
    gone = [str(tmp_path / "saved"), str(tmp_path / "gone.png"), "--out", str(tmp_path / "classes.csv")]
    assert predict.main(gone) == 2
    assert not (tmp_path / "classes.csv").exists()
    assert predict.main([str(tmp_path / "saved"), __file__]) == 2
    assert predict.main([str(tmp_path / "saved"), __file__, "--per-file"]) == 2
    assert predict.main([str(tmp_path / "nowhere"), "a.png"]) == 76
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert all(line.startswith("predict: ") for line in said)


def test_generated_pictures_are_those_of_the_pipeline(tmp_path: Path) -> None:
    pipeline = saved_pipeline(IMAGES, tmp_path / "saved")
    arguments = [str(tmp_path / "saved"), str(tmp_path / "out"), "--count", "3", "--seed", "5"]
    assert generate.main([*arguments, "--label", "outer"]) == 0
    made = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "out").glob("1-*.png"))]
    assert np.array_equal(made, pipeline.generate(3, "outer", 5))
    assert generate.main([*arguments, "--label", "outer"]) == 2  # OUT holds something
    assert generate.main([*arguments, "--label", "left", "--overwrite"]) == 2


def test_each_class_as_shards_and_arrays(tmp_path: Path) -> None:
    pipeline = saved_pipeline(WINDOWS, tmp_path / "saved")
    arguments = [str(tmp_path / "saved"), "--label", "each", "--count", "4"]
    assert generate.main([*arguments, str(tmp_path / "set"), "--format", "shards"]) == 0
    shards = Shards.open(tmp_path / "set")
    assert (shards.size, shards.label_counts) == (8, {0: 4, 1: 4})
    assert (shards.spec.class_names, shards.spec.rate) == (NAMES, 100.0)
    assert generate.main([*arguments, str(tmp_path / "arrays")]) == 0
    held = np.load(tmp_path / "arrays" / "samples.npz")
    assert np.array_equal(held["x"][4:], pipeline.generate(4, 1, 0))
    assert held["y"].tolist() == [0] * 4 + [1] * 4
    assert generate.main([*arguments[:1], str(tmp_path / "wav"), "--format", "wav", "--count", "1"]) == 0
    rate, x = wavfile.read(tmp_path / "wav" / "00000.wav")
    assert (rate, x.dtype) == (100, np.float32)
    assert np.array_equal(x, pipeline.generate(1, seed=0)[0])


@pytest.mark.parametrize(("spec", "form"), [(WINDOWS, "png"), (IMAGES, "wav")], ids=["png", "wav"])
def test_a_format_that_does_not_fit_is_refused(
    tmp_path: Path, spec: DataSpec, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    saved_pipeline(spec, tmp_path / "saved")
    assert generate.main([str(tmp_path / "saved"), str(tmp_path / "out"), "--format", form]) == 2
    assert f"--format {form}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_reconstructions_are_written_and_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = saved_pipeline(IMAGES, tmp_path / "saved")
    file = tmp_path / "a.png"
    file.write_bytes(saved(photo(60, 90), "png"))
    assert reconstruct.main([str(tmp_path / "saved"), str(file), "--out", str(tmp_path / "out")]) == 0
    (made,) = (tmp_path / "out").glob("*.png")
    assert np.array_equal(np.asarray(Image.open(made)), pipeline.reconstruct(file)[0])
    assert capsys.readouterr().out.startswith(f"{file}  0.")
