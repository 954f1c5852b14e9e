"""Nguyen's experiment from the command line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.sweeps import ava_experiment as experiment
from savae_dist.sweeps import running
from savae_dist.sweeps.trials import Trial
from tools.ava_experiment import main


@pytest.mark.slow
def test_cells_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that ends and one that diverges; a second call trains nothing again."""
    monkeypatch.setattr(experiment, "RATES", ("1e30", "0.01"))
    images = experiment.photographs()[:, ::4, ::4]
    np.savez(tmp_path / "ten.npz", x=images)
    arguments = [str(tmp_path / "out"), "system.steps=2", "optimizers.default.clip_norm=null", "nonfinite_limit=1"]
    arguments += ["--images", str(tmp_path / "ten.npz"), "--members", "ava2", "system.lean=none"]
    assert main(arguments) == 0
    with (tmp_path / "out" / "results.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["outcome"], first["exit_code"], first["eq_17"]) == ("DivergedError", "70", "")
    assert (second["outcome"], second["learning_rate"]) == ("done", "0.01")
    broken, folder = (path.parent for path in sorted((tmp_path / "out" / "ava2").glob("*/status.json"), reverse=True))
    pipeline = Pipeline.from_pretrained(folder)
    assert float(second["eq_17"]) == experiment.score(pipeline, images)["eq_17"]
    error = pipeline.reconstruct(images).astype(float) - images
    assert float(second["rmse"]) == pytest.approx(np.sqrt((error**2).mean()) / 255)
    assert json.loads((folder / "status.json").read_text())["outcome"] == "done"

    ends = [(run / "status.json").stat().st_mtime_ns for run in (broken, folder)]
    assert main(arguments) == 0
    assert [(run / "status.json").stat().st_mtime_ns for run in (broken, folder)] == ends
    assert "Eq 17 of the mean image: 0." in capsys.readouterr().out


def test_a_cell_that_failed_is_named_and_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(trial: Trial) -> None:
        trial.folder.mkdir(parents=True)
        (trial.folder / "status.json").write_text(json.dumps({"outcome": "DataError", "exit_code": 65}))

    monkeypatch.setattr(running, "run", fail)
    monkeypatch.setattr(experiment, "RATES", ("0.1", "0.2"))
    assert main([str(tmp_path / "out"), "--members", "vae,ava1"]) == 1
    printed = capsys.readouterr()
    assert "| 0.1 | DataError | DataError |" in printed.out
    assert re.search(r"ava1 at 0.1: DataError; see .*out/ava1/.*\.log", printed.err)


@pytest.mark.parametrize("change", ["seed=0,1", "data.validation=elsewhere", "system.lean=none"])
def test_changes_that_cannot_be_are_one_line(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several values, a key that is the experiment's, an option that the VAE does not have."""
    monkeypatch.setattr(experiment, "RATES", ("0.1", "0.2"))
    assert main([str(tmp_path / "out"), change, "--members", "vae,ava1"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


WRONG = {
    "flat": np.zeros((10, 4), np.uint8),
    "float": np.zeros((10, 4, 4)),
    "five channels": np.zeros((10, 4, 4, 5), np.uint8),
    "one": np.zeros((1, 4, 4), np.uint8),
    "object": np.array([{}] * 3),
}


@pytest.mark.parametrize("kind", [*WRONG, "nowhere", "empty", "text", "npy", "no x"])
def test_wrong_images_are_one_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "images.npz"
    if kind in WRONG:
        np.savez(path, x=WRONG[kind])
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("PK no zip")
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros((3, 4, 4), np.uint8))
    elif kind == "no x":
        np.savez(path, y=np.zeros((3, 4, 4), np.uint8))
    assert main([str(tmp_path / "out"), "--images", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
