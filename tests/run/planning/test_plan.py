"""`--plan`: bytes against what a run takes, the model against its formula, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.held_memory import steps_told_and_held
from helpers.launching import SMALL, shards

from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.run.lifecycle import train
from savae_dist.run.planning import plan
from savae_dist.run.run import Run
from savae_dist.train import main
from savae_dist.training.batches import BatchSplit

SPEED = plan.Speed(fixed=0.01, each=0.001, reduced=4_000_000, read=0.0005, batches=3, workers=0)


def test_the_model_is_its_formula() -> None:
    parts = SPEED.parts(64, accumulate=2, processes=4, bandwidth=1e9)
    assert parts == pytest.approx({"compute": 2 * 0.01 + 16 * 0.001, "communication": 0.006, "data": 0.024})
    assert SPEED.seconds(parts) == pytest.approx(0.036 + 0.006 + 0.024)
    ahead = plan.Speed(0.01, 0.001, 4_000_000, 0.0005, 3, workers=2)
    parts = ahead.parts(64, accumulate=2, processes=4, bandwidth=1e9)
    assert parts["data"] == pytest.approx(0.012)
    assert ahead.seconds(parts) == pytest.approx(0.042)  # workers read meanwhile
    assert SPEED.parts(64, 1, 1, 1e9)["communication"] == 0  # one process talks to nobody


@pytest.mark.parametrize(
    ("speed", "gigabits", "limit"),
    [
        (plan.Speed(0.5, 0.001, 4_000_000, 0.0005, 3, 0), 10, "compute"),
        (plan.Speed(0.001, 0.0001, 4_000_000, 0.00001, 3, 0), 0.1, "communication"),
        (plan.Speed(0.001, 0.0001, 4_000_000, 0.01, 3, 1), 10, "data"),
    ],
)
def test_it_says_what_becomes_the_limit(speed: plan.Speed, gigabits: float, limit: str) -> None:
    lines = plan.predicted(BatchSplit(24), speed, 100, gigabits, iterations=1)
    assert lines[2].endswith(f"limit: {limit}")
    assert f"limit       {limit}: {plan.REMEDY[limit]}" in lines
    assert "64 x        data.batch_size=24 cannot be shared among so many" in lines[3]


def test_it_says_how_long_a_phase_takes() -> None:
    """A step of 64 samples and three batches read takes 0.17 s in one process; two share it and sum for 1 ms."""
    one, two, *_ = plan.predicted(BatchSplit(64), SPEED, 100, gigabits=32, iterations=10_000)
    assert one.startswith("  1 x        28.3 min: 376 samples/s, 170.0 ms (")
    assert two.startswith("  2 x        15.2 min: 703 samples/s, 91.0 ms (")


def test_memory_is_what_a_larger_step_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Known from steps of two and four samples, against one of twelve that is taken."""
    found: list[tuple[str, int, int]] = []

    def compare(run: Run) -> str:
        found.extend(steps_told_and_held(run, 12))
        return "compared"

    words = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", f"output={tmp_path / 'run'}"]
    assert train(load(words), compare) == 0
    assert capsys.readouterr().out == "compared\n"
    assert [name for name, _, _ in found] == ["vec/vec", "decoder/critic", "decoder/critic", "decoder/decoder"]
    for name, told, measured in found:
        assert told == pytest.approx(measured, rel=0.01), name


def test_a_checkpoint_is_as_large_as_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", f"output={tmp_path / 'run'}", "networks.width=8"]
    words += ["max_steps=2", "checkpoint_every=1", "ema=0.5"]  # averages are in those within a phase
    assert main([*words, "--plan", "--bandwidth=1"]) == 0
    told = capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert "reduced     " in told
    assert "limit: " in told
    (line,) = [line for line in told.splitlines() if line.startswith("checkpoint")]
    assert main(words) == 0
    folders = (tmp_path / "run" / "checkpoints").iterdir()
    written = max(sum(file.stat().st_size for file in folder.rglob("*.safetensors")) for folder in folders)
    assert float(line.split()[1]) * 1e6 == pytest.approx(written, rel=0.02)


def test_several_processes_and_a_bandwidth_alone_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*SMALL, "--bandwidth=1"])
    assert "--bandwidth=1 goes with --plan" in capsys.readouterr().err
    monkeypatch.setattr(plan, "world_size", lambda: 2)
    words = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", f"output={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match="start it without a launch file"):
        train(load(words), lambda run: plan.report(run, 1.0))
