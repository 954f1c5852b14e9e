"""Every preset loads, resolves and trains: two steps of each phase, at a small width, on data of its kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from test_features import vgg19_weights

from savae_dist.checkpoint import checkpoints, problem, read_state
from savae_dist.config import as_dict
from savae_dist.data import pack
from savae_dist.networks import ConvEncoder
from savae_dist.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.resolve import PRESET_FOLDERS, load
from savae_dist.train import main

PRESETS = sorted(PRESET_FOLDERS[0].glob("*.yaml"))
CLASSES = {"caltech": 101}
SUMMARY = {
    "accuracy",
    "reconstruction_mse",
    "class_mean_mse",
    "class_flip_rate",
    "judge_flip_rate",
    "sharpness",
    "samples_per_second",
    "steps",
}


def test_there_are_presets() -> None:
    assert {path.stem for path in PRESETS} >= {
        *("demo", "mnist_k2", "mnist_k100", "fashion", "caltech", "cwru"),
        *("vae_mnist", "dfc_vae", "dfc_vae_mnist", "vae_wgan", "vae_wgan_mnist"),
    }


def frozen_features(preset: str, folder: Path) -> list[str]:
    """A narrow VGG-19 or a small pipeline, whichever the preset takes its features from."""
    asked = as_dict(load([preset])).get("system.feature_network")
    if asked is None:
        return []
    if asked.endswith(".safetensors"):
        save_file(vgg19_weights(), folder / "vgg19.safetensors")
        return [f"system.feature_network={folder / 'vgg19.safetensors'}"]
    spec = DataSpec("image", (1, 28, 28), 10, "unit")
    Pipeline({"encoder": ConvEncoder(spec.shape, 2, width=4)}, spec).save_pretrained(folder / "features")
    return [f"system.feature_network={folder / 'features'}"]


def small_set(preset: str, folder: Path) -> tuple[np.ndarray, list[str]]:
    """A few samples as the preset's data are, and the arguments that put them in their place."""
    rng = np.random.default_rng(0)
    classes = CLASSES.get(preset, 10)
    y = np.arange(max(2 * classes, 64)) % classes
    if preset == "cwru":
        x = rng.normal(size=(len(y), 1024)).astype(np.float32)
    else:
        x = rng.integers(0, 256, (len(y), 28, 28)).astype(np.uint8)
    for part in ("train", "validation"):
        pack(x, y, folder / part, rate=12_000.0 if preset == "cwru" else 0.0)
    return x, [f"data.train={folder / 'train'}", f"data.validation={folder / 'validation'}"]


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in ("caltech", "cwru"))) for p in PRESETS],
)
def test_a_preset_trains(path: Path, tmp_path: Path) -> None:
    x, data = small_set(path.stem, tmp_path)
    out = tmp_path / "run"
    small = ["networks.width=4", "data.batch_size=16", "max_steps=2", "log_every=1", f"output={out}"]
    small += frozen_features(path.stem, tmp_path)
    assert main([path.stem, *data, *small]) == 0
    system = load([path.stem]).system
    phases = [phase.name for phase in system.phases()]

    status = json.loads((out / "status.json").read_text())
    assert (status["outcome"], status["exit_code"]) == ("done", 0)
    assert (status["phase"], status["step"]) == (phases[-1], 2)

    summary = json.loads((out / "summary.json").read_text())
    assert summary.keys() >= SUMMARY
    assert summary["steps"] == dict.fromkeys(phases, 2)
    assert summary["samples_per_second"].keys() == set(phases)
    assert all(0 < summary[key] < 10 for key in ("reconstruction_mse", "class_mean_mse"))
    classifies = "classifier" in system.pipeline
    assert 0 <= summary["accuracy"] <= 1 if classifies else summary["accuracy"] is None

    pipeline = Pipeline.from_pretrained(out)
    assert pipeline.latent_dim == system.latent_dim
    assert pipeline.reconstruct(x[:3]).shape == x[:3].shape
    assert pipeline.reconstruct(x[:3]).dtype == x.dtype
    if classifies:
        assert np.allclose(pipeline.classify(x[:3]).sum(1), 1, atol=1e-5)

    ends = checkpoints(out / "checkpoints")
    assert [problem(end) for end in ends] == [None] * len(phases)
    assert [read_state(end).phase_end for end in ends] == [True] * len(phases)
    assert load([str(out / "config.yaml")]) == load([path.stem, *data, *small])
    assert any((out / "figures").glob("*.png"))
    assert any((out / "tensorboard").iterdir())
