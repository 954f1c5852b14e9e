"""Watching recordings from the command line: verdicts, tables, pictures and exit codes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.recordings import LENGTH, RATE, hum, recorded

from savae_dist.evaluation.signals.monitoring import Alarm
from savae_dist.networks import ConvEncoder, Network
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from tools import monitor

SPEC = DataSpec("signal", (1, LENGTH), 2, "none", rate=float(RATE), class_names=("low", "high"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose code grows with the loudness, shards of two healthy machines, a quiet and a loud recording."""
    folder = tmp_path_factory.mktemp("monitor")
    torch.manual_seed(0)
    networks: dict[str, Network] = {"encoder": ConvEncoder(SPEC.shape, 2, 2)}
    Pipeline(networks, SPEC).save_pretrained(folder / "pipeline")
    recorded(folder / "healthy", {"m1": "low", "m2": "low", "m3": "low"})
    np.save(folder / "quiet.npy", hum(60, 99, 8) / 2)
    np.save(folder / "loud.npy", np.concatenate([hum(60, 98, 4), 20 * hum(60, 97, 4)]))
    return folder


def arguments(place: Path, *files: str) -> list[str]:
    shards = ["--healthy", str(place / "healthy" / "shards"), "--out", str(place / "out"), "--source-rate", str(RATE)]
    return [str(place / "pipeline"), *(str(place / file) for file in files), *shards]


def test_an_alarm_is_exit_code_1(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert monitor.main(arguments(place, "quiet.npy")) == 0
    assert monitor.main([*arguments(place, "quiet.npy", "loud.npy"), "--bearing", "6205", "--rpm", "1797"]) == 1
    told = capsys.readouterr().out
    assert "quiet.npy: no alarm" in told
    assert "loud.npy: ALARM" in told
    assert "false alarms on 25.0% of healthy machines" in told  # three machines support no lower rate than one in four
    rows = list(csv.DictReader((place / "out" / "loud.csv").open()))
    assert [float(row["seconds"]) for row in rows[:3]] == [0.0, 0.256, 0.512]
    scores = np.array([float(row["combined"]) for row in rows])
    assert scores[-5:].min() > scores[:5].max()
    written = sorted(path.name for path in (place / "out").iterdir())
    assert written == ["loud.csv", "loud.png", "quiet.csv", "quiet.png"]


def test_a_recording_far_below_the_healthy_ones_is_told(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = Alarm({}, limit=1.0, rate=0.1, lowest=-1.0)
    assert [alarm.far_below(score) for score in (-3.1, -2.9, 0.0, 1.1)] == [True, False, False, False]
    assert monitor.main(arguments(place, "quiet.npy")) == 0
    assert "far below" not in capsys.readouterr().out
    measured = Alarm.of
    monkeypatch.setattr(Alarm, "of", lambda *given: replace(measured(*given), lowest=100.0))
    assert monitor.main(arguments(place, "quiet.npy")) == 0
    assert "quiet.npy: no alarm" in (told := capsys.readouterr().out)
    assert "far below every healthy one" in told


def test_errors_are_one_line_and_no_alarm(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "broken.npy").write_bytes(b"no array")
    np.save(place / "short.npy", np.zeros(9, np.float32))
    for words, told in (
        (arguments(place, "none.npy"), "missing"),
        (arguments(place, "broken.npy"), "broken.npy"),
        (arguments(place, "short.npy"), "a window has 256 samples"),
        (arguments(place, "quiet.npy")[:-2], "give --source-rate"),
    ):
        assert monitor.main(words) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("monitor: ")
        assert told in error
    with pytest.raises(SystemExit):
        monitor.main([*arguments(place, "quiet.npy"), "--bearing", "6205"])
