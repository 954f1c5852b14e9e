"""A signal at any place of a run: 75, no step lost, and the same command then ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.launching import SMALL, equal, shards, status, steps_saved, weights
from helpers.stores import web

from savae_dist.evaluation import metrics
from savae_dist.pipeline import Pipeline
from savae_dist.run import checkpoint, setup, validation
from savae_dist.train import main
from savae_dist.training import engine
from savae_dist.training.engine import PreparedUpdate

STEPS = ["system.vec_steps=4", "system.decoder_steps=3", "checkpoint_every=1000", "validate_every=2", "ema=0.5"]


@pytest.fixture(scope="module")
def arguments(data: Path) -> list[str]:
    return [*SMALL[:-1], *STEPS, f"data.train={data}", f"data.validation={data}"]


@pytest.fixture(scope="module")
def whole(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert main([*arguments, f"output={output}"]) == 0
    return output


# Where the signal comes: the object and its function, at which of its calls, and the steps that are then saved.
POINTS: dict[str, tuple[Any, str, int, list[int]]] = {
    "the start": (setup, "open_shards", 1, []),
    "the first iteration": (PreparedUpdate, "step", 1, [1]),
    "an iteration": (PreparedUpdate, "step", 3, [3]),
    "the data": (engine, "_read", 3, [2]),
    "validation": (metrics, "measure", 1, [2]),
    "the figures": (validation.report, "write_figures", 1, [2]),
    "the last iteration of a phase": (PreparedUpdate, "step", 4, [4]),
    "a save": (checkpoint, "_write", 1, [4]),
    "finishing": (Pipeline, "save_pretrained", 1, [4, 7]),
    "the last figures": (validation.report, "write_figures", 4, [4, 7]),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_loses_no_step(
    number: int, point: str, arguments: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number != signal.SIGTERM and point not in ("an iteration", "the start"):
        pytest.skip("other signals: two places are enough")
    home, name, call, saved = POINTS[point]
    at_call(monkeypatch, home, name, call, lambda: os.kill(os.getpid(), number))
    output = tmp_path / "run"
    assert main([*arguments, f"output={output}"]) == 75
    assert (status(output)["outcome"], status(output)["exit_code"]) == ("Preempted", 75)
    assert f"stopped by signal {int(number)}" in status(output)["message"]
    assert (steps_saved(output) if saved else []) == saved
    monkeypatch.undo()
    assert main([*arguments, f"output={output}"]) == 0
    assert equal(weights(output), weights(whole))


def at_call(monkeypatch: pytest.MonkeyPatch, home: Any, name: str, call: int, event: Callable[[], None]) -> None:
    """Have `event` happen in the n-th call of a function."""
    function, calls = getattr(home, name), []

    def called(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            event()
        return function(*arguments, **options)

    monkeypatch.setattr(home, name, called)
