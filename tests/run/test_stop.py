"""A signal at any place of a run: 75, no step lost, and the same command then ends as if nothing had been."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.launching import SMALL, equal, status, steps_saved, weights
from helpers.stores import Web, web

from savae_dist.evaluation import metrics
from savae_dist.pipeline import Pipeline
from savae_dist.run import setup, validation
from savae_dist.run.checkpoints import background_save, checkpoint
from savae_dist.run.checkpoints.contents import Contents
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
    "a save": (checkpoint, "write", 1, [4]),
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


# A store that does not answer.

FEW = ["data.shuffle_window=1", "data.lanes=2", "system.vec_steps=30", "system.decoder_steps=1"]


@pytest.fixture(scope="module")
def local(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run from a disk."""
    output = tmp_path_factory.mktemp("local") / "run"
    assert main([*SMALL, *FEW, f"data.train={data}", f"output={output}"]) == 0
    return output


@pytest.fixture
def store(data: Path) -> Iterator[Web]:
    """Answers for the first two windows of both lanes only."""
    with web(data) as server:
        server.faults = [""] * 4
        yield server


@pytest.mark.parametrize(("fault", "workers"), [("hang", 0), ("hang", 1), ("503", 0), ("503", 1)])
def test_a_signal_while_the_store_does_not_answer(
    fault: str, workers: int, store: Web, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.always, waits, output = fault, [0.0], tmp_path / "run"
    read = engine._read

    def noted(*arguments: Any) -> Any:
        waits.append(time.monotonic())
        raw = read(*arguments)
        waits.append(0.0)
        return raw

    def stop_the_wait() -> None:
        while not waits[-1] or time.monotonic() - waits[-1] < 1:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(engine, "_read", noted)
    stopping = threading.Thread(target=stop_the_wait, daemon=True)
    stopping.start()
    arguments = [*SMALL, *FEW, f"data.train={store.url}", f"data.cache_dir={tmp_path / 'cache'}", f"output={output}"]
    assert main([*arguments, f"data.workers={workers}"]) == 75
    assert time.monotonic() - waits[-1] < 5
    step = status(output)["step"]
    assert step > 0
    assert steps_saved(output) == [step]
    assert "stopped by signal 15 at vec step" in status(output)["message"]
    store.always = ""
    # Another cache, since a thread of this process may still wait for the old one's shard.
    assert main([*arguments, f"data.cache_dir={tmp_path / 'other'}"]) == 0
    assert equal(weights(output), weights(local))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_outage_beyond_the_limit_is_saved_and_may_be_run_again(
    workers: int, store: Web, local: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    arguments = [*SMALL, *FEW, f"data.train={store.url}", f"data.cache_dir={tmp_path / 'cache'}", f"output={output}"]
    store.always = "503"
    assert main([*arguments, "data.outage_limit=1", f"data.workers={workers}"]) == 75
    said = status(output)
    assert (said["outcome"], said["exit_code"]) == ("OutageError", 75)
    assert steps_saved(output) == [said["step"]] != [0]
    store.always = ""
    assert main(arguments) == 0
    assert equal(weights(output), weights(local))


def test_a_signal_at_the_start_in_an_outage(store: Web, tmp_path: Path) -> None:
    """A store's library and the retries around it catch every error, but not this."""
    store.hanging, began, output = True, time.monotonic(), tmp_path / "run"
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert main([*SMALL, f"data.train={store.url}", f"data.cache_dir={tmp_path / 'cache'}", f"output={output}"]) == 75
    assert time.monotonic() - began < 10
    assert "stopped by signal 15 before it began to train" in status(output)["message"]


@pytest.mark.parametrize(("failures", "code"), [(1, 0), (99, 74)])
def test_an_error_of_the_disk_may_pass(
    failures: int,
    code: int,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once: the save is tried again. Always: 74, after some seconds."""
    monkeypatch.setattr(background_save, "SAVE_AGAIN", (0.01, 0.01))
    write, calls, output = Contents.write, [], tmp_path / "run"

    def failing(*parts: Any) -> None:
        calls.append(None)
        if len(calls) <= failures:
            raise OSError(errno.EIO, "Input/output error")
        write(*parts)

    monkeypatch.setattr(Contents, "write", failing)
    assert main([*arguments, "max_steps=1", f"output={output}"]) == code
    assert capsys.readouterr().err.count("Input/output error); free space") == min(failures, 3)
    assert status(output)["exit_code"] == code
