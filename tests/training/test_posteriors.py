"""The posteriors of a frozen encoder that are kept over a phase: which, for whom, and that nothing else changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from helpers.launching import equal, shards, train, weights

from savae_dist.data import RawBatch
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.networks import ConvEncoder
from savae_dist.precision import autocast
from savae_dist.run import posterior_cache
from savae_dist.train import main
from savae_dist.training.batches import BatchBuilder, BatchSplit
from savae_dist.training.posteriors import encode

CPU = torch.device("cpu")
SMALL = ["system.name=savae", "system.latent_dim=3", "networks.width=4", "networks.norm=group", "data.batch_size=16"]
SMALL += ["system.vec_steps=2", "system.decoder_steps=30", "log_every=1000", "validate_every=1000"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_is_the_one_of_a_training_batch(accumulate: int) -> None:
    """At the size of the batch that a rank sees, also of the last few samples, and of those that could not be read."""
    torch.manual_seed(0)
    encoder = ConvEncoder((1, 12, 12), 3, width=4).eval().requires_grad_(False)
    x, y = torch.rand(21, 1, 12, 12), torch.zeros(21, dtype=torch.int64)
    builder = BatchBuilder(BatchSplit(8, accumulate=accumulate), CPU, lambda x: x, seed=0)
    ids = torch.tensor([i for i in range(21) if i != 4])
    kept = encode(encoder, [RawBatch(x[ids], y[ids], ids, ids, 0)], builder, 21, autocast("fp32", CPU))
    rows = torch.randperm(21)[: 8 // accumulate]
    rows[rows == 4] = rows[0] if rows[0] != 4 else 5
    found = kept.of(rows)
    assert found is not None
    for value, expected in zip(found, encoder(x[rows])[0], strict=True):
        assert torch.equal(value, expected)
    assert kept.of(torch.tensor([3, 4])) is None


def runs(data: Path, folder: Path, *more: str) -> dict[str, Path]:
    common = [*SMALL, f"data.train={data}", *more]
    found = {"kept": folder / "kept", "none": folder / "none"}
    assert main([*common, f"output={found['kept']}"]) == 0
    assert main([*common, "posterior_cache=0", f"output={found['none']}"]) == 0
    return found


@pytest.mark.parametrize("more", [[], ["accumulate=2", "data.cache=memory", "precision=bf16"]], ids=str)
def test_a_run_is_the_same_without(more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    monkeypatch.setattr(posterior_cache, "encode", lambda *given: used.append(encode(*given)) or used[-1])
    found = runs(shards(tmp_path / "shards"), tmp_path, *more)
    assert len(used) == 1
    assert bool(used[0].known.all())
    assert equal(weights(found["kept"]), weights(found["none"]))


def test_a_run_goes_on_with_them(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    common = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", "checkpoint_every=7", "keep_checkpoints=9"]
    assert main([*common, f"output={whole}"]) == 0
    for name in ("step-00000002", "step-00000009"):
        shutil.copytree(whole / "checkpoints" / name, parts / "checkpoints" / name)
    assert main([*common, f"output={parts}"]) == 0
    assert equal(weights(whole), weights(parts))


@pytest.mark.distributed
def test_two_processes_train_the_same_without(tmp_path: Path) -> None:
    data = shards(tmp_path / "shards")
    for name, more in (("kept", []), ("none", ["posterior_cache=0"])):
        done = train(2, *SMALL, f"data.train={data}", *more, f"output={tmp_path / name}")
        assert done.returncode == 0, done.stderr
    assert equal(weights(tmp_path / "kept"), weights(tmp_path / "none"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("log_every=9", "kept: 0.00568 MB in each process"),
        ("system.decoder_steps=16", "not kept: each sample is read 3.8 times"),
        ("data.augment.flip=0.5", "not kept: samples are augmented"),
        ("compile=true", "not kept: compile=update rounds otherwise"),
        ("posterior_cache=5000", "not kept: they need 0.00568 MB and posterior_cache is 0.005 MB"),
    ],
)
def test_check_tells(change: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", f"output={tmp_path / 'run'}"]
    assert main([*common, change, "--check"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("posteriors"))
    assert line == f"posteriors  of encoder in decoder: {told}"


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="posterior_cache must not be negative"):
        load(["posterior_cache=-1"])
