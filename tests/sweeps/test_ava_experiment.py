"""Nguyen's experiment: eq 17 by hand, the images, the cells and their table."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from savae_dist.sweeps import ava_experiment as experiment


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


def test_other_images_are_other_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "RATES", ("0.1", "0.2"))
    images = experiment.photographs()[:, ::10, ::10]
    found = [experiment.packed(x, tmp_path) for x in (images, images[::-1].copy(), images)]
    assert found[0] == found[2] != found[1]
    cells = [{t.folder for t in experiment.cells(tmp_path, ["vae"], shards, [])} for shards in found]
    assert not cells[0] & cells[1]
    relative = experiment.packed(images, Path(os.path.relpath(tmp_path)))
    assert relative.resolve() == found[0].resolve()


def test_gray_images_may_have_a_channel(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (3, 8, 9), np.uint8)
    np.savez(tmp_path / "gray.npz", x=gray[..., None])
    assert np.array_equal(experiment.read(tmp_path / "gray.npz"), gray)
