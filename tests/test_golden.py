"""Files of an older version (`golden/README.md`) still load, or are refused in one line that says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from savae_dist.config.identity import identity
from savae_dist.data import Order, Reader, Request, Shards
from savae_dist.load_config import load
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.train import main

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize(("name", "shape", "size"), [("packed", (1, 12, 10), 48), ("samples", (1, 12, 10), 48)])
def test_shards_of_images(name: str, shape: tuple[int, ...], size: int) -> None:
    shards = Shards.open(str(GOLDEN / "shards" / name))
    assert (shards.spec.shape, shards.size, shards.spec.classes) == (shape, size, 4)
    raw = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, size, range(size))]
    known = np.load(GOLDEN / "expected.npz")["x"]
    stored = {image.tobytes() for image in raw.x.numpy()}
    assert len(stored) == size
    assert {image.tobytes() for image in known} <= stored
    assert (raw.y == -1).sum() == 10


def test_shards_of_windows() -> None:
    shards = Shards.open(str(GOLDEN / "shards" / "windows"))
    assert (shards.spec.shape, shards.spec.rate, shards.size) == ((2, 32), 12_000.0, 24)
    assert shards.with_normalise("dataset").spec.mean == pytest.approx([0.0, 0.0], abs=0.1)


def test_a_pipeline() -> None:
    expected = np.load(GOLDEN / "expected.npz")
    pipeline = Pipeline.from_pretrained(GOLDEN / "run" / "pipeline")
    np.testing.assert_allclose(pipeline.encode(expected["x"]).mean, expected["mean"], atol=1e-5)
    for now, then in (
        (pipeline.reconstruct(expected["x"]), expected["reconstruction"]),
        (pipeline.generate(4, label=2, seed=0), expected["generated"]),
    ):
        assert np.abs(now.astype(int) - then).max() <= 1  # other processors round otherwise


def test_a_configuration() -> None:
    config = load([str(GOLDEN / "run" / "config.yaml")])
    assert (config.system.name, config.system.latent_dim, config.networks.width, config.ema) == ("vae_gan", 3, 2, 0.9)
    assert config.optimizers["critic"].betas == (0.0, 0.99)


def test_a_checkpoint_in_mid_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is another run's: today's noise is drawn otherwise."""
    shutil.copytree(GOLDEN, tmp_path / "golden")
    monkeypatch.chdir(tmp_path / "golden")
    assert main(["run/config.yaml"]) == 76
    (line,) = capsys.readouterr().err.splitlines()
    assert "step-00000003: format 1 is not 2" in line
    assert line.endswith("finish this run with the version of savae_dist that wrote it, or choose another output")
    assert json.loads(Path("run/status.json").read_text())["exit_code"] == 76


IDENTITY_KEYS = json.loads((GOLDEN / "identity_keys.json").read_text())


@pytest.mark.parametrize("name", IDENTITY_KEYS)
def test_keys_that_came_later_leave_older_runs_as_they_are(name: str) -> None:
    """A key that a checkpoint of before does not have must not count at its default (`LATER_KEYS`), or none goes on."""
    config = load([f"system.name={name}", "data.train=shards", "output=run"])
    assert sorted(identity(config)) == IDENTITY_KEYS[name]
