"""What status.json says of a run, and who writes it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from accelerate import PartialState

from savae_dist.distributed.folder_lock import FolderLock
from savae_dist.distributed.ranks import Peers
from savae_dist.run.reporting import status_file
from savae_dist.run.reporting.status_file import Status

STATUS_KEYS = {"outcome", "exit_code", "message", "phase", "step", "warnings", "launch", "heartbeat"}


def status_of(folder: Path, main: bool) -> Status:
    """One process of a launch that has not acquired the lock."""
    return Status(FolderLock(folder), main)


def read(path: Path) -> dict[str, object]:
    values = json.loads(path.read_text())
    assert isinstance(values, dict)
    return values


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that goes as the test says."""
    clock = [100.0]
    monkeypatch.setattr(status_file.time, "monotonic", lambda: clock[0])
    return clock


def test_status_has_its_fields(tmp_path: Path) -> None:
    status = status_of(tmp_path, main=True)
    status.beat("vec", 3)
    values = read(tmp_path / "status.json")
    assert values.keys() == STATUS_KEYS
    assert (values["outcome"], values["exit_code"], values["phase"], values["step"]) == ("running", None, "vec", 3)
    assert abs(float(str(values["heartbeat"])) - time.time()) < 60
    status.end("done", 0)
    values = read(tmp_path / "status.json")
    assert values.keys() == STATUS_KEYS
    assert (values["outcome"], values["exit_code"], values["phase"], values["step"]) == ("done", 0, "vec", 3)


def test_the_heart_beats_every_ten_seconds(tmp_path: Path, now: list[float]) -> None:
    status = status_of(tmp_path, main=True)
    seen = []
    for step in range(30):
        status.beat("vec", step)
        seen.append(read(tmp_path / "status.json")["step"])
        now[0] += 1.0
    assert sorted(set(map(int, map(str, seen)))) == [0, 11, 22]


def test_the_end_is_written_at_once(tmp_path: Path, now: list[float]) -> None:
    status = status_of(tmp_path, main=True)
    status.beat("vec", 1)
    status.beat("vec", 2)
    status.end("Preempted", 75, "stopped")
    values = read(tmp_path / "status.json")
    assert (values["step"], values["exit_code"], values["message"]) == (2, 75, "stopped")


def test_status_of_a_run_that_has_no_folder_yet(tmp_path: Path) -> None:
    """A start that is refused is told too."""
    status_of(tmp_path / "runs" / "new", main=True).end("ConfigError", 2, "why")
    assert read(tmp_path / "runs" / "new" / "status.json")["exit_code"] == 2


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    status = status_of(tmp_path, main=False)
    status.beat("vec", 1)
    status.end("done", 0)
    assert list(tmp_path.iterdir()) == []


def test_the_first_word_of_a_launch_stands(tmp_path: Path) -> None:
    """Rank 1 fails; rank 0 sees that it is gone, later and by another clock."""
    zero, one = status_of(tmp_path, main=True), status_of(tmp_path, main=False)
    for rank in (zero, one):
        rank.join("token", node=0, nodes=1)
        rank.beat("vec", 1)
    zero._started = time.time() + 3600
    assert one.end("failed", 1, "a bug", alone=True) is None
    said = zero.end("RankLost", 75, "gone", alone=True)
    assert said is not None
    assert (said["exit_code"], said["message"]) == (1, "a bug")
    zero.beat("vec", 2)
    assert read(tmp_path / "status.json")["message"] == "a bug"
    again = status_of(tmp_path, main=True)  # the next launch has its own say
    again.join("another token", node=0, nodes=1)
    assert again.end("RankLost", 75, "gone again") is None
    assert read(tmp_path / "status.json")["message"] == "gone again"


def test_each_node_leaves_its_own_view(tmp_path: Path) -> None:
    ranks = [status_of(tmp_path, main=rank == 0) for rank in range(2)]
    for node, rank in enumerate(ranks):
        rank.join("token", node, nodes=2)
        rank.beat("vec", node)
    ranks[1].end("RankLost", 75, "by 1", alone=True)
    ranks[0].end("RankLost", 75, "by 0", alone=True)
    messages = {path.name: read(path)["message"] for path in tmp_path.glob("*.json")}
    assert messages == {"status.json": "by 1", "status-node0.json": "by 0", "status-node1.json": "by 1"}


def test_a_launch_without_the_lock_writes_nothing_while_another_has_it(tmp_path: Path) -> None:
    one = Peers(PartialState(cpu=True), 10.0)
    with FolderLock(tmp_path) as lock:
        lock.acquire(one)
        Status(lock, main=True).begin()
        before = read(tmp_path / "status.json")
        assert before["outcome"] == "running"
        status_of(tmp_path, main=True).end("Preempted", 75, "by Ctrl-C", alone=True)
        assert read(tmp_path / "status.json") == before
    status_of(tmp_path, main=True).end("Preempted", 75, "by Ctrl-C", alone=True)
    assert read(tmp_path / "status.json")["message"] == "by Ctrl-C"


def test_a_check_writes_nothing(tmp_path: Path) -> None:
    status = Status(None, main=True)
    status.join("token", 0, 2)
    status.beat("vec", 1)
    assert status.end("failed", 1, "why", alone=True) is None
    assert (status.writes, list(tmp_path.iterdir())) == (False, [])


def test_where_it_is(tmp_path: Path) -> None:
    status = status_of(tmp_path, main=False)
    assert status.where() == "the start"
    status.beat("decoder", 7)
    assert status.where() == "decoder step 7"


def test_a_refused_start_leaves_the_word_of_a_finished_run(tmp_path: Path) -> None:
    finished = status_of(tmp_path, main=True)
    finished.beat("vec", 1)
    finished.end("done", 0)
    status_of(tmp_path, main=True).end("ConfigError", 2, "another beta")
    assert read(tmp_path / "status.json")["outcome"] == "done"
    going_on = status_of(tmp_path, main=True)
    going_on.beat("vec", 2)
    going_on.end("Preempted", 75)
    assert read(tmp_path / "status.json")["outcome"] == "Preempted"


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00" * 40])
def test_a_damaged_status_is_written_anew(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a power cut may have left it: it is told, and hides neither a start nor why one is refused."""
    (tmp_path / "status.json").write_text(content)
    begun = status_of(tmp_path, main=True)
    begun.begin()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"savae_dist: {tmp_path / 'status.json'} is damaged and was replaced"
    assert json.loads((tmp_path / "status.json").read_text())["outcome"] == "running"
    begun.beat("vec", 1)
    assert read(tmp_path / "status.json")["warnings"] == [line.removeprefix("savae_dist: ")]
    (tmp_path / "status.json").write_text(content)
    status_of(tmp_path, main=True).end("ConfigError", 2, "why")
    assert json.loads((tmp_path / "status.json").read_text())["exit_code"] == 2


@pytest.mark.parametrize("heartbeat", ["now", None, [], {}])
def test_a_heartbeat_that_is_no_time(heartbeat: object, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"exit_code": 1, "heartbeat": heartbeat}))
    status_of(tmp_path, main=True).end("ConfigError", 2, "why")
    assert read(tmp_path / "status.json")["exit_code"] == 2
