"""Evaluation from the command line, on tiny runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.html_pages import check_page
from helpers.small_runs import trained

from savae_dist.data import pack
from savae_dist.evaluation import metrics, report
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.train import main
from tools import evaluate


@pytest.fixture(scope="module")
def generator(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("dcgan", data, tmp_path_factory.mktemp("generator") / "run")


def test_evaluate_says_what_does_not_apply(
    data: Path, judge: Path, generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A generator has samples to measure, and no reconstructions."""
    out = tmp_path / "out"
    arguments = [str(generator), str(data), str(out), "--judge", str(judge), "--training", str(data), "--samples", "20"]
    assert evaluate.main(arguments) == 0
    values = json.loads((out / "metrics.json").read_text())
    assert all(
        values[name] is None for name in ("accuracy", "reconstruction_mse", "kl", "class_flip_rate", "sharpness")
    )
    assert all(values[name] > 0 for name in ("class_mean_mse", "frechet_distance", "frechet_floor", "sample_sharpness"))
    assert {path.stem for path in (out / "figures").iterdir()} - {"training_curves"} == {"samples"}
    printed = capsys.readouterr().out
    assert "frechet_distance" in printed
    assert "reconstruction_mse" in next(line for line in printed.splitlines() if line.startswith("does not apply"))


def test_evaluate_games_its_classifier_and_asks_the_judge(
    data: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pipeline itself as the judge always agrees."""
    out = tmp_path / "out"
    assert evaluate.main([str(judge), str(data), str(out), "--judge", str(judge), "--samples", "9", "--gaming"]) == 0
    values = json.loads((out / "metrics.json").read_text())
    assert 0 < values["gaming_reached"] <= 1
    assert values["gaming_move"] > 0
    assert values["gaming_distance"] > 0
    assert values["gaming_judge_agreement"] == 1
    assert "gaming_move" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        evaluate.main([str(judge), str(data), str(out), "--gaming"])
    assert "--gaming needs --judge" in capsys.readouterr().err


def test_evaluate_gives_the_metrics_of_the_package(data: Path, judge: Path, tmp_path: Path) -> None:
    assert evaluate.main([str(judge), str(data), str(tmp_path / "out")]) == 0
    page = check_page(tmp_path / "out" / "report.html")
    assert "worst reconstructions" in [str(image["alt"]) for image in page.all("img")]
    assert f"Evaluation of {judge}" in page.text
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())
    pipeline = Pipeline.from_pretrained(judge)
    reader = report.open_reader(str(data), pipeline)
    expected = metrics.summarise(metrics.measure(pipeline, report.batches(reader)))
    assert {name: values[name] for name in expected} == expected
    assert expected["accuracy"] is not None
    assert values["class_mean_mse"] is None  # no training set was named
    assert "frechet_distance" not in values  # and no judge


@pytest.mark.parametrize("wrong", ["pipeline", "shards", "shape", "judge"])
def test_evaluate_ends_in_one_line(
    wrong: str, data: Path, generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(np.zeros((4, 9, 9), np.uint8), np.zeros(4, np.int64), tmp_path / "other")
    arguments = {"pipeline": str(generator), "shards": str(data), "out": str(tmp_path / "out")}
    arguments |= {"shape": {"shards": str(tmp_path / "other")}, "judge": {}}.get(wrong, {wrong: str(tmp_path / "none")})
    judging = ["--judge", str(generator)] if wrong == "judge" else []
    assert evaluate.main([*arguments.values(), *judging]) != 0
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("evaluate: ")


def test_a_run_is_measured_on_what_it_held_out(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["system.name=vae", "networks.width=2", "data.batch_size=16", "max_steps=2", f"data.train={data}"]
    for name, more in (("held", ["data.hold_out=0.3"]), ("named", [f"data.validation={data}"]), ("none", [])):
        assert main([*small, *more, f"output={tmp_path / name}"]) == 0
    for name in ("held", "named"):
        assert evaluate.main([str(tmp_path / name), "--samples", "9", str(tmp_path / "out")]) == 0
        values = json.loads((tmp_path / "out" / "metrics.json").read_text())
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert values["reconstruction_mse"] == pytest.approx(summary["reconstruction_mse"], rel=1e-5)
    capsys.readouterr()
    assert evaluate.main([str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert "neither data.validation nor data.hold_out: name shards" in capsys.readouterr().err
    assert evaluate.main([str(tmp_path / "held" / "pipeline"), str(tmp_path / "out")]) == 2
    assert "is no run's folder" in capsys.readouterr().err


def test_evaluate_reads_attributes_from_codes_and_draws_them(
    data: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the classes, with a second view, which is the same one here."""
    out, other = tmp_path / "out", judge / "pipeline"
    both = ["--training", str(data), "--attributes", "class", "--view", str(other), "--features", str(other)]
    assert (
        evaluate.main([str(judge), str(data), str(out), *both, "--probes", "--nearest", "--mosaic", "--samples", "9"])
        == 0
    )
    values = json.loads((out / "metrics.json").read_text())
    table = (out / "attributes.md").read_text()
    assert table in capsys.readouterr().out
    assert list(values["attributes"]) == ["most frequent", str(judge), str(other), "all views"]
    assert values["attributes"][str(judge)] == values["attributes"][str(other)]
    assert values["protocol"]["features"] == f"last hidden layer of the conv_encoder of {other}"
    assert values["nearest_training_real"] == 0  # they are the training samples
    assert values["nearest_training"] > 0
    assert 0 < values["linear_probe"] <= 1
    drawn = {"attribute_vectors", "attribute_arithmetic", "code_mosaic", "interpolation", "confusion_matrix"}
    assert drawn <= {path.stem for path in (out / "figures").glob("*.svg")}
    assert drawn <= {path.stem for path in (out / "figures").glob("*.png")}
    for wrong in (["--view", str(other)], ["--probes"], ["--nearest"]):
        with pytest.raises(SystemExit):
            evaluate.main([str(judge), str(data), str(out), *wrong])
        assert "--training" in capsys.readouterr().err


def test_titles_name_the_run_and_the_step(judge: Path) -> None:
    checkpoint = next((judge / "checkpoints").iterdir())
    assert evaluate.where(str(judge)) == f"{judge.name}, step 4"  # two phases of two
    assert evaluate.where(str(checkpoint)) == f"{judge.name}, step {int(checkpoint.name.split('-')[1])}"
    assert evaluate.where("somebody/model") == "somebody/model"
