"""Rows and tables of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from savae_dist.pipeline.card.card_data import flat
from savae_dist.sweeps import results, running
from savae_dist.sweeps.running import OWN
from savae_dist.sweeps.trials import combine


def test_the_table_is_mean_and_deviation_over_seeds() -> None:
    rows = [
        {"system.name": name, "seed": seed, "exit_code": code, "outcome": outcome, "accuracy": value}
        for name, seed, code, outcome, value in (
            ("savae", "0", 0, "done", 0.9),
            ("savae", "1", 0, "done", 0.8),
            ("dcgan", "0", 0, "done", None),
            ("dcgan", "1", 70, "DivergedError", None),
        )
    ]
    lines = results.markdown(results.table(rows, ["system.name", "seed"], ["accuracy", "sharpness"])).splitlines()
    assert lines == [
        "| system.name | runs | accuracy |",
        "| --- | --- | --- |",
        "| savae | 2 | 0.85 ± 0.071 |",
        "| dcgan | 1, 1 DivergedError | - |",
    ]


def test_warnings_stand_in_the_table() -> None:
    collapsed = "the posterior has collapsed"
    rows = [
        {"system.beta": beta, "seed": seed, "exit_code": 0, "outcome": "done", "kl": 1.0, "warnings": warnings}
        for beta, seed, warnings in (("1", "0", ""), ("1", "1", ""), ("4", "0", collapsed), ("4", "1", collapsed))
    ]
    lines = results.table(rows, ["system.beta", "seed"], ["kl"])
    assert results.table(rows, ["system.beta", "seed"], ["kl", "warnings"]) == lines
    assert lines == [
        ["system.beta", "runs", "kl", "warnings"],
        ["1", "2", "1 ± 0", "none"],
        ["4", "2", "1 ± 0", collapsed],
    ]


def test_what_an_evaluation_did_not_measure_hides_no_baseline(tmp_path: Path) -> None:
    """evaluate.py is not given the training set; the run knows the baselines of its own validation set, no other's."""
    (trial,) = combine("mnist_k2", tmp_path, [f"data.validation={tmp_path / 'test'}"])
    (trial.folder / "evaluation").mkdir(parents=True)
    (trial.folder / "summary.json").write_text(json.dumps({"accuracy": 0.8, "class_mean_mse": 0.05}))
    (trial.folder / "evaluation" / "metrics.json").write_text(json.dumps({"accuracy": 0.9, "class_mean_mse": None}))
    for shards_, baseline in ((tmp_path / "test", 0.05), (OWN, 0.05), (tmp_path / "other", None)):
        (trial.folder / "evaluation" / "asked.json").write_text(json.dumps({"shards": str(shards_), "judge": None}))
        values = results.row(trial)
        assert (values["accuracy"], values.get("class_mean_mse")) == (0.9, baseline)


def test_numbers_within_are_named_by_their_path() -> None:
    values = {"accuracy": 0.5, "by": {"model": {"auroc": 0.75, "name": "x", "ends": [0, 1]}, "none": None}}
    assert flat(values) == {"accuracy": 0.5, "by.model.auroc": 0.75}


def test_an_evaluation_without_shards_is_of_each_run_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = combine("mnist_k2", tmp_path, [])
    (trial.folder / "evaluation").mkdir(parents=True)
    (trial.folder / "status.json").write_text(json.dumps({"outcome": "done", "exit_code": 0}))
    said = []
    monkeypatch.setattr(running, "_logged", lambda command, _: said.append(command[-3:]) or 0)
    running.evaluate(trial, "shards", None)
    running.evaluate(trial, OWN, None)
    folder, out = str(trial.folder), str(trial.folder / "evaluation")
    assert said[0] == [folder, "shards", out]
    assert said[1][-2:] == [folder, out]
    assert json.loads((trial.folder / "evaluation" / "asked.json").read_text()) == {"shards": OWN, "judge": None}
