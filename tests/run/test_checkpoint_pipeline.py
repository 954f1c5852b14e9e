"""A checkpoint's folder loads as a pipeline, so that it can be measured: with the weights that validation measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from savae_dist.data import pack
from savae_dist.errors import CheckpointError
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.train import main as train
from tools import evaluate

SMALL = ["networks.width=4", "system.latent_dim=2", "data.batch_size=16", "max_steps=2", "checkpoint_every=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    packed(folder / "set")
    data = [f"data.train={folder / 'set'}", "data.hold_out=0.2"]
    assert train([*SMALL, *data, "ema=0.5", "keep_checkpoints=9", f"output={folder / 'run'}"]) == 0
    return folder / "run"


def packed(folder: Path) -> None:
    """60 small images of three classes."""
    x = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    pack(x, np.arange(60) % 3, folder)


def test_it_grows_with_the_phases_and_ends_as_the_run_s_own(run: Path) -> None:
    steps = sorted((run / "checkpoints").glob("step-*"))
    first, last, whole = (Pipeline.from_pretrained(folder) for folder in (steps[0], steps[-1], run))
    assert list(first.networks) == ["encoder", "classifier"]
    assert last.networks.keys() == whole.networks.keys()
    assert (last.spec, last.system) == (whole.spec, whole.system)
    for name, network in whole.networks.items():
        state = last.networks[name].state_dict()
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert last.generate(2, seed=0).shape == (2, 8, 8)


def test_averages_are_taken_while_they_are_kept(run: Path) -> None:
    step = sorted((run / "checkpoints").glob("step-*"))[0]
    found = Pipeline.from_pretrained(step).networks["encoder"].state_dict()
    average, plain = (
        Pipeline.from_pretrained(run).networks["encoder"].from_pretrained(step / kind / "encoder")
        for kind in ("ema", "networks")
    )
    assert all(torch.equal(value, found[key]) for key, value in average.state_dict().items())
    assert not all(torch.equal(value, found[key]) for key, value in plain.state_dict().items())


def test_it_is_measured_by_the_tool(run: Path, tmp_path: Path) -> None:
    step = sorted((run / "checkpoints").glob("step-*"))[-1]
    assert evaluate.main([str(step), str(run.parent / "set"), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "metrics.json").is_file()


def test_clusters_without_names_are_no_classifier(tmp_path: Path) -> None:
    packed(tmp_path / "set")
    output = tmp_path / "run"
    data = [f"data.train={tmp_path / 'set'}", "data.hold_out=0.2", f"output={output}"]
    assert train(["system.name=aae_unsupervised", "system.clusters=4", *SMALL, *data]) == 0
    step = sorted((output / "checkpoints").glob("step-*"))[-1]
    assert "classifier" not in Pipeline.from_pretrained(step).networks
    assert "classifier" in Pipeline.from_pretrained(output).networks


def test_a_folder_of_checkpoints_is_none(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no pipeline\.json"):
        Pipeline.from_pretrained(run / "checkpoints")
