"""Checkpoints that a thread writes: they hold what training was at, one at a time, and their errors end the run."""

from __future__ import annotations

import errno
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.launching import SMALL, equal, scalars, status, steps_saved, train, weights

from savae_dist.networks import Encoder, Network
from savae_dist.pipeline.card.card_data import metrics_of
from savae_dist.run.checkpoints import background_save, checkpoint
from savae_dist.run.checkpoints.background_save import BackgroundSave
from savae_dist.run.checkpoints.checkpoint import Verified, problem, read_state
from savae_dist.run.checkpoints.contents import Contents
from savae_dist.run.reporting.side_outputs import SideOutputs
from savae_dist.run.training_state import TrainingState
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import IMAGE
from savae_dist.train import main

STEPS = ["system.vec_steps=6", "system.decoder_steps=0", "keep_checkpoints=9", "ema=0.5"]


def state(total: int) -> TrainingState:
    return TrainingState("vec", total, total, 0, lanes=8)


def networks() -> dict[str, Network]:
    built = SAVAE(latent_dim=3).build(IMAGE, 4, "batch", 2)
    return {name: built[name] for name in ("encoder", "critic")}


def writer(folder: Path, keep: int = 9) -> BackgroundSave:
    return BackgroundSave(folder, keep, False, SideOutputs(), print)


def test_it_holds_what_was_there_when_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training has gone on before a byte is written."""
    write, may = checkpoint.write, threading.Event()

    def waiting(*arguments: Any) -> Path:
        assert may.wait(30)
        return write(*arguments)

    monkeypatch.setattr(checkpoint, "write", waiting)
    training, at, saving = networks(), state(3), writer(tmp_path)
    before = {key: value.clone() for key, value in training["encoder"].state_dict().items()}
    saving.begin(Contents.of(training, {}, at))
    with torch.no_grad():
        for network in training.values():
            for parameter in network.parameters():
                parameter.fill_(float("nan"))
    at.rates["vec"], at.step = 1.0, 4
    may.set()
    saving.wait()
    saving.close()
    found = read_state(tmp_path / "step-00000003")
    assert (found.step, found.rates, found.good) == (3, {}, True)
    kept = Encoder.from_pretrained(tmp_path / "step-00000003" / "networks" / "encoder").state_dict()
    assert all(torch.equal(value, before[key]) for key, value in kept.items())


def test_the_next_one_is_copied_into_the_same_memory(tmp_path: Path) -> None:
    training, saving = networks(), writer(tmp_path)
    places = []
    for total in (1, 2):
        saving.begin(Contents.of(training, {}, state(total)))
        saving.wait()
        held = saving._memory._held["networks/critic/model.safetensors"]
        places.append({name: tensor.data_ptr() for name, tensor in held.items()})
    saving.close()
    assert places[0] == places[1]
    assert not set(places[0].values()) & {one.data_ptr() for one in training["critic"].state_dict().values()}


def test_weights_that_are_not_finite_are_no_good_state(tmp_path: Path) -> None:
    training = networks()
    torch.nn.init.constant_(next(training["critic"].parameters()), float("inf"))
    path = checkpoint.save(tmp_path, training, {}, state(1), keep=1)
    assert not read_state(path).good
    assert problem(path) is None


def test_what_was_verified_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a file of it is another: then it is, and found changed."""
    training, read = networks(), []
    hashed = checkpoint.sha256
    monkeypatch.setattr(checkpoint, "sha256", lambda path: read.append(path) or hashed(path))
    old = checkpoint.save(tmp_path, training, {}, state(1), keep=9)
    read.clear()
    verified = Verified()
    for total in (2, 3, 4):
        checkpoint.write(tmp_path, Contents.of(training, {}, state(total)), 9, verified=verified)
    assert {path.relative_to(tmp_path).parts[0] for path in read} == {old.name}  # of an earlier launch: once
    assert len(read) == len(set(read))
    file = tmp_path / "step-00000003" / "networks" / "critic" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert verified.problem(tmp_path / "step-00000003") == "networks/critic/model.safetensors was changed or cut"
    assert verified.problem(tmp_path / "step-00000002") is None


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that saves at every step, by the thread; never two at once."""
    output, active, most = tmp_path_factory.mktemp("whole") / "run", [], []
    with pytest.MonkeyPatch.context() as patch:
        write = checkpoint.write

        def counted(*arguments: Any) -> Path:
            active.append(None)
            most.append((len(active), threading.current_thread() is threading.main_thread()))
            time.sleep(0.05)
            try:
                return write(*arguments)
            finally:
                active.pop()

        patch.setattr(checkpoint, "write", counted)
        assert main([*SMALL, *STEPS, "checkpoint_every=1", f"data.train={data}", f"output={output}"]) == 0
    assert set(most) == {(1, False)}
    return output


def test_what_it_cost_is_told(whole: Path) -> None:
    summary = json.loads((whole / "summary.json").read_text())
    told = summary["checkpoints"]
    assert not any(name.startswith("checkpoints") for name in metrics_of(summary))
    assert told["count"] == len(steps_saved(whole)) + 2  # the end of each phase is saved twice
    assert told["seconds_waited"] > 0
    assert 0.05 * told["count"] < told["seconds_writing"]
    assert 0 < told["share_of_time"] < 1
    tensors = sum(value.nbytes for value in weights(whole).values())
    assert told["bytes"] == tensors
    assert scalars(whole)["checkpoints/seconds_waited"].keys() == set(steps_saved(whole))


@pytest.mark.parametrize("words", [["checkpoint_background=false"], ["checkpoint_every=1000", "log_every=2"]], ids=str)
def test_how_and_when_they_are_written_changes_nothing(
    words: list[str], whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the clock: it is looked at where the run logs, and here it is always time."""
    minutes = ["checkpoint_minutes=1e-9"] if "log_every=2" in words else ["checkpoint_every=2"]
    assert main([*SMALL, *STEPS, *minutes, *words, f"data.train={data}", f"output={tmp_path / 'run'}"]) == 0
    assert steps_saved(tmp_path / "run") == [2, 4, 6]
    for step in (2, 4, 6):
        name = f"step-{step:08d}"
        assert equal(weights(tmp_path / "run", name), weights(whole, name))


def test_one_that_fails_stops_the_run_at_the_next_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(contents: Contents, draft: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(background_save, "SAVE_AGAIN", ())
    arguments = [*SMALL, "system.vec_steps=3000", "checkpoint_every=2", f"data.train={data}", f"output={tmp_path}"]
    with monkeypatch.context() as patch:
        patch.setattr(Contents, "write", full)
        assert main(arguments) == 74
    assert 2 <= status(tmp_path)["step"] < 100
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"savae_dist: {tmp_path / 'checkpoints' / 'step-00000002'}: the checkpoint could not be")
    assert line.endswith("free space or choose another `output`, then run the same command again")


@pytest.mark.distributed
def test_two_ranks_end_together_where_rank_0_cannot_write(data: Path, tmp_path: Path) -> None:
    """The folder's name is taken by a file. Both have the same clock: that of rank 0."""
    output = tmp_path / "run"
    words = [*SMALL, "networks.norm=group", "checkpoint_minutes=1e-9", "checkpoint_every=5000", f"data.train={data}"]
    output.mkdir()
    (output / "config.yaml").touch()  # by which the folder is known as a run's
    (output / "checkpoints").touch()
    done = train(2, *words, f"output={output}")
    assert done.returncode != 0
    assert (status(output)["outcome"], status(output)["exit_code"]) == ("SaveError", 74), done.stderr
    assert done.stderr.count("trying again") == 3
    (output / "checkpoints").unlink()
    assert train(2, *words, "max_steps=2", "keep_checkpoints=9", f"output={tmp_path / 'other'}").returncode == 0
    assert steps_saved(tmp_path / "other") == [1, 2, 3, 4]
