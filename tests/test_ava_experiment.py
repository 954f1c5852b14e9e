"""Nguyen's experiment: eq 17 by hand, its table, and two cells of it from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from savae_dist.pipeline import Pipeline
from tools import ava_experiment as experiment


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
    lines = [line.strip("| ").split(" | ") for line in experiment.table(rows, "eq_17")]
    by_name = {line[0]: line[1:] for line in lines}
    assert by_name["0.9"][:2] == ["diverged", "0.1000"]
    assert by_name["mean"][:2] == [f"{0.1 + 0.1 / 18:.4f}", f"{0.1 + 0.1 / 19:.4f}"]
    assert by_name["minimum"] == ["0.1000"] * 6
    assert by_name["published mean"][:2] == ["0.2454", "0.1787"]
    assert len(lines) == 2 + 19 + 4


@pytest.mark.slow
def test_cells_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that ends and one that diverges; a second call trains nothing again."""
    monkeypatch.setattr(experiment, "MEMBERS", ("ava2",))
    monkeypatch.setattr(experiment, "RATES", ("1e30", "0.01"))
    images = experiment.photographs()[:, ::4, ::4]
    np.savez(tmp_path / "ten.npz", x=images)
    arguments = [str(tmp_path / "out"), "system.steps=2", "optimizers.default.clip_norm=null", "nonfinite_limit=1"]
    arguments += ["--images", str(tmp_path / "ten.npz")]
    assert experiment.main(arguments) == 0
    with (tmp_path / "out" / "results.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["outcome"], first["exit_code"], first["eq_17"]) == ("DivergedError", "70", "")
    assert (second["outcome"], second["learning_rate"]) == ("done", "0.01")
    (folder,) = (path.parent for path in (tmp_path / "out").glob("*/*/summary.json"))
    pipeline = Pipeline.from_pretrained(folder)
    assert float(second["eq_17"]) == experiment.score(pipeline, images)["eq_17"]
    error = pipeline.reconstruct(images).astype(float) - images
    assert float(second["rmse"]) == pytest.approx(np.sqrt((error**2).mean()) / 255)
    assert json.loads((folder / "status.json").read_text())["outcome"] == "done"

    written = (folder / "summary.json").stat().st_mtime_ns
    assert experiment.main(arguments) == 0
    assert (folder / "summary.json").stat().st_mtime_ns == written
    assert "Eq 17 of the mean image: 0." in capsys.readouterr().out


def test_wrong_images_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "flat.npz", x=np.zeros((10, 4), np.uint8))
    assert experiment.main([str(tmp_path / "out"), "--images", str(tmp_path / "flat.npz")]) == 2
    assert "x must be uint8 [n, height, width(, 3)]" in capsys.readouterr().err
