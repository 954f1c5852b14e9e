"""Alarms: ranks that hold their rate, runs of recordings, and a machine that breaks in the middle of its life."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.recordings import RATE, hum

from savae_dist.evaluation.signals import anomaly
from savae_dist.networks import ConvDecoder, ConvEncoder
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from tools import evaluate, make_shards

SIGNALS = DataSpec("signal", (1, 256), 0, "none", rate=float(RATE))


def test_a_threshold_keeps_the_rate_that_it_tells() -> None:
    """Of 9 healthy machines and a new one of the same kind, the new one is above the ninth in one case of ten."""
    random = np.random.default_rng(0)
    drawn = random.normal(size=(20_000, 10))
    limits = [anomaly.threshold(row[:9], 0.2) for row in drawn]
    assert [rate for _, rate in limits] == pytest.approx([0.2] * len(limits))
    assert np.mean([row[9] > limit for row, (limit, _) in zip(drawn, limits)]) == pytest.approx(0.2, abs=0.01)
    assert anomaly.threshold(np.arange(6.0), 0.01) == (5.0, pytest.approx(1 / 7))  # so few promise no lower rate


def test_recordings_in_a_row() -> None:
    values = np.array([1.0, 5, 2, 6, 7, 3])
    assert anomaly.in_a_row(values, 2).tolist() == [-math.inf, 1, 2, 2, 6, 3]
    assert anomaly.first_alarm(values, 4.5, 2) == pytest.approx(5 / 6)
    assert anomaly.first_alarm(values, 4.5, 1) == pytest.approx(2 / 6)
    assert anomaly.first_alarm(values, 8, 1) is None
    assert anomaly.in_a_row(values[:1], 2).tolist() == [-math.inf]


def test_scores_are_standardised_by_the_healthy_alone() -> None:
    kinds = {"a": np.array([0.0, 1, 2, 3, 4, 100]), "b": np.array([0.0, 10, 20, 30, 40, 40])}
    found = anomaly.combined(kinds, anomaly.scales(kinds, np.arange(5)))
    np.testing.assert_allclose(found, [-1, -0.5, 0, 0.5, 1, (49 + 1) / 2])


def test_late_against_early_is_the_mean_over_machines() -> None:
    values = np.array([0.0, 1, 2, 3, 4, 9, 9, 9, 9, 0])
    assert anomaly.late_against_early(values, np.repeat([0, 1], 5)) == 0.5


def life(folder: Path, machine: str, frequencies: list[float], seed: int) -> list[str]:
    for number, frequency in enumerate(frequencies):
        np.save(folder / f"{machine}_{number:02d}.npy", hum(frequency, 100 * seed + number, 0.6))
    return [f"{machine}_{number:02d}.npy,,{machine},{RATE}" for number in range(len(frequencies))]


def packed(folder: Path, machines: dict[str, list[float]]) -> Path:
    folder.mkdir()
    rows = [row for seed, (name, life_of) in enumerate(machines.items()) for row in life(folder, name, life_of, seed)]
    (folder / "list.csv").write_text("\n".join(["path,label,machine,rate", *rows]))
    options = ["--length", "256", "--hop", "128", "--processes", "1"]
    assert make_shards.main(["recordings", str(folder / "list.csv"), str(folder / "shards"), *options]) == 0
    return folder / "shards"


def test_a_machine_that_breaks_is_told_from_one_that_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    networks = {
        "encoder": ConvEncoder(SIGNALS.shape, 2, 2),
        "decoder": ConvDecoder(SIGNALS.shape, 2, 2, output="linear"),
    }
    Pipeline(networks, SIGNALS).save_pretrained(tmp_path / "pipeline")
    healthy = packed(tmp_path / "healthy", {f"h{number}": [60.0] * 6 for number in range(4)})
    tested = packed(tmp_path / "tested", {"broken": [60.0] * 6 + [220.0] * 4, "sound": [60.0] * 10})
    words = [str(tmp_path / "pipeline"), str(tested), str(tmp_path / "out"), "--anomaly", "--healthy", str(healthy)]
    assert evaluate.main(words) == 0
    found = json.loads((tmp_path / "out" / "anomaly.json").read_text())
    assert found.keys() == {"features", "spectrum", "density", *("combined", "RMS", "kurtosis"), anomaly.MAHALANOBIS}
    assert found[anomaly.MAHALANOBIS]["health"].keys() == set(anomaly.INDEX)
    assert found[anomaly.MAHALANOBIS]["alarms"] == {"broken": 0.9, "sound": None}  # the third recording in a row
    assert found[anomaly.MAHALANOBIS]["false_alarm_rate"] == pytest.approx(0.2)  # 0.1 was asked for
    assert "false alarms on 20.0% of healthy machines" in capsys.readouterr().out
    one = packed(tmp_path / "one", {"h0": [60.0] * 3})
    assert evaluate.main([*words[:-1], str(one)]) == 2
    assert "at least two machines" in capsys.readouterr().err


def test_a_pipeline_scores_raw_windows() -> None:
    torch.manual_seed(0)
    pipeline = Pipeline({"encoder": ConvEncoder(SIGNALS.shape, 2, 2)}, SIGNALS, batch_size=4)
    x = np.random.default_rng(0).normal(size=(10, 256)).astype(np.float32)
    found = pipeline.score(x)
    assert found.keys() == {"density"}
    np.testing.assert_allclose(found["density"], 0.5 * (pipeline.encode(x).mean.numpy() ** 2).sum(1), rtol=1e-5)
