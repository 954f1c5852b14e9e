"""Runs on tars of other writers: `data.x` and `data.y`, what their start says, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.launching import scalars, train, weights
from helpers.small_runs import SMALL
from helpers.stores import web
from helpers.tars import Members, tar

from savae_dist.data.formats.npy import encode_image
from savae_dist.train import main

NAMES = ["dog", "cat", "eel"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def foreign(folder: Path, per: int = 15, shards: int = 3, spoilt: int = 0, names: list[str] = NAMES) -> Path:
    """Images and masks, with their labels in JSON; `spoilt` of every shard have a dot too many in their key."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for shard in range(shards):
        members: Members = []
        for i in range(per):
            key = f"{shard}-{i:03d}{'.old' * (i < spoilt)}"
            image, mask = (rng.integers(0, 256, (16, 16), dtype=np.uint8) for _ in range(2))
            label = {"id": i, "label": names[(i + shard) % len(names)]}
            members += [(f"{key}.png", encode_image(image)), (f"{key}.mask.png", encode_image(mask))]
            members.append((f"{key}.json", json.dumps(label).encode()))
        (folder / f"{shard:03d}.tar").write_bytes(tar(members))
    return folder


def run(data: object, output: Path, *options: str, code: int = 0) -> None:
    assert main([*SMALL, f"data.train={data}", f"output={output}", *options]) == code


def test_a_run_on_labels_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Chosen members and labels are part of what identifies it; it goes on with the same and not with others."""
    data = foreign(tmp_path / "set")
    labelled = ("data.y=json:label", "checkpoint_every=1")
    run(data, tmp_path / "a", *labelled)
    said = capsys.readouterr().err
    assert "not used: mask.png 45" in said
    assert "3 classes, 0 unlabelled" in said
    assert "left out:" not in said
    whole = weights(tmp_path / "a")
    shutil.rmtree(max((tmp_path / "a" / "checkpoints").iterdir()))
    run(data, tmp_path / "a", *labelled)
    resumed = weights(tmp_path / "a")
    assert all((resumed[key] == value).all() for key, value in whole.items())
    run(data, tmp_path / "a", "data.y=json:id", code=76)
    assert "was trained with data.y=json:label, not json:id" in capsys.readouterr().err
    run(data, tmp_path / "a", *labelled, "data.x=mask.png", code=76)
    assert "was trained with data.x=None, not mask.png" in capsys.readouterr().err
    run(data, tmp_path / "c", *labelled, "data.x=mask.png")
    masks = weights(tmp_path / "c")
    assert any((masks[key] != value).any() for key, value in whole.items())


def test_a_system_that_needs_labels_says_why_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(foreign(tmp_path / "set"), tmp_path / "a", code=2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert (
        "at least 2 classes, system.name=vae none; data.train has 0; no sample has a label, and beside them stand "
        in last
    )
    assert "json 45 (with id, label): data.y=json:label" in last


def test_several_labels_are_none_and_one_of_them_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = foreign(tmp_path / "set")
    run(data, tmp_path / "a", "data.attributes=json:id", code=2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert (
        "at least 2 classes, system.name=vae none; data.train has 0; each sample has 1 attributes (id) by data" in last
    )
    run(data, tmp_path / "a", "data.attributes=json:id", "data.y=json:label")
    assert "3 classes, 0 unlabelled" in capsys.readouterr().err


def test_what_the_index_leaves_out_counts_in_the_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A share, said at every start; more than that is refused with the share and what to do."""
    data = foreign(tmp_path / "set", spoilt=3)
    run(data, tmp_path / "a", "data.y=json:label", code=65)
    (last,) = capsys.readouterr().err.splitlines()[-1:]
    lost = "9 of 45 samples are of no use, more than data.bad_budget=0.01 allows: dot in the name"
    assert lost not in last  # each of these keys has two images: both are lost
    assert "18 of 54 samples are of no use, more than data.bad_budget=0.01 allows: dot in the name 18" in last
    assert "a key ends at the first dot of its name: rename the members" in last
    for _ in range(2):
        run(data, tmp_path / "a", "data.y=json:label", "data.bad_budget=0.34")
        assert "left out:   data.train: 18 of 54 samples (33.3%) are of no use: " in capsys.readouterr().err


def test_the_validation_set_is_read_by_the_same_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its names have the numbers of the training set; those that are none of its classes are told, and unlabelled."""
    data = foreign(tmp_path / "set")
    validation = foreign(tmp_path / "val", shards=1, spoilt=1, names=["ant", "eel"])
    run(data, tmp_path / "a", "data.y=json:label", f"data.validation={validation}")
    said = capsys.readouterr().err
    assert "14 for validation (7 of classes that data.train has none of, so unlabelled)" in said
    assert "left out:   data.validation: 2 of 16 samples (12.5%)" in said


def test_keys_that_change_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("data.x=jpg", "data.y=txt"):
        assert main([*SMALL, option, f"output={tmp_path / 'a'}"]) == 2
        assert f"{option} has no effect on the embedded digits" in capsys.readouterr().err
    run(foreign(tmp_path / "set"), tmp_path / "a", "data.y=json", code=2)
    assert "data.y=json does not say where in the JSON the label stands" in capsys.readouterr().err


def test_behind_urls_as_on_disk(tmp_path: Path) -> None:
    data = foreign(tmp_path / "served" / "set")
    shutil.copytree(data, tmp_path / "local")
    options = ("data.y=json:label", "data.x=mask.png", f"data.cache_dir={tmp_path / 'kept'}")
    with web(tmp_path / "served") as server:
        for name, place in (("here", tmp_path / "local"), ("there", f"{server.url}/set")):
            run(f"{place}/{{000..002}}.tar", tmp_path / name, *options)
    here, there = weights(tmp_path / "here"), weights(tmp_path / "there")
    assert all((there[key] == value).all() for key, value in here.items())


@pytest.mark.distributed
def test_one_process_equals_two(tmp_path: Path) -> None:
    """Both index the set on first use: the second finds what the first has made."""
    options = ["data.y=json:label", "optimizers.default.name=sgd", "networks.norm=group", "log_every=1", "max_steps=3"]
    losses = {}
    for processes in (1, 2):
        data, output = foreign(tmp_path / f"set{processes}"), tmp_path / f"run{processes}"
        done = train(processes, *SMALL, *options, f"data.train={data}", f"output={output}", f"accumulate={processes}")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("indexed") == 1
        losses[processes] = scalars(output)
    for name in ("vec/cat", "vec/kl", "decoder/rec"):
        for step, value in losses[1][name].items():
            assert losses[2][name][step] == pytest.approx(value, rel=1e-5, abs=1e-6)
