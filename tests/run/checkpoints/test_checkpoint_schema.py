"""Checkpoints whose files are what no `save` writes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import mutations

from savae_dist.errors import CheckpointError
from savae_dist.run.checkpoints.checkpoint import checkpoints, load_updates, newest, problem, read_state
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import SmallRun


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    mutations.make_checkpoint(folder)
    return folder / "one"


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "checkpoints"))


def change(path: Path, **values: Any) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    mutations.seal(path.parents[1])
    return path


def test_a_copy_under_a_higher_number_is_not_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(folder / "step-00000007", folder / "step-00000099")
    assert newest(folder) == folder / "step-00000007"
    assert "it was renamed or copied: state.json is of step 7; the one before it is used" in capsys.readouterr().err


def test_names_that_are_never_given_are_passed_over(folder: Path) -> None:
    for name in ("step-٠٠٠٠٠٠٩٩", "step-99", "step-000000000000000000099", "step-0000009a", "step-00000007 "):
        shutil.copytree(folder / "step-00000007", folder / name)
    assert checkpoints(folder) == [folder / "step-00000007"]


@pytest.mark.parametrize("end", ["pipe", "/dev/zero", "../outside"])
def test_a_manifest_that_is_no_file_or_points_elsewhere(end: str, folder: Path) -> None:
    manifest = folder / "step-00000007" / "manifest.json"
    if end == "../outside":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), end: {"size": 0, "sha256": "0" * 64}}))
    else:
        manifest.unlink()
        os.mkfifo(manifest) if end == "pipe" else manifest.symlink_to(end)
    words = "has a key that is '../outside', which lies elsewhere" if ".." in end else "it is no regular file"
    assert problem(folder / "step-00000007") == f"manifest.json cannot be read ({words})"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lanes": 10**9}, "lanes is 1000000000, not a whole number from 1 to 65,536"),
        ({"step": -1}, "step is -1, not a whole number"),
        ({"origin": "x"}, "origin is 'x', not a whole number"),
        ({"rates": {"vec": -1}}, r"rates\['vec'\] is -1"),
        ({"format_version": [2]}, r"format \[2\] is not 2"),
    ],
)
def test_a_state_that_no_run_has_is_named(values: dict[str, Any], words: str, folder: Path) -> None:
    change(folder / "step-00000007" / "state.json", **values)
    with pytest.raises(CheckpointError, match=words):
        read_state(folder / "step-00000007")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"averaged": {}}, "averaged has no decoder"),
        ({"skipped": [1]}, "skipped is a list of 1, not a list of 2 to 2"),
        ({"scaler": {}}, "scaler has no scale"),
    ],
)
def test_values_of_an_update_that_do_not_fit_are_named(values: dict[str, Any], words: str, folder: Path) -> None:
    change(folder / "step-00000007" / "updates" / "decoder.json", **values)
    run = SmallRun(SAVAE(latent_dim=3, vec_steps=6, decoder_steps=6), ema=0.5)
    with pytest.raises(CheckpointError, match=words):
        load_updates(folder / "step-00000007", run.prepare("decoder"))
