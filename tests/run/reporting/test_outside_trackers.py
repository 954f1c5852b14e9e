"""Trackers beside TensorBoard, by stand-ins of their packages: none of them is installed here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from accelerate import PartialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from savae_dist.config import trackers
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.run.reporting.outside_trackers import KNOWN, OutsideTrackers
from savae_dist.run.reporting.side_outputs import SideOutputs
from savae_dist.run.reporting.tracker import Tracker

CONFIGURATION = {"seed": 1, "data.weights": [0.5, 0.5], "judge": None}


class Service:
    """What wandb and trackio are to Accelerate: `init` gives a run, `config` keeps what it is told."""

    def __init__(self, fails: bool = False) -> None:
        self.began: list[dict[str, Any]] = []
        self.logged: list[tuple[dict[str, float], int | None]] = []
        self.told: dict[str, Any] = {}
        self.finished, self.fails = 0, fails
        self.config = SimpleNamespace(update=lambda values, allow_val_change: self.told.update(values))

    def init(self, **options: Any) -> Service:
        self.began.append(options)
        return self

    def log(self, values: dict[str, float], step: int | None = None, **_: Any) -> None:
        if self.fails:
            raise ConnectionResetError("the service is gone")
        self.logged.append((values, step))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture(autouse=True)
def _state() -> None:
    PartialState(cpu=True)


def tracked(names: list[str], folder: Path, side: SideOutputs | None = None) -> Tracker:
    side = side or SideOutputs()
    outside = OutsideTrackers(names, folder, "0a1b2c3d", CONFIGURATION, side)
    return Tracker(folder / "tensorboard", 2, 0, True, side, outside)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_each_scalar_goes_there_with_the_configuration(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service()
    monkeypatch.setitem(sys.modules, name, service)
    for step in (1, 2):  # a run that goes on is the same run
        tracker = tracked([name], tmp_path)
        tracker.scalars({"vec/kl": 0.5}, step)
        tracker.close()
    assert service.logged == [({"vec/kl": 0.5}, 1), ({"vec/kl": 0.5}, 2)]
    assert service.told == {"seed": 1, "data.weights": "[0.5, 0.5]", "judge": "None"}
    assert service.began[0] == service.began[1]
    assert (service.began[0]["project"], service.began[0]["resume"]) == ("savae_dist", "allow")
    assert service.finished == 2


def test_one_that_is_told_nothing_never_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a finished run is started again."""
    service = Service()
    monkeypatch.setitem(sys.modules, "wandb", service)
    tracked(["wandb"], tmp_path).close()
    assert (service.began, service.finished) == ([], 0)


def test_mlflow_goes_on_with_the_run_that_it_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []

    def start_run(**options: Any) -> SimpleNamespace:
        started.append(options["run_id"])
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    mlflow: Any = ModuleType("mlflow")
    mlflow.search_experiments = lambda filter_string: [SimpleNamespace(experiment_id="7")]
    mlflow.start_run = start_run
    limits = SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
    mlflow.utils = SimpleNamespace(validation=limits)
    mlflow.log_params = mlflow.log_metrics = lambda values, **_: None
    mlflow.end_run = lambda: None
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    for _ in range(2):
        tracker = tracked(["mlflow"], tmp_path)
        tracker.scalars({"vec/kl": 0.5}, 1)
        tracker.close()
        assert tracker.side.warnings == []
    assert started == [None, "r1"]
    assert (tmp_path / KNOWN).is_file()


def test_one_that_fails_is_told_once_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, other, side = Service(fails=True), Service(), SideOutputs()
    monkeypatch.setitem(sys.modules, "wandb", failing)
    monkeypatch.setitem(sys.modules, "trackio", other)
    tracker = tracked(["wandb", "trackio"], tmp_path, side)
    for step in (1, 2):
        tracker.scalars({"vec/kl": 0.5}, step)
    tracker.close()
    line = "trackers: wandb failed (ConnectionResetError: the service is gone); the run goes on without it"
    assert side.warnings == [line]
    assert capsys.readouterr().err.count("wandb failed") == 1
    assert len(other.logged) == 2


def test_tensorboard_has_the_configuration_beside_the_last_metrics(tmp_path: Path) -> None:
    tracker = tracked([], tmp_path)
    tracker.hparams(CONFIGURATION, {"validation/accuracy": 0.5}, 2)
    tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data
    assert data.plugin_name == "hparams"
    assert b"data.weights" in data.content
    assert "_hparams_/experiment" in events.summary_metadata


@pytest.mark.parametrize(
    ("word", "told"),
    [("trackers=[wanbd]", "did you mean 'wandb'"), ("trackers=[wandb]", r"pip install 'savae-dist\[wandb\]'")],
)
def test_what_is_not_there_is_refused(word: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=told):
        load([word])
