"""The checkpoint of the best validation stays, is the same after any kill, and can be exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.launching import SMALL, cut, equal, scalars, status, steps_saved, train, weights

from savae_dist.config.metric_names import VALIDATED, kept_by
from savae_dist.errors import ConfigError
from savae_dist.evaluation import metrics
from savae_dist.load_config import load
from savae_dist.pipeline import Pipeline
from savae_dist.run.checkpoints import checkpoint
from savae_dist.run.checkpoints.best import KeepBest
from savae_dist.run.checkpoints.checkpoint import read_state
from savae_dist.run.training_state import TrainingState
from savae_dist.train import main
from tools import export_hub, runs

# The error falls from validation to validation, so that the largest one is the first of the last phase: at step 4.
WORST = "keep_best=reconstruction_mse:higher"
STEPS = ["system.vec_steps=2", "system.decoder_steps=9", "validate_every=2", "checkpoint_every=3"]


def words(data: Path, output: Path, *more: str) -> list[str]:
    arguments = [*SMALL[:-1], *STEPS, WORST, "keep_checkpoints=1", "networks.norm=group"]
    return [*arguments, f"data.train={data}", "data.hold_out=0.2", *more, f"output={output}"]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert main(words(data, output)) == 0
    return output


def best_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())["best"]
    return found


def test_the_best_stays_beside_the_last(whole: Path) -> None:
    """Of the last phase, whose validations are at its steps 2, 4, 6 and 8, and at its end."""
    best, curve = best_of(whole), scalars(whole)["validation/reconstruction_mse"]
    assert list(curve) == [4, 6, 8, 10, 11]
    assert best["value"] == pytest.approx(max(curve.values()))
    assert (best["phase"], best["step"], best["total"]) == ("decoder", 2, 4)
    assert steps_saved(whole) == [2, 4, 11]  # the ends of phases, the best, and one: keep_checkpoints is 1
    assert read_state(whole / "checkpoints" / "step-00000004").best == best


def test_its_checkpoint_has_the_networks_that_were_measured(whole: Path, data: Path, tmp_path: Path) -> None:
    """Exported, and measured on what the run held out."""
    out = tmp_path / "out"
    assert export_hub.main([str(whole), str(out), "--best"]) == 0
    pipeline = Pipeline.from_pretrained(out)
    kept = weights(whole, "step-00000004")
    for name, value in pipeline.networks["decoder"].state_dict().items():
        assert (kept[f"networks/decoder/model.safetensors/{name}"] == value.numpy()).all()
    card = (out / "README.md").read_text()
    assert f"| `reconstruction_mse` | {best_of(whole)['value']:.6g} |" in card
    assert "| `decoder_steps` | 2 |" in card


@pytest.mark.parametrize("step", [2, 4])
def test_going_on_from_a_checkpoint(step: int, whole: Path, data: Path, tmp_path: Path) -> None:
    cut(whole, tmp_path / "run", step)
    (tmp_path / "run" / "summary.json").unlink()
    assert main(words(data, tmp_path / "run")) == 0
    assert best_of(tmp_path / "run") == best_of(whole)
    assert steps_saved(tmp_path / "run") == steps_saved(whole)
    assert equal(weights(tmp_path / "run"), weights(whole))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("killed", "newest"), [("between validation and save", 2), ("in the validation", 2), ("after the save", 4)]
)
def test_a_kill_changes_nothing(
    killed: str, newest: int, whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around step 4, where the best is found; the run stops there without being able to save."""
    output, write, measure, calls = tmp_path / "run", checkpoint.write, metrics.measure, []

    def dying(*arguments: Any, **options: Any) -> Path:
        if arguments[1].state.total == 4 and killed == "between validation and save":
            raise KeyError("killed")
        path = write(*arguments, **options)
        if arguments[1].state.total == 4:
            raise KeyError("killed")
        return path

    def cut_off(*arguments: Any) -> dict[str, float]:
        calls.append(None)
        if len(calls) == 2 and killed == "in the validation":
            raise KeyError("killed")
        return measure(*arguments)

    monkeypatch.setattr(checkpoint, "write", dying)
    monkeypatch.setattr(metrics, "measure", cut_off)
    with pytest.raises(KeyError, match="killed"):
        main(words(data, output))
    assert steps_saved(output)[-1] == newest
    monkeypatch.undo()
    assert main(words(data, output)) == 0
    assert best_of(output) == best_of(whole)
    assert steps_saved(output) == steps_saved(whole)
    assert equal(weights(output), weights(whole))


def test_a_validation_that_was_missed_is_made_up(data: Path, tmp_path: Path) -> None:
    """A run that was stopped after a save and before the validation; or one that gets `keep_best` later."""
    output, without = tmp_path / "run", tmp_path / "without"
    late = [word for word in words(data, without, "checkpoint_every=2", "max_steps=4") if word != WORST]
    assert main(late) == 0
    assert (without / "checkpoints" / "step-00000006").is_dir()
    cut(without, output, 4)  # step 2 of the decoder: validated, but nobody asked which is the best
    (output / "summary.json").unlink()
    assert main([*late[:-1], WORST, f"output={output}"]) == 0
    assert best_of(output)["total"] == 4


def test_a_best_that_is_gone_is_forgotten(whole: Path, data: Path, tmp_path: Path) -> None:
    """The run went back to before it, or somebody removed it."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints" / "step-00000004")
    assert main(words(data, run)) == 0
    assert best_of(run)["total"] == 11  # all that can be measured now


@pytest.mark.distributed
def test_two_processes_keep_the_same(whole: Path, data: Path, tmp_path: Path) -> None:
    result = train(2, *words(data, tmp_path / "run"))
    assert result.returncode == 0, result.stderr
    ours, theirs = best_of(tmp_path / "run"), best_of(whole)
    assert {**ours, "value": 0, "metrics": 0} == {**theirs, "value": 0, "metrics": 0}
    assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-4)
    assert steps_saved(tmp_path / "run") == steps_saved(whole)


def test_the_last_phase_ends_where_nothing_gets_better(whole: Path, data: Path, tmp_path: Path) -> None:
    """After two validations that were no better: at step 6 of 9; a kill before its end changes nothing."""
    output = tmp_path / "run"
    assert main(words(data, output, "patience=2")) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["steps"] == {"vec": 2, "decoder": 6}
    assert summary["best"]["total"] == 4
    assert steps_saved(output) == [2, 4, 8]
    again = tmp_path / "again"
    cut(output, again, 4)
    assert main(words(data, again, "patience=2")) == 0
    assert equal(weights(again), weights(output))
    assert steps_saved(again) == [2, 4, 8]
    assert main(words(data, again, "patience=3")) == 76  # it is another run


def test_which_is_better() -> None:
    at = TrainingState("b", step=1, total=5, origin=0)
    keep = KeepBest("accuracy", "accuracy", "higher", "b", 2, Path())
    assert not keep.judged({"accuracy": None}, at)
    assert not keep.judged({"accuracy": float("nan")}, at)
    assert keep.tired(at)
    assert keep.judged({"accuracy": 0.5, "kl": 1.0, "none": None}, at)
    assert at.best["metrics"] == {"accuracy": 0.5, "kl": 1.0}
    assert not keep.tired(at)
    at.total = 6
    assert not keep.judged({"accuracy": 0.5}, at)  # of equals the first
    assert (at.best["total"], at.judged, at.unimproved) == (5, 6, 1)
    assert KeepBest("kl:lower", "kl", "lower", "b", 0, Path()).judged({"kl": 9.0}, at)  # another metric begins anew
    at.phase = "a"
    assert not keep.judged({"accuracy": 1.0}, at)  # not all networks are trained


def test_the_names_are_those_of_a_validation() -> None:
    measured = metrics.summarise(metrics.no_sums())
    assert set(VALIDATED) == {name for name in measured if not name.startswith("class_mean")}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("keep_best=acuracy", "did you mean 'accuracy'"),
        ("keep_best=kl", "say which way is better, kl:lower or kl:higher"),
        ("keep_best=accuracy:up", "accuracy:lower or accuracy:higher"),
        ("keep_best=judge_flip_rate", "needs judge=PIPELINE"),
        ("patience=3", "without keep_best"),
    ],
)
def test_what_cannot_work_is_refused(word: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load([word])
    assert kept_by("accuracy:lower") == ("accuracy", "lower")


def test_without_a_validation_set_there_is_no_best(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, WORST, f"data.train={data}", f"output={tmp_path / 'run'}"]) == 2
    assert "needs a validation set: set data.hold_out=0.1" in capsys.readouterr().err
    assert export_hub.main([str(tmp_path / "run"), str(tmp_path / "out"), "--best"]) == 2
    assert "keep_best=METRIC" in capsys.readouterr().err


def test_the_runs_of_a_folder(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that was finished, and one that has been silent for long."""
    shutil.copytree(whole, tmp_path / "b" / "done")
    cut(whole, tmp_path / "a", 4)
    (tmp_path / "a" / "summary.json").unlink()
    stands = {**status(whole), "outcome": "running", "step": 2, "heartbeat": 0.0}
    (tmp_path / "a" / "status.json").write_text(json.dumps(stands))
    assert runs.main([str(tmp_path)]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "outcome", "step", "best", "metric", "hours"]
    value = f"{best_of(whole)['value']:.4g} at decoder 2  reconstruction_mse"
    assert first.startswith("a ")
    assert "silent for" in first
    assert "decoder 2/9" in first
    assert second.split()[:4] == ["b/done", "done", "decoder", "9/9"]
    assert value in second
    assert runs.main([str(tmp_path), "--by", "sharpness"]) == 0
    assert "sharpness" in capsys.readouterr().out
    assert runs.main([str(tmp_path / "a" / "checkpoints")]) == 2
    assert "holds no runs" in capsys.readouterr().err
