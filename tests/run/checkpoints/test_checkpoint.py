"""Checkpoints: exact to the bit, verified, atomic, and what happens when they are damaged or cannot be written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from savae_dist import files
from savae_dist.config.schema import OptimizerConfig
from savae_dist.errors import CheckpointError, SaveError
from savae_dist.networks import Encoder, Network
from savae_dist.run.checkpoints import checkpoint, contents
from savae_dist.run.checkpoints.background_save import BackgroundSave
from savae_dist.run.checkpoints.checkpoint import (
    checkpoints,
    load_all_networks,
    load_networks,
    load_updates,
    newest,
    problem,
    read_state,
    save,
)
from savae_dist.run.checkpoints.contents import Contents
from savae_dist.run.reporting.side_outputs import SideOutputs
from savae_dist.run.training_state import FORMAT_VERSION, TrainingState
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import CPU, IMAGE, SmallRun, same

SMALL = SAVAE(latent_dim=3, vec_steps=6, decoder_steps=6)
SGD = {"decoder": OptimizerConfig("sgd", momentum=0.9)}


def trained(steps: int = 2) -> SmallRun:
    """In the decoder's phase, with an average, Adam for the critic and momentum for the decoder."""
    trainer = SmallRun(SMALL, optimizers=SGD, ema=0.5)
    for network in trainer.networks.values():
        network.to(memory_format=torch.channels_last)
    trainer.run("decoder", steps)
    return trainer


def state(total: int, phase_end: bool = False) -> TrainingState:
    return TrainingState("decoder", total, total, 0, phase_end, {"vec": 12.5}, lanes=8, config={"seed": 0})


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints 10, 20 and 30."""
    folder = tmp_path_factory.mktemp("template")
    trainer = trained()
    for total in (10, 20, 30):
        save(folder, trainer.networks, trainer.updates, state(total), keep=3)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "checkpoints"))


def names(folder: Path) -> list[str]:
    """Everything in the folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def small_save(folder: Path, total: int, keep: int = 3, phase_end: bool = False) -> Path:
    """Of one network."""
    networks = {"critic": SMALL.build(IMAGE, 4, "batch", 2)["critic"]}
    return save(folder, networks, {}, state(total, phase_end), keep)


# Writing and reading.


def test_a_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole = trained(2)
    path = save(tmp_path, whole.networks, whole.updates, state(2), keep=1)
    whole.run("decoder", 5, first=2)

    resumed = SmallRun(SMALL, optimizers=SGD, ema=0.5)
    for network in resumed.networks.values():
        network.to(memory_format=torch.channels_last)
        for parameter in network.parameters():
            torch.nn.init.zeros_(parameter)
    assert load_networks(path / "networks", resumed.networks) == list(resumed.networks)
    resumed.prepare("decoder")
    load_updates(path, resumed.updates)
    resumed.run("decoder", 5, first=2)

    assert all(same(a, resumed.weights()[name]) for name, a in whole.weights().items())
    for name, update in whole.updates.items():
        assert same(update.state()[0], resumed.updates[name].state()[0])
        assert update.state()[1] == resumed.updates[name].state()[1]
    averages = (trainer.updates["decoder"].averages["decoder"].network.state_dict() for trainer in (whole, resumed))
    assert same(*averages)


def test_what_was_left_out_is_remembered(tmp_path: Path) -> None:
    trainer = trained(1)
    trainer.updates["critic"].skipped.fill_(5)
    trainer.updates["critic"].skipped_in_a_row.fill_(2)
    path = save(tmp_path, trainer.networks, trainer.updates, state(1), keep=1)
    updates = trainer.prepare("decoder")
    assert int(updates["critic"].skipped) == 0
    load_updates(path, updates)
    assert (int(updates["critic"].skipped), int(updates["critic"].skipped_in_a_row)) == (5, 2)


def test_the_state_comes_back(tmp_path: Path) -> None:
    written = replace(state(7, phase_end=True), origin=640, config={"seed": 0, "data.train": ["a", "b"], "x": None})
    path = save(tmp_path, {}, {}, written, keep=1)
    assert path.name == "step-00000007"
    assert read_state(path) == written


def test_networks_are_folders_that_load_by_themselves(folder: Path) -> None:
    encoder = Encoder.from_pretrained(folder / "step-00000030" / "networks" / "encoder")
    assert encoder.latent_dim == 3
    assert (folder / "step-00000030" / "ema" / "decoder" / "config.json").is_file()
    assert not (folder / "step-00000030" / "ema" / "critic").exists()


def test_the_manifest_lists_every_file(folder: Path) -> None:
    path = folder / "step-00000030"
    files = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest.keys() == files - {"manifest.json"}
    assert {"state.json", "updates/critic.safetensors", "networks/decoder/model.safetensors"} <= manifest.keys()
    assert problem(path) is None


def test_tensors_are_as_readable_as_the_rest(folder: Path) -> None:
    """safetensors makes files that only their owner may read: a colleague could not go on with the run."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert len({path.stat().st_mode for path in files}) == 1


def test_no_pickle_is_written(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        assert path.suffix in (".json", ".safetensors")
        if path.suffix == ".safetensors":
            length = int.from_bytes(content[:8], "little")
            assert isinstance(json.loads(content[8 : 8 + length]), dict)
        else:
            assert isinstance(json.loads(content), dict)


# Damage.


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


WEIGHTS = "networks/decoder/model.safetensors"
DAMAGES = {
    "flipped": (WEIGHTS, flip, f"{WEIGHTS} was changed or cut"),
    "cut": ("updates/critic.safetensors", cut, "updates/critic.safetensors was changed or cut"),
    "state": ("state.json", cut, "state.json was changed or cut"),
    "missing": (WEIGHTS, Path.unlink, f"{WEIGHTS} is missing"),
    "no manifest": ("manifest.json", Path.unlink, "manifest.json cannot be read"),
    "cut manifest": ("manifest.json", cut, "manifest.json cannot be read"),
    "odd manifest": ("manifest.json", lambda path: path.write_text("3"), "manifest.json cannot be read"),
    "odder manifest": (
        "manifest.json",
        lambda path: path.write_text('{"state.json": 3}'),
        "manifest.json cannot be read",
    ),
    "empty manifest": ("manifest.json", lambda path: path.write_text("{}"), "manifest.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_a_damaged_one_is_taken(damage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, break_, reason = DAMAGES[damage]
    break_(folder / "step-00000030" / file)
    assert reason in (problem(folder / "step-00000030") or "")
    assert newest(folder) == folder / "step-00000020"
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "step-00000030" in told
    assert reason in told


def test_only_damaged_ones_are_an_error(folder: Path) -> None:
    for path in checkpoints(folder):
        flip(path / WEIGHTS)
    with pytest.raises(CheckpointError, match="none of 3 checkpoints verifies") as caught:
        newest(folder)
    assert caught.value.code == 76
    assert "\n" not in str(caught.value)


def test_none_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    assert newest(tmp_path / "missing") is None
    (tmp_path / ".step-00000010.123").mkdir()  # of a write that was killed
    assert newest(tmp_path) is None


def test_other_folders_are_no_checkpoints(folder: Path) -> None:
    shutil.copytree(folder / "step-00000010", folder / "step-of-my-own")
    assert newest(folder) == folder / "step-00000030"


def test_another_format_is_refused(folder: Path) -> None:
    path = folder / "step-00000030"
    values = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**values, "format_version": FORMAT_VERSION + 1}))
    with pytest.raises(CheckpointError, match=f"format {FORMAT_VERSION + 1} is not {FORMAT_VERSION}") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


def without(path: Path, first: int) -> None:
    """Rewrite a file of tensors without its first ones."""
    tensors = load_file(path)
    save_file({name: tensors[name] for name in sorted(tensors)[first:]}, path)


def scaled(path: Path) -> None:
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("exp_avg"))
    save_file({**tensors, name: torch.zeros(3)}, path)


def edited(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


CONTENTS = {  # what a checkpoint lacks although its manifest fits, and what is told of it
    "a network": (lambda path: shutil.rmtree(path / "networks" / "critic"), "networks/critic"),
    "a weight": (lambda path: without(path / WEIGHTS, 1), "networks/decoder"),
    "Adam's state": (lambda path: without(path / "updates/critic.safetensors", 1000), "optimiser state lacks"),
    "momenta": (lambda path: without(path / "updates/decoder.safetensors", 1000), "momentum_buffer"),
    "one state": (lambda path: without(path / "updates/critic.safetensors", 3), "lacks critic.*/exp_avg"),
    "a shape": (lambda path: scaled(path / "updates/critic.safetensors"), r"is \[3\], not"),
    "an update": (lambda path: (path / "updates/critic.json").unlink(), "updates/critic"),
    "an average": (lambda path: shutil.rmtree(path / "ema" / "decoder"), "ema/decoder"),
    "counts": (lambda path: edited(path / "updates/critic.json", skipped=[]), "updates/critic"),
    "another optimiser": (lambda path: edited(path / "updates/critic.json", optimizer="SGD"), "SGD, not of Adam"),
    "a state": (lambda path: edited(path / "state.json", steps=3), "state.json"),
}


@pytest.mark.parametrize("lack", CONTENTS)
def test_a_checkpoint_that_lacks_something_is_refused(lack: str, folder: Path) -> None:
    """A run that went on from it would silently train from other weights or with an optimiser that knows nothing."""
    path = folder / "step-00000030"
    break_, told = CONTENTS[lack]
    break_(path)
    trainer = SmallRun(SMALL, optimizers=SGD, ema=0.5)
    with pytest.raises(CheckpointError, match=told) as caught:
        resume_from(path, trainer)
    assert "\n" not in str(caught.value)
    assert "step-00000030" in str(caught.value)


def resume_from(path: Path, trainer: SmallRun) -> None:
    read_state(path)
    load_all_networks(path / "networks", trainer.networks)
    trainer.prepare("decoder")
    load_updates(path, trainer.updates)


def test_a_parameter_without_a_gradient_has_no_state(tmp_path: Path) -> None:
    """Without a KL and with the mean as code the log-variance gets none."""
    system = SAVAE(latent_dim=3, vec_steps=6, kl_weight=0.0, latent_input="mean")
    trainer, again = SmallRun(system), SmallRun(system)
    trainer.run("vec", 2)
    path = save(tmp_path, trainer.networks, trainer.updates, state(2), keep=1)
    noted = json.loads((path / "updates" / "vec.json").read_text())["stateless"]
    again.prepare("vec")
    load_updates(path, again.updates)
    assert same(trainer.updates["vec"].state()[0], again.updates["vec"].state()[0])
    edited(path / "updates" / "vec.json", stateless=None)  # as older versions wrote it
    load_updates(path, again.prepare("vec"))
    assert isinstance(noted, list)


def test_networks_of_another_width_are_refused(folder: Path) -> None:
    wider = SMALL.build(IMAGE, 8, "batch", 2)
    with pytest.raises(CheckpointError, match=r"does not fit this run's encoder") as caught:
        load_networks(folder / "step-00000030" / "networks", wider)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", [b"", b"no tensors here", None])
def test_networks_that_cannot_be_read_are_refused(content: bytes | None, tmp_path: Path) -> None:
    """`networks.initial` may be anybody's folder."""
    (tmp_path / "encoder").mkdir()
    if content is not None:
        (tmp_path / "encoder" / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="encoder") as caught:
        load_networks(tmp_path, SMALL.build(IMAGE, 4, "batch", 2))
    assert "\n" not in str(caught.value)


def test_networks_that_are_not_there_stay_as_they_are(folder: Path) -> None:
    networks = SMALL.build(IMAGE, 4, "batch", 2)
    shutil.rmtree(folder / "step-00000030" / "networks" / "critic")
    before = {name: value.clone() for name, value in networks["critic"].state_dict().items()}
    assert load_networks(folder / "step-00000030" / "networks", networks) == ["encoder", "classifier", "decoder"]
    assert same(before, networks["critic"].state_dict())
    assert next(networks["encoder"].parameters()).device == CPU


# Killed at any moment.


class Killed(BaseException):
    """In place of SIGKILL."""


def background_save(folder: Path, networks: dict[str, Network], state: TrainingState) -> None:
    """As `save` that keeps one, by the thread of a run."""
    writer = BackgroundSave(folder, 1, False, SideOutputs(), print)
    try:
        writer.begin(Contents.of(networks, {}, state))
        writer.wait()
    finally:
        writer.close()


@pytest.mark.parametrize("first", [40, 41])
@pytest.mark.parametrize("background", [False, True])
def test_killed_before_any_operation_a_whole_one_is_found(
    background: bool, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one checkpoint kept; 41: the step that is there is saved again, as its phase's end."""
    networks = {"critic": SMALL.build(IMAGE, 4, "batch", 2)["critic"]}
    operations = [(Path, "rename"), (Path, "replace"), (Path, "mkdir"), (os, "unlink"), (os, "rmdir"), (os, "fsync")]
    operations += [(Path, "write_text"), (contents, "save_file")]
    found = []
    for last in range(200):
        folder, left = tmp_path / str(last), iter(range(last))
        save(folder, networks, {}, state(first), keep=1)
        with monkeypatch.context() as patch:
            for place, what in operations:
                patch.setattr(place, what, killed_after(left, vars(place)[what]))
            try:
                if background:
                    background_save(folder, networks, state(41, phase_end=True))
                else:
                    save(folder, networks, {}, state(41, phase_end=True), keep=1)
                break
            except Killed:
                found.append(newest(folder))
        assert found[-1] is not None
        assert problem(found[-1]) is None
        save(folder, networks, {}, state(42), keep=1)
        assert set(names(folder)) <= {"step-00000040", "step-00000041", "step-00000042"}
        assert newest(folder) == folder / "step-00000042"
    assert len(found) > 15
    assert any(path.name.endswith(files.OLD) for path in found) == (first == 41)


def killed_after(left: Iterator[int], operation: Callable[..., object]) -> Callable[..., object]:
    def killed(*arguments: object, **options: object) -> object:
        if next(left, None) is None:
            raise Killed
        return operation(*arguments, **options)

    return killed


def test_an_old_one_that_cannot_be_removed_is_told_once_and_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On NFS a file that somebody reads stays as `.nfs...`, and so does its folder."""
    side, networks = SideOutputs(), {"critic": SMALL.build(IMAGE, 4, "batch", 2)["critic"]}

    def busy(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", busy)
        for total in (1, 2, 3):
            assert save(tmp_path, networks, {}, state(total), keep=1, side=side) == newest(tmp_path)
    assert checkpoints(tmp_path) == [tmp_path / "step-00000003"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "an old checkpoint cannot be removed" in line
    assert side.warnings == [line.removeprefix("savae_dist: ")]
    small_save(tmp_path, 4, keep=1)
    assert names(tmp_path) == ["step-00000004"]


def test_a_run_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SaveError, match=f"{tmp_path / 'run'} was removed while the run was at work") as caught:
        small_save(tmp_path / "run" / "checkpoints", 1)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


# Old ones.


def test_the_last_ones_and_the_ends_of_phases_are_kept(tmp_path: Path) -> None:
    for total in range(1, 8):
        small_save(tmp_path, total, keep=2, phase_end=total in (2, 4))
    assert names(tmp_path) == ["step-00000002", "step-00000004", "step-00000006", "step-00000007"]


def test_saving_again_replaces(tmp_path: Path) -> None:
    small_save(tmp_path, 3)
    path = small_save(tmp_path, 3, phase_end=True)
    assert names(tmp_path) == ["step-00000003"]
    assert read_state(path).phase_end
    assert problem(path) is None


def test_drafts_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-00000001.77" / "networks").mkdir(parents=True)
    small_save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000002"]


@pytest.mark.parametrize("damage", ["flipped", "state", "no manifest"])
def test_a_damaged_one_neither_counts_nor_goes(damage: str, folder: Path) -> None:
    """A run that went back to 20 saves at 25: both stay, although 30 is the newest by name."""
    file, break_, _ = DAMAGES[damage]
    break_(folder / "step-00000030" / file)
    saved = small_save(folder, 25, keep=1)
    assert names(folder) == ["step-00000025", "step-00000030"]
    assert newest(folder) == saved


# Writes that fail.


def no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (Path, "replace"),
        (Path, "write_text"),
        (contents, "save_file"),
        (checkpoint, "publish"),
        (os, "fsync"),
    ],
)
def test_an_interrupted_write_leaves_what_was_there(
    place: object, what: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trained(1)
    with monkeypatch.context() as patch:
        patch.setattr(place, what, no_space)
        with pytest.raises(SaveError, match="No space left on device") as caught:
            save(folder, trainer.networks, trainer.updates, state(40), keep=1)
    assert caught.value.code == 74
    assert "\n" not in str(caught.value)
    assert names(folder) == ["step-00000010", "step-00000020", "step-00000030"]
    assert newest(folder) == folder / "step-00000030"
    assert save(folder, trainer.networks, trainer.updates, state(40), keep=9) == newest(folder)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import torch
from savae_dist.run.checkpoints.checkpoint import save
from savae_dist.run.training_state import TrainingState
from savae_dist.errors import SaveError
from savae_dist.networks import ConvCritic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the write does not fail, the process ends
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    save(Path(sys.argv[1]), {"critic": ConvCritic((1, 12, 10), 4)}, {}, TrainingState("vec", 40, 40, 0), 3)
except SaveError as error:
    sys.exit(error.code)
"""


def test_a_file_that_cannot_be_written_in_truth(folder: Path) -> None:
    """safetensors has an exception of its own for it."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(folder)], capture_output=True, text=True)
    assert names(folder) == ["step-00000010", "step-00000020", "step-00000030"], done.stderr
    assert done.returncode == 74


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="could not be written"):
        small_save(tmp_path / "file" / "checkpoints", 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from savae_dist.run.checkpoints import checkpoint, contents
from savae_dist.run.training_state import TrainingState
from savae_dist.networks import ConvCritic
write = contents.sha256
def killed(path):
    if path.name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(path)
contents.sha256 = killed
checkpoint.save(Path(sys.argv[1]), {"critic": ConvCritic((1, 12, 10), 4)}, {},
                TrainingState("vec", 40, 40, 0), 3)
"""


def test_a_process_that_is_killed_while_it_writes(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), "state.json"], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert len(names(folder)) == 4  # the draft
    assert newest(folder) == folder / "step-00000030"
    small_save(folder, 40, keep=9)
    assert names(folder) == ["step-00000010", "step-00000020", "step-00000030", "step-00000040"]
