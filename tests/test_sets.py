"""The moments by which a run normalises leave out what it holds out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.launching import status, train

from savae_dist.config.schema import DataConfig
from savae_dist.data import Reader, Request, Shards, hold_out, pack, sequential
from savae_dist.errors import CheckpointError, DataError
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.sets import MOMENTS, merged, moments_by_shard, open_shards, stored_moments
from savae_dist.train import main

CHANNELS, LENGTH = 2, 32


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 windows in five shards whose levels differ, so that parts of them have moments of their own."""
    rng = np.random.default_rng(0)
    x = rng.normal(rng.normal(0, 9, (300, CHANNELS, 1)), 2.0, (300, CHANNELS, LENGTH)).astype(np.float32)
    folder = tmp_path_factory.mktemp("windows")
    pack(x, np.arange(300) % 3, folder, shard_size=64, block=16)
    return folder


def test_moments_are_those_of_the_samples_that_stay(windows: Path) -> None:
    shards = Shards.open(str(windows)).with_normalise("dataset")
    kept, _ = hold_out(shards, 0.3)
    reader = Reader(kept, sequential(kept), bad_budget=300)
    x = reader[Request(0, kept.size, range(kept.size))].x.numpy().astype(np.float64)
    parts = [[moments_by_shard(kept, rank, ranks) for rank in range(ranks)] for ranks in (1, 2, 3, 7)]
    specs = [merged(of_ranks, kept.spec) for of_ranks in parts]
    assert all(spec == specs[0] for spec in specs)  # to the bit
    np.testing.assert_allclose(specs[0].mean, x.mean((0, 2)), rtol=1e-9)
    np.testing.assert_allclose(specs[0].std, x.std((0, 2)), rtol=1e-9)
    assert abs(specs[0].mean[0] - shards.spec.mean[0]) > 1e-3


def test_without_a_sample_there_are_none(windows: Path) -> None:
    kept, _ = hold_out(Shards.open(str(windows)).with_normalise("dataset"), 0.3)
    with pytest.raises(DataError, match="no sample that is trained on"):
        merged([{}], kept.spec)


def arguments(windows: Path, run: Path) -> list[str]:
    common = ["system.name=vae", "networks.width=2", "networks.norm=group", "data.batch_size=16", "max_steps=4"]
    return [
        *common,
        "log_every=1",
        f"data.train={windows}",
        "data.normalise=dataset",
        f"output={run}",
        "data.hold_out=0.3",
    ]


def test_a_run_keeps_them(windows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert main(arguments(windows, run)) == 0
    kept, _ = open_shards(DataConfig(train=str(windows), normalise="dataset", hold_out=0.3))
    spec = merged([moments_by_shard(kept, 0, 1)], kept.spec)
    assert Pipeline.from_pretrained(run).spec == spec
    values = json.loads((run / MOMENTS).read_text())
    assert (tuple(values["mean"]), tuple(values["std"])) == (spec.mean, spec.std)
    assert stored_moments(run, values["of"], kept.spec) == spec
    assert stored_moments(run, "another set", kept.spec) is None

    monkeypatch.setattr("savae_dist.run.setup.moments_by_shard", None)  # it is not measured again
    assert main(arguments(windows, run)) == 0
    (run / MOMENTS).write_text('{"of": "x", "mean": [1], "std": [1, 2]}')
    with pytest.raises(CheckpointError, match=r"moments\.json: mean is a list of 1.*delete it: it is made again"):
        stored_moments(run, "x", kept.spec)
    assert main(arguments(windows, run)) == 76


@pytest.mark.distributed
def test_two_processes_have_the_same(windows: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(arguments(windows, one)) == 0
    done = train(2, *arguments(windows, two))
    assert done.returncode == 0, done.stderr
    assert status(two)["outcome"] == "done"
    assert (one / MOMENTS).read_bytes() == (two / MOMENTS).read_bytes()
