"""Every preset loads, resolves and trains: two steps of each phase, at a small width, on data of its kind.

`SAVAE_PRESET_STEPS=150 pytest tests/config/test_presets.py -k trains` trains more of them, and asks for warnings. At so
small a width a critic of noise may in truth be unable to tell: dcgan's is, after 108 steps.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.features import vgg19_weights
from safetensors.torch import save_file

from savae_dist.config import auto
from savae_dist.config.arguments import PRESET_FOLDERS
from savae_dist.config.identity import as_dict
from savae_dist.config.schema import RunConfig
from savae_dist.data import pack
from savae_dist.load_config import load
from savae_dist.networks import ConvEncoder
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.run.checkpoints.checkpoint import checkpoints, problem, read_state
from savae_dist.systems import AAE, SYSTEMS, PlainClassifier
from savae_dist.systems.ava import MEMBERS
from savae_dist.train import main

STEPS = int(os.environ.get("SAVAE_PRESET_STEPS", "2"))
# Signs of the end, which stand on samples of noise: they hold nothing that could be learnt. Those of the curves need
# three logs and some a hundred iterations, so that two steps say nothing of them.
OF_NOISE = ("nothing useful was learnt", "the posterior has collapsed")
PRESETS = sorted(PRESET_FOLDERS[0].glob("*.yaml"))
CLASSES = {"caltech": 101}
SLOW = ("caltech", "cwru", "cwru_spectral")
LABELLED = {"aae_semi_supervised": 20, "savae_100_labels": 20}  # of those packed; else all
# What summary.json has, null where the system has no such network, and the network that gives it a number.
MEASURED = {
    "accuracy": {"classifier"},
    "class_flip_rate": {"classifier", "decoder"},
    "reconstruction_mse": {"encoder", "decoder"},
    "sharpness": {"encoder", "decoder"},
    "kl": {"encoder"},
}


def is_signal(config: RunConfig) -> bool:
    return "cwru" in str(config.data.train)


def test_there_is_a_preset_of_every_system() -> None:
    names = {path.stem for path in PRESETS}
    assert names >= {
        "demo",
        "mnist_k2",
        "mnist_k100",
        "fashion",
        "caltech",
        "omniglot",
        "cifar10",
        "cwru",
        "cwru_spectral",
        "aae_clusters",
        "dfc_vae_mnist",
        "vae_wgan_mnist",
        "ava_ten_images",
        "vae_ten_images",
    }
    # AVA's members differ by their name alone.
    assert {load([name]).system.name for name in names} | set(MEMBERS) == SYSTEMS.keys()


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
    classes, signal = CLASSES.get(preset, 10), is_signal(load([preset]))
    y = np.arange(max(2 * classes, 64)) % classes
    if signal:
        x = rng.normal(size=(len(y), 1024)).astype(np.float32)
    else:
        colour = (3,) * (preset == "photos")
        x = rng.integers(0, 256, (len(y), 28, 28, *colour)).astype(np.uint8)
    y[LABELLED.get(preset, len(y)) :] = -1
    for part in ("train", "validation"):
        pack(x, y, folder / part, rate=12_000.0 if signal else 0.0)
    return x, [f"data.train={folder / 'train'}", f"data.validation={folder / 'validation'}"]


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem in SLOW)) for p in PRESETS],
)
def test_a_preset_trains(path: Path, tmp_path: Path) -> None:
    x, data = small_set(path.stem, tmp_path)
    out = tmp_path / "run"
    logs = max(1, STEPS // 20)
    small = ["networks.width=4", "data.batch_size=16", f"max_steps={STEPS}", f"log_every={logs}", f"output={out}"]
    small += frozen_features(path.stem, tmp_path)
    assert main([path.stem, *data, *small]) == 0
    config = load([path.stem, *data, *small])
    phases = {phase.name: min(phase.steps, STEPS) for phase in config.system.phases()}

    status = json.loads((out / "status.json").read_text())
    assert (status["outcome"], status["exit_code"]) == ("done", 0)
    assert (status["phase"], status["step"]) == list(phases.items())[-1]

    pipeline = Pipeline.from_pretrained(out)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["steps"] == phases
    assert summary["samples_per_second"].keys() == {name for name, steps in phases.items() if steps}
    deterministic = isinstance(config.system, AAE | PlainClassifier)
    for name, roles in MEASURED.items():
        expected = roles <= pipeline.networks.keys() and not (name == "kl" and deterministic)
        assert (summary[name] is not None) == expected, name
    assert summary["judge_flip_rate"] is None
    assert [line for line in summary["warnings"] if not any(sign in line for sign in OF_NOISE)] == []
    assert 0 < summary["class_mean_mse"] < 10

    check_pipeline(pipeline, config, x)
    ends = checkpoints(out / "checkpoints")
    assert [problem(end) for end in ends] == [None] * len(phases)
    assert [read_state(end).phase_end for end in ends] == [True] * len(phases)
    assert load([str(out / "config.yaml")]) == auto.resolve(config, pipeline.spec.shape, {})
    figures = {figure.stem for figure in (out / "figures").glob("*.png")}
    assert ("reconstructions" in figures) == ({"encoder", "decoder"} <= set(config.system.pipeline))
    assert ("samples" in figures) == ("decoder" in config.system.pipeline)
    assert any((out / "tensorboard").iterdir())


def check_pipeline(pipeline: Pipeline, config: RunConfig, x: np.ndarray) -> None:
    """It does what its networks allow, and says in a line what they do not."""
    built = {network.name for network in (Path(config.output) / "checkpoints").glob("*/networks/*")}
    assert pipeline.networks.keys() == set(config.system.pipeline) & built
    if "decoder" in pipeline.networks:
        new = pipeline.generate(2, seed=0)
        assert (new.shape, new.dtype) == (x[:2].shape, x.dtype)
    if {"encoder", "decoder"} <= pipeline.networks.keys():
        again = pipeline.reconstruct(x[:3])
        assert (again.shape, again.dtype) == (x[:3].shape, x.dtype)
    if "classifier" in pipeline.networks:
        assert np.allclose(pipeline.classify(x[:3]).sum(1), 1, atol=1e-5)
    for use, role in ((pipeline.encode, "encoder"), (pipeline.classify, "encoder")):
        if role not in pipeline.networks:
            with pytest.raises(ValueError, match=f"needs a network '{role}', and the pipeline has only: decoder"):
                use(x[:3])
