"""A run that diverges: what it says, and how it goes back to a good checkpoint with lower learning rates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import SMALL, equal, scalars, status, train, weights

from savae_dist.data import pack
from savae_dist.errors import OutageError
from savae_dist.run.checkpoints import checkpoint
from savae_dist.run.checkpoints.checkpoint import checkpoints, newest_good, read_state
from savae_dist.run.checkpoints.contents import Contents
from savae_dist.run.reporting.warning_signs import worse_than_class_means
from savae_dist.run.run import Run
from savae_dist.run.training_data import TrainingData
from savae_dist.systems.phases import Phase
from savae_dist.train import main

STEPS = ["system.vec_steps=24", "system.decoder_steps=0", "checkpoint_every=4", "keep_checkpoints=2"]


class Killed(BaseException):
    """In place of SIGKILL."""


def poisoned(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """From step `at` on, no gradient of a run at its full learning rate is finite, and its weights are not either."""
    train = Run.train

    def train_(self: Run, phase: Phase) -> None:
        beat = self.process.status.beat

        def poison(name: str, step: int) -> None:
            beat(name, step)
            if step == at and self.training.lr_scale == 1.0:
                with torch.no_grad():
                    next(self.networks["encoder"].parameters()).fill_(float("nan"))

        self.process.status.beat = poison  # type: ignore[method-assign]
        try:
            train(self, phase)
        finally:
            self.process.status.beat = beat  # type: ignore[method-assign]

    monkeypatch.setattr(Run, "train", train_)


def words(data: Path, *more: str) -> list[str]:
    return [*SMALL, *STEPS, "nonfinite_limit=3", f"data.train={data}", *more]


def test_going_back_and_on_with_lower_rates(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It diverges at step 12: checkpoint 8 is good; 12 has weights that are not finite."""
    poisoned(monkeypatch, at=10)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    retry = ["divergence.retries=1"]
    assert main(words(data, *retry, f"output={whole}")) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "back to the last good checkpoint" in line]
    assert len(told) == 1
    assert "retry 1 of 1, at 0.5 times the learning rates" in told[0]
    ends = read_state(checkpoints(whole / "checkpoints")[0])
    assert (ends.total, ends.retries, ends.lr_scale, ends.good) == (24, 1, 0.5, True)
    rates = scalars(whole)["vec/lr"]
    assert rates[24] < rates[8]

    # Killed after the retry's first checkpoint: the count and the rate are in it.
    write = checkpoint.write

    def once(folder: Path, contents: Contents, *rest: object) -> Path:
        path = write(folder, contents, *rest)
        if contents.state.retries and contents.state.total == 16:
            raise Killed
        return path

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", once)
        with pytest.raises(Killed):
            main(words(data, *retry, f"output={killed}"))
    assert main(words(data, *retry, f"output={killed}")) == 0
    assert equal(weights(killed), weights(whole))


def test_the_last_good_one_stays_and_the_others_go(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    poisoned(monkeypatch, at=6)
    more = ["nonfinite_limit=12", f"output={tmp_path}"]
    assert main([*words(data), *more]) == 70
    assert "divergence.retries" in capsys.readouterr().err.splitlines()[-1]
    folder = tmp_path / "checkpoints"
    states = {path.name: read_state(path).good for path in checkpoints(folder)}
    assert states == {"step-00000016": False, "step-00000012": False, "step-00000004": True}
    assert newest_good(folder) == folder / "step-00000004"
    shutil.rmtree(folder / "step-00000004")
    assert newest_good(folder) is None
    # Diverged again at once, it starts anew, since none is good.
    assert main([*words(data), *more, "divergence.retries=1"]) == 0
    assert {read_state(path).good for path in checkpoints(folder)} == {True}


def test_too_many_divergences_end_with_70(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wild = ["optimizers.vec.lr=1e30", "divergence.retries=1"]
    assert main(words(data, *wild, f"output={tmp_path}")) == 70
    assert capsys.readouterr().err.count("back to the last good checkpoint") == 1
    assert status(tmp_path)["outcome"] == "DivergedError"


@pytest.mark.distributed
def test_two_ranks_go_back_together(data: Path, tmp_path: Path) -> None:
    """At once, before there is a checkpoint: to the beginning; the rate is then a thousandth."""
    wild = ["optimizers.vec.lr=1e30", "divergence.retries=1", "divergence.lr_factor=1e-33", "debug.check_ranks=1"]
    done = train(2, *words(data, *wild, "networks.norm=group", "max_steps=8", f"output={tmp_path}"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("back to the last good checkpoint") == 1
    ends = read_state(checkpoints(tmp_path / "checkpoints")[0])
    assert (ends.total, ends.retries, ends.good) == (8, 1, True)


def test_samples_that_are_too_large_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((60, 64)) * 1e30).astype(np.float32)
    pack(x, np.arange(60) % 3, tmp_path / "shards", rate=1000.0)
    more = ["data.normalise=none", f"output={tmp_path / 'run'}"]
    assert main([*words(tmp_path / "shards"), *more]) == 70
    line = capsys.readouterr().err.splitlines()[-1]
    assert "not even the first had one, on values up to " in line
    assert line.endswith("set data.normalise=dataset")


def test_a_divergence_is_told_where_the_data_are_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def first(self: TrainingData, size: int) -> list[torch.Tensor]:
        raise OutageError("the store does not answer")

    pack(np.full((60, 64), 1e30, np.float32), np.arange(60) % 3, tmp_path / "shards", rate=1000.0)
    monkeypatch.setattr(TrainingData, "first", first)
    assert main([*words(tmp_path / "shards"), "data.normalise=none", f"output={tmp_path / 'run'}"]) == 70
    assert "not even the first had one: set data.normalise=dataset" in capsys.readouterr().err.splitlines()[-1]


def test_raw_counts_do_not_overflow(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pack(rng.uniform(0, 3e3, (60, 64)).astype(np.float32), np.arange(60) % 3, tmp_path / "shards", rate=1000.0)
    more = ["data.normalise=none", "max_steps=2", f"output={tmp_path / 'run'}"]
    assert main([*words(tmp_path / "shards"), *more]) == 0
    assert max(scalars(tmp_path / "run")["vec/skipped"].values()) == 0


def test_a_run_that_learnt_nothing_says_so(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert worse_than_class_means({"reconstruction_mse": 0.618, "class_mean_mse": 0.047})
    assert not worse_than_class_means({"reconstruction_mse": 0.05, "class_mean_mse": 0.047})
    assert not worse_than_class_means({"reconstruction_mse": None, "class_mean_mse": 0.047})
    few = [*SMALL, "max_steps=1", f"data.train={data}", f"data.validation={data}", f"output={tmp_path}"]
    assert main(few) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    warned = [line for line in status(tmp_path)["warnings"] if "nothing useful was learnt" in line]
    assert len(warned) == (summary["reconstruction_mse"] > 2 * summary["class_mean_mse"])
    assert capsys.readouterr().err.count("nothing useful was learnt") == len(warned)
