"""Interrupted equals uninterrupted, bit for bit, in both phases; and a run that cannot go on says why."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers.launching import SMALL, command, cut, environment, equal, shards, status, wait_until_it_trains, weights

from savae_dist.config.identity import identity
from savae_dist.data import pack
from savae_dist.errors import CheckpointError, OccupiedError
from savae_dist.load_config import load
from savae_dist.run.checkpoints.checkpoint import newest, read_state
from savae_dist.run.setup import resume
from savae_dist.run.training_state import TrainingState
from savae_dist.train import main

STEPS = ["system.vec_steps=5", "system.decoder_steps=5", "checkpoint_every=2", "keep_checkpoints=9", "ema=0.5"]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert main([*SMALL, *STEPS, f"data.train={data}", f"output={output}"]) == 0
    return output


def test_the_undisturbed_run_keeps_its_checkpoints(whole: Path) -> None:
    names = sorted(p.name for p in (whole / "checkpoints").iterdir())
    assert names == [f"step-{n:08d}" for n in (2, 4, 5, 7, 9, 10)]
    assert status(whole)["outcome"] == "done"


@pytest.mark.parametrize("step", [2, 4, 5, 7, 9])
@pytest.mark.parametrize("workers", [0, 1])
def test_going_on_from_any_checkpoint(step: int, workers: int, whole: Path, data: Path, tmp_path: Path) -> None:
    """In phase 1, at its end, and in phase 2; as if the run had died right after that checkpoint."""
    if workers and step not in (4, 7):
        pytest.skip("worker processes: one step of each phase is enough")
    output = tmp_path / "run"
    cut(whole, output, step)
    assert main([*SMALL, *STEPS, f"data.train={data}", f"output={output}", f"data.workers={workers}"]) == 0
    assert equal(weights(output), weights(whole))
    for network in ("encoder", "classifier", "decoder"):
        name = f"pipeline/{network}/model.safetensors"
        assert (output / name).read_bytes() == (whole / name).read_bytes()


def test_a_damaged_checkpoint_is_named_and_passed_over(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    for step in (9, 10):
        file = output / "checkpoints" / f"step-{step:08d}" / "networks" / "decoder" / "model.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    assert main([*SMALL, *STEPS, f"data.train={data}", f"output={output}"]) == 0
    assert equal(weights(output), weights(whole))
    error = capsys.readouterr().err
    assert "step-00000010: networks/decoder/model.safetensors was changed" in error
    assert "continuing step-00000007" in error


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ("system.beta=0.5", 76, "system.beta=0.001, not 0.5"),
        ("data.batch_size=8", 76, "data.batch_size"),
        ("resume=never", 2, "resume=never"),
    ],
)
def test_another_run_s_folder_is_refused(
    change: str, code: int, words: str, whole: Path, data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    assert main([*SMALL, *STEPS, f"data.train={data}", f"output={output}", change]) == code
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert words in error[0]
    assert status(output)["outcome"] == "done"  # as the run that lies there ended


def test_other_data_are_refused(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, other = tmp_path / "run", shards(tmp_path / "other", n=150)
    shutil.copytree(whole, output)
    assert main([*SMALL, *STEPS, f"data.train={other}", f"output={output}"]) == 76
    assert "data" in capsys.readouterr().err


def test_frozen_stays_frozen_to_the_bit(whole: Path) -> None:
    start, end = weights(whole, "step-00000005"), weights(whole, "step-00000010")
    frozen = [k for k in start if k.startswith(("networks/encoder", "networks/classifier"))]
    assert len(frozen) > 40
    assert all(np.array_equal(start[k], end[k]) for k in frozen)
    assert any(not np.array_equal(start[k], end[k]) for k in start if k.startswith("networks/decoder"))


@pytest.mark.faults
@pytest.mark.parametrize(("processes", "to"), [(1, "trainer"), (1, "launcher"), (2, "trainer")])
def test_sigterm_saves_and_the_same_command_goes_on(processes: int, to: str, data: Path, tmp_path: Path) -> None:
    """The signal reaches one rank, or the launcher alone; all stop after the same step, with 75 in status.json."""
    steps = ["system.vec_steps=150", "system.decoder_steps=2", "checkpoint_every=1000", "networks.norm=group"]
    arguments = [*SMALL, *steps, f"data.train={data}"]
    output = tmp_path / "run"
    running, trainers = started(processes, *arguments, f"output={output}")
    os.kill(trainers[-1] if to == "trainer" else running.pid, signal.SIGTERM)
    running.wait(timeout=90)
    deadline = time.monotonic() + 90
    while to == "launcher" and status(output)["exit_code"] is None and time.monotonic() < deadline:
        time.sleep(0.1)  # `accelerate launch` of a single process ends before its trainer
    assert running.stderr is not None
    running.stderr.close()
    assert status(output)["exit_code"] == 75, status(output)
    stopped_at = max(p.name for p in (output / "checkpoints").iterdir())
    assert 0 < int(stopped_at.removeprefix("step-")) < 150
    again = subprocess.run(
        command(processes, *arguments, f"output={output}"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert again.returncode == 0, again.stderr
    assert f"continuing {stopped_at}" in again.stderr
    straight = tmp_path / "straight"
    assert (
        subprocess.run(
            command(processes, *arguments, f"output={straight}"), env=environment(), capture_output=True, timeout=240
        ).returncode
        == 0
    )
    assert equal(weights(output), weights(straight))


@pytest.mark.faults
def test_of_two_launches_into_one_folder_the_second_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves status.json alone; and a first that is killed does not stand in the second's way."""
    output = tmp_path / "run"
    steps = ["system.vec_steps=150", "system.decoder_steps=2", "data.workers=1"]
    arguments = [*SMALL, *steps, f"data.train={data}", f"output={output}"]
    running, trainers = started(1, *arguments)
    try:
        os.kill(trainers[0], signal.SIGSTOP)
        first = status(output)
        monkeypatch.setattr("savae_dist.distributed.folder_lock.PATIENCE_SECONDS", 1.0)
        assert main(arguments) == OccupiedError.code == 75
        told, error = capsys.readouterr().err.strip().splitlines()
        assert told == f"output={output}: another launch is at work there; waiting up to 1 s for its end"
        assert error.startswith(
            f"savae_dist: output={output}: another launch is at work there, as its status.json tells"
        )
        assert main([*arguments, "precision=fp16"]) == 2  # before it asks for the folder
        with pytest.MonkeyPatch.context() as waiting:
            waiting.setattr("savae_dist.distributed.folder_lock.PATIENCE_SECONDS", 60.0)
            threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
            assert main(arguments) == 75
        assert "stopped by signal 15 before it began" in capsys.readouterr().err
        assert status(output) == first
    finally:
        os.kill(trainers[0], signal.SIGKILL)
    running.wait(timeout=30)
    assert running.stderr is not None
    running.stderr.close()
    assert main(arguments) == 0
    assert status(output)["outcome"] == "done"


def started(processes: int, *arguments: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A launch that trains by now, and its trainers' process ids; the last of `arguments` is its output."""
    output = Path(arguments[-1].removeprefix("output="))
    running = subprocess.Popen(
        command(processes, *arguments), env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_until_it_trains(output)
    except AssertionError:
        os.killpg(running.pid, signal.SIGKILL)
        raise
    return running, children(running.pid)


def children(pid: int) -> list[int]:
    """Descendants of `pid` that train."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text().split("\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:  # gone meanwhile
                continue
            if parent == pid and "savae_dist.train" in words:
                found.append(int(entry.name))
    return sorted(found)


def test_a_refusal_shows_no_password_and_no_signature(tmp_path: Path) -> None:
    """It goes into status.json and logs."""
    urls = [f"https://me:{word}@host/{name}.tar?signature={word}" for name, word in (("a", "secret"), ("b", "hidden"))]
    before, now = (load([f"data.train=[{url}]", f"output={tmp_path}"]) for url in urls)
    there, here = (TrainingState("vec", 1, 1, 0, lanes=8, config=identity(config)) for config in (before, now))
    (tmp_path / "state.json").write_text(json.dumps(asdict(there)))
    with pytest.raises(
        CheckpointError, match=r"data\.train=\['https://host/a\.tar'\], not \['https://host/b"
    ) as caught:
        resume(now, here, {}, tmp_path, None)
    assert not any(word in str(caught.value) for word in ("secret", "hidden"))


def test_what_was_auto_stays_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run of before, with two pools and two dimensions where `auto` would be three and 128 by now."""
    pack(np.zeros((8, 40, 40, 3), np.uint8), np.arange(8) % 2, tmp_path / "shards")
    arguments = [f"data.train={tmp_path / 'shards'}", f"output={tmp_path / 'run'}", "networks.width=2"]
    arguments += ["data.batch_size=4", "max_steps=1", "system.name=vae"]
    assert main([*arguments, "networks.pools=2", "system.latent_dim=2"]) == 0
    assert main(arguments) == 0
    assert "vae, K = 2, 2 pools" in capsys.readouterr().err
    assert main([*arguments, "networks.pools=3"]) == 76
    assert "was trained with networks.pools=2, not 3: restore it" in capsys.readouterr().err
    assert load([str(tmp_path / "run" / "config.yaml")]).networks.pools == 2
    assert main([*arguments[:1], f"output={tmp_path / 'new'}", *arguments[2:]]) == 0
    assert "vae, K = 128, 3 pools" in capsys.readouterr().err
    stored = read_state(newest(tmp_path / "new" / "checkpoints") or tmp_path).config
    assert (stored["networks.pools"], stored["system.latent_dim"]) == (3, 128)
