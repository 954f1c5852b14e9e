"""Signals from the command line: results by recording beside baselines, and groups on both sides told everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.recordings import recorded
from helpers.small_runs import SMALL

from savae_dist.pipeline.card.card_data import CardFacts
from savae_dist.pipeline.card.model_card import model_card
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.train import main as train
from tools import evaluate

BOTH = "group m2 stands on both sides: this measures memory"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for two steps on machines 1 to 4, validated on 2 and 5."""
    folder = tmp_path_factory.mktemp("signals")
    training = recorded(folder / "training", {"m1": "low", "m2": "high", "m3": "low", "m4": "high"})
    validation = recorded(folder / "validation", {"m5": "low", "m2": "high"})
    sets = [f"data.train={training}", f"data.validation={validation}", f"output={folder / 'run'}"]
    assert train(["system.name=savae", *SMALL, *sets]) == 0
    return folder / "run"


def test_a_group_on_both_sides_is_told_at_the_start_in_the_status_and_on_the_card(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([str(run / "config.yaml"), "--check"]) == 0
    told = capsys.readouterr().out
    assert f"warning:    {BOTH}" in told
    assert "its stages see 7, 13, 26 samples (those of eq 9), then " in told
    assert BOTH in json.loads((run / "status.json").read_text())["warnings"]
    summary = json.loads((run / "summary.json").read_text())
    assert f"**Of the metrics below: {BOTH}.**" in model_card(
        Pipeline.from_pretrained(run), "pipeline", CardFacts(summary)
    )


def test_baselines_stand_beside_the_model(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps teach the network nothing; the hums are told apart by their spectra."""
    assert evaluate.main([str(run), str(tmp_path)]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())["by_recording"]
    assert found["note"] == BOTH
    assert found["chance"]["balanced_accuracy"] == 0.5
    for name in ("logistic regression on spectra", "Mahalanobis distance on spectra"):
        assert found[name]["balanced_accuracy"] == 1
        assert found[name]["machines"] == {"m2": 1, "m5": 1}
        assert found[name]["recordings"] == 4
    printed = capsys.readouterr().out
    assert f"warning: {BOTH}" in printed
    assert "logistic regression on spectra           1.000 [1.000, 1.000]" in printed
    assert found["model"].keys() == found["chance"].keys()


def test_the_decoder_stands_beside_real_windows(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps teach the decoder nothing: its windows are far from real ones, and no classifier learns from them."""
    assert evaluate.main([str(run), str(tmp_path)]) == 0
    values = json.loads((tmp_path / "metrics.json").read_text())
    # The run knows what it was trained on, and so the class means.
    assert values["class_mean_log_spectral_distance"] < values["log_spectral_distance"]
    found = values["decoder"]
    assert (found["windows"], found["recordings"], found["made"], found["seed"]) == (56, 4, 112, 0)
    assert found["spectra"]["reconstructions"]["variance"] < 0.5 < found["spectra"]["real, never seen"]["variance"]
    nearest = {kind: each["nearest"]["value"] for kind, each in found["spectra"].items()}
    assert nearest["made"] > nearest["training"] > nearest["real, never seen"] == 0  # both sets hum the same
    for classifier in ("logistic regression on spectra", "Mahalanobis distance on spectra"):
        assert found["trained_on"]["real windows"][classifier] == values["by_recording"][classifier]
        assert found["trained_on"]["made windows"][classifier]["balanced_accuracy"] <= 0.75
    printed = capsys.readouterr().out
    assert "decoder: 112 windows made, seed 0; 56 real windows of 4 recordings; 95 % over recordings" in printed
    assert "reconstructions of real windows" in printed
