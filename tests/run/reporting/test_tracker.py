"""What a run tells: means, time, TensorBoard."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from savae_dist.distributed.reduce import means_and_rows, rank_sums
from savae_dist.run.reporting import tracker
from savae_dist.run.reporting.tracker import Clock, Tracker


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


# Means.


def test_rank_means() -> None:
    sums = {"a": torch.tensor([6.0, 4.0]), "b": torch.tensor([-3, 1]), "none": torch.tensor([0.0, 0.0])}
    means, _ = means_and_rows(sums, ())
    assert list(means) == ["a", "b", "none"]
    assert (means["a"], means["b"]) == (1.5, -3.0)
    assert math.isnan(means["none"])
    assert means_and_rows({}, ())[0] == {}


def test_rank_sums_of_one_process_are_its_own() -> None:
    values = torch.tensor([1.0, 2.0])
    assert rank_sums(values) is values


# Time.


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes as the test says."""
    time = [100.0]
    monkeypatch.setattr(tracker.time, "perf_counter", lambda: time[0])
    monkeypatch.setattr(tracker.time, "monotonic", lambda: time[0])
    return time


def test_the_clock_counts_training_only(now: list[float]) -> None:
    clock = Clock()
    assert clock.rate(8) == 0.0
    now[0] += 2.0
    clock.tick()
    now[0] += 1000.0  # a validation
    clock.skip()
    now[0] += 3.0
    clock.tick()
    assert (clock.seconds, clock.iterations) == (5.0, 2)
    assert clock.rate(10) == pytest.approx(2 * 10 / 5)


# Other processes.


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "tensorboard", total=3, done=0, main=False)
    tracker.advance("vec")
    tracker.scalars({"a": 1.0}, 1)
    tracker.figure("f", Figure(), 1)
    tracker.say("nothing")
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def test_other_processes_say_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(tmp_path, total=3, done=0, main=False)
    tracker.advance("vec")
    tracker.say("nothing")
    tracker.close()
    assert capsys.readouterr() == ("", "")


# TensorBoard and the bar.


def test_scalars_and_figures_can_be_read(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, total=10, done=0, main=True)
    for step in (1, 2):
        tracker.scalars({"vec/kl": step / 2, "vec/cat": 3.0}, step)
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    tracker.figure("latent_space", figure, 2)
    tracker.close()

    read_back = events(tmp_path)
    assert set(read_back.Tags()["scalars"]) == {"vec/kl", "vec/cat"}
    assert [(e.step, e.value) for e in read_back.Scalars("vec/kl")] == [(1, 0.5), (2, 1.0)]
    assert read_back.Tags()["images"] == ["latent_space"]
    image = read_back.Images("latent_space")[0]
    assert image.step == 2
    assert image.encoded_image_string.startswith(b"\x89PNG")


@pytest.mark.parametrize("resumed", [0, 2])
def test_a_resumed_curve_has_every_step_once(resumed: int, tmp_path: Path) -> None:
    """Three steps were logged; the run goes on after step `resumed`."""
    first = Tracker(tmp_path, total=5, done=0, main=True)
    for step in (1, 2, 3):
        first.scalars({"loss": 10.0 + step}, step)
    first.close()
    time.sleep(1.1)  # event files are ordered by the second in their names
    second = Tracker(tmp_path, total=5, done=resumed, main=True)
    for step in range(resumed + 1, 6):
        second.scalars({"loss": 20.0 + step}, step)
    second.close()
    seen = [(e.step, e.value) for e in events(tmp_path).Scalars("loss")]
    assert seen == [(s, (10.0 if s <= resumed else 20.0) + s) for s in range(1, 6)]


LOSSES = {"critic/real": 0.25, "code_critic/real": 0.125}  # terms of one name in two updates


def test_the_bar_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tracker = Tracker(tmp_path, total=10, done=4, main=True)
    tracker.advance("ava")
    tracker.progress("ava step 5/10", LOSSES, 100.0)
    tracker.say("a line")
    assert (tracker.bar.n, tracker.bar.total) == (5, 10)
    tracker.close()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "a line\n" in printed.err
    assert "ava: " in printed.err
    assert "critic/real=0.25, code_critic/real=0.125" in printed.err


def test_a_phase_does_not_show_the_losses_of_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tracker = Tracker(tmp_path, total=10, done=0, main=True)
    tracker.advance("vec")
    tracker.progress("vec step 1/5", {"vec/kl": 0.25}, 100.0)
    tracker.advance("vec")
    tracker.bar.refresh()
    assert "vec/kl=0.25" in capsys.readouterr().err.split("\r")[-1]
    tracker.advance("decoder")
    tracker.bar.refresh()
    shown = capsys.readouterr().err.split("\r")[-1]
    assert "decoder: " in shown
    assert "vec/kl" not in shown
    tracker.close()


def test_a_plain_line_per_log_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(tmp_path, total=10, done=4, main=True)
    tracker.advance("ava")
    tracker.progress("ava step 5/10", LOSSES, 1234.5)
    tracker.say("a line")
    tracker.close()
    line = "ava step 5/10: critic/real 0.25, code_critic/real 0.125; 1,234 samples/s"
    assert capsys.readouterr() == ("", f"{line}\na line\n")
