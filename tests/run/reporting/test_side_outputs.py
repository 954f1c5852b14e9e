"""A run whose curves, figures, status or terminal cannot be written trains on; what it could not do is told."""

from __future__ import annotations

import errno
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers.launching import SMALL, equal, status, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import summary

from savae_dist.run.checkpoints import checkpoint
from savae_dist.run.reporting.events import EventFile
from savae_dist.run.reporting.side_outputs import SideOutputs
from savae_dist.train import main

SIDE = {f"savae_dist: {what}" for what in ("TensorBoard's file", "status.json", "figures")}
STEPS = ["max_steps=2", "validate_every=1", "checkpoint_every=1"]


@pytest.fixture(scope="module")
def words(data: Path) -> list[str]:
    return [*SMALL, *STEPS, f"data.train={data}", f"data.validation={data}"]


@pytest.fixture(scope="module")
def whole(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert main([*words, f"output={output}"]) == 0
    assert status(output)["warnings"] == []
    return output


def test_each_kind_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    side, done = SideOutputs(), []
    for kind in ("figures", "curves", "figures"):
        with side.spared(kind):
            raise OSError(errno.ENOSPC, "No space left on device")
    with side.spared("figures"):
        done.append("later")
    assert done == ["later"]
    told = [f"{kind} cannot be written ([Errno 28] No space left on device)" for kind in ("figures", "curves")]
    assert [line.partition(";")[0] for line in side.warnings] == told
    assert capsys.readouterr().err.splitlines() == [f"savae_dist: {line}" for line in side.warnings]


def test_only_failures_of_the_system_are_spared() -> None:
    with pytest.raises(ZeroDivisionError), SideOutputs().spared("figures"):
        raise ZeroDivisionError


def test_a_run_without_its_side_outputs(
    words: list[str], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each name is taken by something else, so that nothing can be written there."""
    (tmp_path / "checkpoints").mkdir()  # by which the folder is known as a run's
    (tmp_path / "tensorboard").touch()
    (tmp_path / "figures").touch()
    (tmp_path / "summary.json").mkdir()
    assert main([*words, f"output={tmp_path}"]) == 0
    ended = status(tmp_path)
    assert ended["outcome"] == "done"
    assert len(ended["warnings"]) == 3
    told = capsys.readouterr().err
    for what in ("TensorBoard's file", "figures", "summary.json"):
        assert told.count(f"savae_dist: {what} cannot be written") == 1
        assert any(line.startswith(what) for line in ended["warnings"])
    assert equal(weights(tmp_path), weights(whole))
    assert (tmp_path / "pipeline" / "pipeline.json").is_file()


def test_a_status_that_cannot_be_written(
    words: list[str], whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status.json").mkdir()
    assert main([*words, f"output={tmp_path}"]) == 0
    assert capsys.readouterr().err.count("status.json cannot be written") == 1
    assert equal(weights(tmp_path), weights(whole))


def test_a_pipeline_that_cannot_be_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoints").mkdir()  # by which the folder is known as a run's
    (tmp_path / "pipeline").touch()
    assert main([*words, f"output={tmp_path}"]) == 74
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"savae_dist: {tmp_path / 'pipeline'}: the pipeline could not be written")
    assert (status(tmp_path)["outcome"], status(tmp_path)["exit_code"]) == ("SaveError", 74)
    (tmp_path / "pipeline").unlink()
    assert main([*words, f"output={tmp_path}"]) == 0
    assert status(tmp_path)["outcome"] == "done"


def test_a_configuration_that_cannot_be_written(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").mkdir()
    assert main([*words, f"output={tmp_path}"]) == 74
    assert "config.yaml: the configuration could not be written" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_is_removed_meanwhile(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write = tmp_path / "run", checkpoint.write

    def removed(folder: Path, *arguments: object) -> Path:
        while output.exists():  # again where the main thread wrote into it meanwhile
            shutil.rmtree(output, ignore_errors=True)
        return write(folder, *arguments)

    monkeypatch.setattr(checkpoint, "write", removed)
    assert main([*words, f"output={output}"]) == 74
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("savae_dist: ")]
    assert f"{output} was removed while the run was at work in it" in lines[-1]
    assert sum("was removed while" in line for line in lines) == 1  # it is not tried again
    assert {line.partition(" cannot be")[0] for line in lines[:-1]} <= SIDE
    assert not output.exists()


# TensorBoard's file.


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """As on a full disk: what goes beyond so many bytes of a file fails, and what goes before is written."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_after_a_full_disk_the_curves_go_on(tmp_path: Path) -> None:
    events = EventFile(tmp_path / "tensorboard", first=1)
    for limit in (0, 50):  # at its beginning, and in its middle
        with file_limit(limit), pytest.raises(OSError, match="File too large"):
            events.append([summary.scalar("loss", 0.0)], 0)
        assert events.path.stat().st_size == 0
    for step in range(1, 6):
        size = events.path.stat().st_size
        if step == 3:
            with file_limit(size + 20), pytest.raises(OSError, match="File too large"):
                events.append([summary.scalar("loss", 3.0)], step)
            assert events.path.stat().st_size == size
        else:
            events.append([summary.scalar("loss", float(step))], step)
    read = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(s, s) for s in (1, 2, 4, 5)]
