"""Nguyen's experiment: eq 17 by hand, its table, and two cells of it from the command line."""

from __future__ import annotations

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from savae_dist.pipeline.pipeline import Pipeline
from tools import ava_experiment as experiment
from tools import sweep
from tools.trials import Trial


def test_equation_17_by_hand() -> None:
    """Two images of 1x2 pixels; the distances of the pixels' colours are 5, 0 and 0, 13."""
    images = np.zeros((2, 1, 2, 3))
    images[0, 0, 0] = (3, 4, 0)
    images[1, 0, 1] = (3, 4, 12)
    assert experiment.equation_17(np.zeros((1, 2, 3)), images) == pytest.approx(((5 + 0) / 2 + (0 + 13) / 2) / 2 / 2)
    grey = np.array([[[0.0, 1.0]], [[0.5, 0.5]]])  # a grey pixel's norm is its distance
    assert experiment.equation_17(np.zeros((1, 2)), grey) == pytest.approx(0.5 * 0.5)


def test_the_photographs_are_ten_different_crops_zoomed_out_three_times() -> None:
    images = experiment.photographs()
    assert (images.shape, images.dtype) == ((10, 60, 83, 3), np.uint8)
    assert len({image.tobytes() for image in images}) == 10
    assert images.std() > 40


def test_the_paper_s_nineteen_rates() -> None:
    assert len(experiment.RATES) == 19
    assert [float(rate) for rate in experiment.RATES[:2] + experiment.RATES[9:11]] == [1, 0.9, 0.1, 0.09]
    assert float(experiment.RATES[-1]) == 0.01


def test_a_table_has_a_line_per_rate_and_leaves_out_what_diverged() -> None:
    rows = [
        {"system": member, "learning_rate": rate, "outcome": "done", "eq_17": 0.1 + 0.1 * (rate == "1")}
        for member in experiment.MEMBERS
        for rate in experiment.RATES
    ]
    rows[1] = {"system": "vae", "learning_rate": "0.9", "outcome": "DivergedError", "exit_code": 70}
    table = experiment.table(rows, experiment.MEMBERS, "eq_17")
    lines = [line.strip("| ").split(" | ") for line in table]
    by_name = {line[0]: line[1:] for line in lines}
    assert by_name["0.9"][:2] == ["diverged", "0.1000"]
    assert by_name["mean"][:2] == [f"{0.1 + 0.1 / 18:.4f}", f"{0.1 + 0.1 / 19:.4f}"]
    assert by_name["minimum"] == ["0.1000"] * 6
    values = [0.2] + [0.1] * 18
    assert by_name["deviation"][1] == f"{np.std(values, ddof=1):.4f}"
    assert by_name["published mean"][:2] == ["0.2454", "0.1787"]
    assert len(lines) == 2 + 19 + 4


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
    assert experiment.main(arguments) == 0
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
    assert experiment.main(arguments) == 0
    assert [(run / "status.json").stat().st_mtime_ns for run in (broken, folder)] == ends
    assert "Eq 17 of the mean image: 0." in capsys.readouterr().out


def test_a_cell_that_failed_is_named_and_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(trial: Trial, launch: str | None) -> None:
        trial.folder.mkdir(parents=True)
        (trial.folder / "status.json").write_text(json.dumps({"outcome": "DataError", "exit_code": 65}))

    monkeypatch.setattr(sweep, "run", fail)
    monkeypatch.setattr(experiment, "RATES", ("0.1", "0.2"))
    assert experiment.main([str(tmp_path / "out"), "--members", "vae,ava1"]) == 1
    printed = capsys.readouterr()
    assert "| 0.1 | DataError | DataError |" in printed.out
    assert re.search(r"ava1 at 0.1: DataError; see .*out/ava1/.*\.log", printed.err)


def test_other_images_are_other_runs(tmp_path: Path) -> None:
    images = experiment.photographs()[:, ::10, ::10]
    found = [experiment.packed(x, tmp_path) for x in (images, images[::-1].copy(), images)]
    assert found[0] == found[2] != found[1]
    cells = [{t.folder for t in experiment.cells(tmp_path, ["vae"], shards, [])} for shards in found]
    assert not cells[0] & cells[1]
    relative = experiment.packed(images, Path(os.path.relpath(tmp_path)))
    assert relative.resolve() == found[0].resolve()


@pytest.mark.parametrize("change", ["seed=0,1", "data.validation=elsewhere", "system.lean=none"])
def test_changes_that_cannot_be_are_one_line(change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Several values, a key that is the experiment's, an option that the VAE does not have."""
    assert experiment.main([str(tmp_path / "out"), change]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_gray_images_may_have_a_channel(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (3, 8, 9), np.uint8)
    np.savez(tmp_path / "gray.npz", x=gray[..., None])
    assert np.array_equal(experiment.read(tmp_path / "gray.npz"), gray)


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
    assert experiment.main([str(tmp_path / "out"), "--images", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
