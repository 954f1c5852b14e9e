"""Watching recordings from the command line: verdicts, tables, pictures and exit codes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.recordings import LENGTH, RATE, hum, recorded
from matplotlib.backends.backend_agg import FigureCanvasAgg

from savae_dist.evaluation.signals.monitoring import Alarm, Watched, draw
from savae_dist.networks import ConvEncoder, Network
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.stream import InMemory
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
    assert told.count("3 healthy machines support no rate below 25 %; for 10 % at least 9 are needed") == 2  # two runs
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


def test_how_far_a_score_is_above_the_threshold_is_told() -> None:
    alarm = Alarm({}, limit=0.69, rate=0.1, lowest=0.0)
    assert alarm.verdict(0.7) == "ALARM, score 0.70, 0.01 above the threshold 0.69"
    assert alarm.verdict(0.6904) == "ALARM, score 0.69, 0.0004 above the threshold 0.69"
    assert alarm.verdict(0.69) == "no alarm, score 0.69, threshold 0.69"


def test_the_legend_of_the_score_covers_no_curve() -> None:
    alarm = Alarm({}, limit=1.0, rate=0.1, lowest=-1.0)
    found = Watched(0.5, np.full(5, 2.0), np.ones(5, int), {0: np.zeros(9), 1: np.ones(9)})
    figure = draw(found, InMemory(hum(60, 1, 0.5)[None]), RATE, alarm, "title", {})
    FigureCanvasAgg(figure).draw()
    above = figure.axes[0]
    legend = above.get_legend()
    assert legend is not None
    assert not legend.get_window_extent().overlaps(above.get_window_extent())


def test_the_healthy_may_name_classes_that_the_pipeline_does_not(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alarms need no classes."""
    other = Pipeline.from_pretrained(place / "pipeline")
    other.spec = replace(SPEC, class_names=("sound", "high"))
    other.save_pretrained(place / "other")
    assert monitor.main([str(place / "other"), *arguments(place, "quiet.npy")[1:]]) == 0
    assert "quiet.npy: no alarm" in capsys.readouterr().out


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
