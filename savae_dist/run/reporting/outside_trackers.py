"""Trackers of experiments beside TensorBoard (Weights & Biases, MLflow, Trackio), through Accelerate's classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, MLflowTracker, TrackioTracker, WandBTracker

from savae_dist.files import read_object, write_json
from savae_dist.run.reporting.side_outputs import SideOutputs

PROJECT = "savae_dist"
KNOWN = "trackers.json"  # in a run's folder: the ids that trackers gave it


class OutsideTrackers:
    """The trackers that a run's `trackers` names.

    A tracker starts at the first value that it gets, so a finished run that is started again reports nothing. A run
    that goes on continues its entry there, found by its digest or by the id that the tracker gave it. A tracker that
    fails for any reason is reported once and then left out: a service of others must not end a run.

    digest: of the run's identity. configuration: dotted keys to values.
    """

    def __init__(
        self, names: list[str], folder: Path, digest: str, configuration: Mapping[str, Any], side: SideOutputs
    ) -> None:
        self.names, self.folder, self.side = list(names), folder, side
        self.run = f"{folder.absolute().name}-{digest}"
        self.configuration = {key: plain(value) for key, value in configuration.items()}
        self.begun: dict[str, GeneralTracker] = {}

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name in list(self.names):
            self._try(name, partial(self._log, name, dict(values), step))

    def _log(self, name: str, values: dict[str, float], step: int) -> None:
        self._begin(name).log(values, step=step)

    def close(self) -> None:
        """Close the trackers that have started, so that they send what they still hold."""
        for name, tracker in self.begun.items():
            self._try(name, tracker.finish)
        self.begun = {}

    def _begin(self, name: str) -> GeneralTracker:
        if name not in self.begun:
            tracker = self._made(name)
            tracker.start()
            tracker.store_init_configuration(self.configuration)
            self.begun[name] = tracker
        return self.begun[name]

    def _made(self, name: str) -> GeneralTracker:
        if name == "wandb":
            return WandBTracker(PROJECT, name=self.folder.name, id=self.run, resume="allow", dir=str(self.folder))
        if name == "trackio":
            return TrackioTracker(PROJECT, name=self.run, resume="allow")
        return Known(self.folder / KNOWN, experiment_name=PROJECT, run_name=self.run)

    def _try(self, name: str, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            self.names = [other for other in self.names if other != name]
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.side.tell(f"tracker {name}", f"trackers: {name} failed ({reason}); the run goes on without it")


class Known(MLflowTracker):
    """MLflow's tracker; it continues the run whose id stands in `file`, and writes the id of a new one there."""

    def __init__(self, file: Path, **options: Any) -> None:
        self.file = file
        super().__init__(run_id=read_object(file).get("mlflow"), **options)

    def start(self) -> None:
        super().start()
        write_json(self.file, {"mlflow": self.tracker.info.run_id})


def plain(value: Any) -> bool | float | int | str:
    """A value as trackers take it."""
    return value if isinstance(value, bool | float | int | str) else str(value)
