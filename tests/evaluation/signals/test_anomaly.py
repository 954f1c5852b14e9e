"""Alarms: ranks that hold their rate, runs of recordings, and a machine that breaks in the middle of its life."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.recordings import RATE, hum

from savae_dist.errors import ConfigError
from savae_dist.evaluation.signals import anomaly, health
from savae_dist.evaluation.signals.by_recording import Windows
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


@pytest.mark.parametrize("asked", [0.01, 0.05, 0.1, 0.2, 0.25, 1 / 3, 0.4, 0.9])
def test_the_machines_that_a_rate_needs_are_told(asked: float) -> None:
    """They are the fewest whose threshold stands for no more than the rate."""
    for machines in range(2, 120):
        _, supported = anomaly.threshold(np.arange(float(machines)), asked)
        told = anomaly.told_rate(machines, asked, supported)
        assert ("are needed" in told) == (supported > asked + 1e-9)
        if "are needed" in told:
            needed = int(told.split("at least ")[1].split()[0])
            assert anomaly.threshold(np.arange(float(needed)), asked)[1] <= asked + 1e-9
            assert anomaly.threshold(np.arange(needed - 1.0), asked)[1] > asked + 1e-9
    if asked == 0.1:
        few = "2 healthy machines support no rate below 33.3 %; for 10 % at least 9 are needed"
        assert anomaly.told_rate(2, 0.1, 1 / 3).splitlines()[1] == few


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
    assert anomaly.late_against_early(values[:6], np.repeat([0, 1], [5, 1])) == 1.0  # one recording has no late part
    assert anomaly.late_against_early(values[:2], np.arange(2)) is None


def test_recordings_are_in_the_order_of_their_names_with_numbers_as_numbers() -> None:
    names = ["day_10", "day_2", "day_9b", "day_9a"]
    one = np.ones(len(names), np.uint64)
    numbers = np.arange(1, len(names) + 1, dtype=np.uint64)
    told = dict(zip(numbers.tolist(), names, strict=True))
    windows = Windows(torch.zeros(4, 1, 8), np.zeros(4), numbers, one, {1: "m"}, told)
    assert [names[rows[0]] for rows in anomaly.Lives.of(windows).order] == ["day_2", "day_9a", "day_9b", "day_10"]
    anomaly.check_order(windows)
    with pytest.raises(ConfigError, match="the names of 1 recordings, and so their order, are not known"):
        anomaly.check_order(replace(windows, told={1: "day_10", 2: "day_2", 3: "day_9b"}))


def test_scores_that_are_no_numbers_are_refused() -> None:
    anomaly.check_finite({"a": np.zeros(3)})
    with pytest.raises(ConfigError, match="the score b is no number on 2 of 3 windows"):
        anomaly.check_finite({"a": np.zeros(3), "b": np.array([0.0, math.nan, math.inf])})


CLASS = {60.0: "healthy", 220.0: "fault"}


def life(folder: Path, machine: str, frequencies: list[float], seed: int, labelled: bool) -> list[str]:
    rows = []
    for number, frequency in enumerate(frequencies):
        np.save(folder / f"{machine}_{number}.npy", hum(frequency, 100 * seed + number, 0.6))
        rows.append(f"{machine}_{number}.npy,{CLASS[frequency] if labelled else ''},{machine},{RATE}")
    return rows


def packed(folder: Path, machines: dict[str, list[float]], labelled: bool = False) -> Path:
    folder.mkdir()
    lives = enumerate(machines.items())
    rows = [row for seed, (name, life_of) in lives for row in life(folder, name, life_of, seed, labelled)]
    (folder / "list.csv").write_text("\n".join(["path,label,machine,rate", *rows]))
    options = ["--length", "256", "--hop", "128", "--processes", "1"]
    assert make_shards.main(["recordings", str(folder / "list.csv"), str(folder / "shards"), *options]) == 0
    return folder / "shards"


def saved(folder: Path, spec: DataSpec = SIGNALS) -> str:
    torch.manual_seed(0)
    networks = {
        "encoder": ConvEncoder(SIGNALS.shape, 2, 2),
        "decoder": ConvDecoder(SIGNALS.shape, 2, 2, output="linear"),
    }
    Pipeline(networks, spec).save_pretrained(folder)
    return str(folder)


def test_a_machine_that_breaks_is_told_from_one_that_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = saved(tmp_path / "pipeline")
    healthy = packed(tmp_path / "healthy", {f"h{number}": [60.0] * 6 for number in range(4)})
    tested = packed(tmp_path / "tested", {"broken": [60.0] * 6 + [220.0] * 4, "sound": [60.0] * 10})
    words = [pipeline, str(tested), str(tmp_path / "out"), "--anomaly", "--healthy", str(healthy)]
    assert evaluate.main(words) == 0
    found = json.loads((tmp_path / "out" / "anomaly.json").read_text())
    assert found.keys() == {"features", "spectrum", "density", *("combined", "RMS", "kurtosis"), anomaly.MAHALANOBIS}
    assert found[anomaly.MAHALANOBIS]["health"].keys() == set(health.MEASURES)
    assert found[anomaly.MAHALANOBIS]["alarms"] == {"broken": 0.9, "sound": None}  # the third recording in a row
    assert found[anomaly.MAHALANOBIS]["false_alarm_rate"] == pytest.approx(0.2)  # 0.1 was asked for
    told = capsys.readouterr().out
    assert "false alarms on 20.0% of healthy machines" in told
    assert "4 healthy machines support no rate below 20 %; for 10 % at least 9 are needed" in told
    assert "taken as a life until failure, its recordings in the order of their names" in told
    (line,) = (line.split() for line in told.splitlines() if line.startswith("RMS"))
    assert float(line[1]) == pytest.approx(found["RMS"]["threshold"], rel=1e-3)
    one = packed(tmp_path / "one", {"h0": [60.0] * 3})
    assert evaluate.main([*words[:-1], str(one)]) == 2
    assert "at least two machines" in capsys.readouterr().err


def strict(path: Path) -> dict[str, Any]:
    """What a JSON file holds, which has neither NaN nor Infinity."""

    def refused(name: str) -> None:
        raise AssertionError(f"{path} holds {name}")

    found: dict[str, Any] = json.loads(path.read_text(), parse_constant=refused)
    return found


def test_healthy_machines_with_too_few_recordings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = saved(tmp_path / "pipeline")
    healthy = packed(tmp_path / "healthy", {"h0": [60.0] * 3, "h1": [60.0] * 2})
    tested = packed(tmp_path / "tested", {"long": [60.0] * 3, "short": [220.0]})
    words = [pipeline, str(tested), str(tmp_path / "out"), "--anomaly", "--healthy", str(healthy)]
    assert evaluate.main(words) == 2
    error = "h1 has 2 healthy recordings, fewer than --in-a-row 3: give --in-a-row 2 or more healthy recordings"
    assert capsys.readouterr().err.splitlines()[-1] == f"evaluate: {error}"
    assert not (tmp_path / "out" / "anomaly.json").exists()
    assert evaluate.main([*words, "--in-a-row", "2"]) == 0
    found = strict(tmp_path / "out" / "anomaly.json")
    assert {tuple(values["alarms"]) for values in found.values()} == {("long",)}
    assert "not counted: short: fewer recordings than --in-a-row" in capsys.readouterr().out


def test_faulty_recordings_are_told_from_healthy_ones_by_the_names_of_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Class 0 is `healthy` of the pipeline and of the healthy set, and `fault` of what is tested."""
    pipeline = saved(tmp_path / "pipeline", replace(SIGNALS, classes=1, class_names=("healthy",)))
    healthy = packed(tmp_path / "healthy", {f"h{number}": [60.0] * 4 for number in range(3)}, labelled=True)
    tested = packed(
        tmp_path / "tested", {"both": [220.0] * 4 + [60.0] * 4, "broken": [220.0] * 3, "few": [60.0] * 2}, labelled=True
    )
    words = [pipeline, str(tested), str(tmp_path / "out"), "--anomaly", "--healthy", str(healthy)]
    assert evaluate.main(words) == 0
    found = strict(tmp_path / "out" / "anomaly.json")
    one = found[anomaly.MAHALANOBIS]
    assert one["faults"] == {"auroc": 1.0, "intervals": {"auroc": [1.0, 1.0]}, "faulty": 7, "healthy": 6}
    assert one["alarms_on_faulty"] == {"both": 0.75, "broken": 1.0}
    assert one["alarms_on_healthy"].keys() == {"both"}
    assert one["too_short"] == ["few (healthy)"]
    assert not {"alarms", "auroc", "health"} & one.keys()  # nothing here is a life
    told = capsys.readouterr()
    (row,) = (line for line in told.out.splitlines() if line.startswith(anomaly.MAHALANOBIS))
    assert row.endswith("1.000 [1.000, 1.000]")
    assert "2 of 2" in row
    assert "half" not in told.out
    assert "not trained on" not in told.err


def test_a_constant_window_has_no_kurtosis_that_is_no_number(tmp_path: Path) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(9, 1, 256)).astype(np.float32))
    x[0] = 0
    windows = Windows(x, *(np.ones(len(x), np.uint64) for _ in range(3)), {}, {})
    pipeline = Pipeline.from_pretrained(saved(tmp_path / "pipeline"))
    score, _ = anomaly.all_scores(pipeline, windows, windows)
    assert score(np.arange(len(x)))["kurtosis"][0] == 0


def test_a_pipeline_scores_raw_windows() -> None:
    torch.manual_seed(0)
    pipeline = Pipeline({"encoder": ConvEncoder(SIGNALS.shape, 2, 2)}, SIGNALS, batch_size=4)
    x = np.random.default_rng(0).normal(size=(10, 256)).astype(np.float32)
    found = pipeline.score(x)
    assert found.keys() == {"density"}
    np.testing.assert_allclose(found["density"], 0.5 * (pipeline.encode(x).mean.numpy() ** 2).sum(1), rtol=1e-5)
