"""Rows and tables of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

from savae_dist.sweeps import results
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
    lines = results.markdown(rows, ["system.name", "seed"], ["accuracy", "sharpness"]).splitlines()
    assert lines == [
        "| system.name | runs | accuracy |",
        "| --- | --- | --- |",
        "| savae | 2 | 0.85 ± 0.071 |",
        "| dcgan | 1, 1 DivergedError | - |",
    ]


def test_what_an_evaluation_did_not_measure_hides_no_baseline(tmp_path: Path) -> None:
    """evaluate.py is not given the training set; the run knows the baselines of its own validation set, no other's."""
    (trial,) = combine("mnist_k2", tmp_path, [f"data.validation={tmp_path / 'test'}"])
    (trial.folder / "evaluation").mkdir(parents=True)
    (trial.folder / "summary.json").write_text(json.dumps({"accuracy": 0.8, "class_mean_mse": 0.05}))
    (trial.folder / "evaluation" / "metrics.json").write_text(json.dumps({"accuracy": 0.9, "class_mean_mse": None}))
    for shards_, baseline in ((tmp_path / "test", 0.05), (tmp_path / "other", None)):
        (trial.folder / "evaluation" / "asked.json").write_text(json.dumps({"shards": str(shards_), "judge": None}))
        values = results.row(trial)
        assert (values["accuracy"], values.get("class_mean_mse")) == (0.9, baseline)
