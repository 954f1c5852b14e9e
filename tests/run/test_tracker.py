"""What a run tells: JSON files, means, time, TensorBoard."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from savae_dist.distributed.ranks import Peers
from savae_dist.distributed.reduce import rank_means, rank_sums
from savae_dist.files import write_json
from savae_dist.run import tracker
from savae_dist.run.status_file import Status
from savae_dist.run.tracker import Clock, Tracker

STATUS_KEYS = {"outcome", "exit_code", "message", "phase", "step", "launch", "heartbeat"}


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def read(path: Path) -> dict[str, object]:
    values = json.loads(path.read_text())
    assert isinstance(values, dict)
    return values


# JSON.


def test_write_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, None]})
    write_json(tmp_path / "a.json", {"x": 2})
    assert read(tmp_path / "a.json") == {"x": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def cut(self: Path, text: str) -> None:
        with self.open("w") as file:
            file.write(text[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", cut)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"x": 2})
    assert read(path) == {"x": 1}
    with pytest.raises(TypeError):
        write_json(path, {"x": torch.zeros(1)})
    assert read(path) == {"x": 1}


# Means.


def test_rank_means() -> None:
    sums = {"a": torch.tensor([6.0, 4.0]), "b": torch.tensor([-3, 1]), "none": torch.tensor([0.0, 0.0])}
    means = rank_means(sums)
    assert list(means) == ["a", "b", "none"]
    assert (means["a"], means["b"]) == (1.5, -3.0)
    assert math.isnan(means["none"])
    assert rank_means({}) == {}


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


# status.json.


def test_status_has_its_fields(tmp_path: Path) -> None:
    status = Status(tmp_path, main=True)
    status.beat("vec", 3)
    values = read(tmp_path / "status.json")
    assert values.keys() == STATUS_KEYS
    assert (values["outcome"], values["exit_code"], values["phase"], values["step"]) == ("running", None, "vec", 3)
    assert abs(float(str(values["heartbeat"])) - tracker.time.time()) < 60
    status.end("done", 0)
    values = read(tmp_path / "status.json")
    assert values.keys() == STATUS_KEYS
    assert (values["outcome"], values["exit_code"], values["phase"], values["step"]) == ("done", 0, "vec", 3)


def test_the_heart_beats_every_ten_seconds(tmp_path: Path, now: list[float]) -> None:
    status = Status(tmp_path, main=True)
    seen = []
    for step in range(30):
        status.beat("vec", step)
        seen.append(read(tmp_path / "status.json")["step"])
        now[0] += 1.0
    assert sorted(set(map(int, map(str, seen)))) == [0, 11, 22]


def test_the_end_is_written_at_once(tmp_path: Path, now: list[float]) -> None:
    status = Status(tmp_path, main=True)
    status.beat("vec", 1)
    status.beat("vec", 2)
    status.end("Preempted", 75, "stopped")
    values = read(tmp_path / "status.json")
    assert (values["step"], values["exit_code"], values["message"]) == (2, 75, "stopped")


def test_status_of_a_run_that_has_no_folder_yet(tmp_path: Path) -> None:
    """A start that is refused is told too."""
    Status(tmp_path / "runs" / "new", main=True).end("ConfigError", 2, "why")
    assert read(tmp_path / "runs" / "new" / "status.json")["exit_code"] == 2


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    status = Status(tmp_path, main=False)
    status.beat("vec", 1)
    status.end("done", 0)
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


def test_the_first_word_of_a_launch_stands(tmp_path: Path) -> None:
    """Rank 1 fails; rank 0 sees that it is gone, later and by another clock."""
    zero, one = Status(tmp_path, main=True), Status(tmp_path, main=False)
    for rank in (zero, one):
        rank.join("token", node=0, nodes=1)
        rank.beat("vec", 1)
    zero._started = tracker.time.time() + 3600
    assert one.end("failed", 1, "a bug", alone=True) is None
    said = zero.end("RankLost", 75, "gone", alone=True)
    assert said is not None
    assert (said["exit_code"], said["message"]) == (1, "a bug")
    zero.beat("vec", 2)
    assert read(tmp_path / "status.json")["message"] == "a bug"
    again = Status(tmp_path, main=True)  # the next launch has its own say
    again.join("another token", node=0, nodes=1)
    assert again.end("RankLost", 75, "gone again") is None
    assert read(tmp_path / "status.json")["message"] == "gone again"


def test_each_node_leaves_its_own_view(tmp_path: Path) -> None:
    ranks = [Status(tmp_path, main=rank == 0) for rank in range(2)]
    for node, rank in enumerate(ranks):
        rank.join("token", node, nodes=2)
        rank.beat("vec", node)
    ranks[1].end("RankLost", 75, "by 1", alone=True)
    ranks[0].end("RankLost", 75, "by 0", alone=True)
    messages = {path.name: read(path)["message"] for path in tmp_path.glob("*.json")}
    assert messages == {"status.json": "by 1", "status-node0.json": "by 0", "status-node1.json": "by 1"}


def test_a_launch_without_a_claim_keeps_quiet_while_another_has_one(tmp_path: Path) -> None:
    one = Peers(PartialState(cpu=True), 10.0)
    with Status(tmp_path, main=True) as first:
        first.claim(one)
        first.begin()
        before = read(tmp_path / "status.json")
        assert before["outcome"] == "running"
        Status(tmp_path, main=True).end("Preempted", 75, "by Ctrl-C", alone=True)
        assert read(tmp_path / "status.json") == before
    Status(tmp_path, main=True).end("Preempted", 75, "by Ctrl-C", alone=True)
    assert read(tmp_path / "status.json")["message"] == "by Ctrl-C"


def test_a_check_writes_nothing(tmp_path: Path) -> None:
    status = Status(None, main=True)
    status.join("token", 0, 2)
    status.beat("vec", 1)
    assert status.end("failed", 1, "why", alone=True) is None
    assert (status.writes, list(tmp_path.iterdir())) == (False, [])


def test_where_it_is(tmp_path: Path) -> None:
    status = Status(tmp_path, main=False)
    assert status.where() == "the start"
    status.beat("decoder", 7)
    assert status.where() == "decoder step 7"


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


def test_a_plain_line_per_log_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(tmp_path, total=10, done=4, main=True)
    tracker.advance("ava")
    tracker.progress("ava step 5/10", LOSSES, 1234.5)
    tracker.say("a line")
    tracker.close()
    line = "ava step 5/10: critic/real 0.25, code_critic/real 0.125; 1,234 samples/s"
    assert capsys.readouterr() == ("", f"{line}\na line\n")


def test_a_refused_start_leaves_the_word_of_a_finished_run(tmp_path: Path) -> None:
    finished = Status(tmp_path, main=True)
    finished.beat("vec", 1)
    finished.end("done", 0)
    Status(tmp_path, main=True).end("ConfigError", 2, "another beta")
    assert json.loads((tmp_path / "status.json").read_text())["outcome"] == "done"
    going_on = Status(tmp_path, main=True)
    going_on.beat("vec", 2)
    going_on.end("Preempted", 75)
    assert json.loads((tmp_path / "status.json").read_text())["outcome"] == "Preempted"


def test_numbers_that_json_does_not_know_become_null(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"nan": float("nan"), "inf": float("inf"), "one": 1.0})
    assert json.loads((tmp_path / "a.json").read_text()) == {"nan": None, "inf": None, "one": 1.0}
