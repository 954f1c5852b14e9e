"""Codes with a label part in the pipeline: generating a class in a style, labels that are told, and whole runs."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import shards, status, weights

from savae_dist.data import pack
from savae_dist.evaluation import report
from savae_dist.pipeline.exports.export import export
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec, normalise
from savae_dist.systems import AAE
from savae_dist.systems.papers import citation_of
from savae_dist.testing.small_run import IMAGE, SIGNAL
from savae_dist.train import main

SUPERVISED = AAE("aae_supervised", label_to="decoder", latent_dim=3)
SYSTEMS = {
    "none": AAE("aae_unsupervised", latent_dim=3),
    "clusters": AAE("aae_unsupervised", latent_dim=3, clusters=6),
    "told": SUPERVISED,
    "mode": replace(SUPERVISED, label_to="discriminator", prior="mixture"),
    "inferred": AAE("aae_semi_supervised", label_to="code", latent_dim=3),
}
PARTS = pytest.mark.parametrize("name", ["clusters", "told", "inferred"])


def make(name: str, spec: DataSpec = IMAGE) -> Pipeline:
    torch.manual_seed(0)
    networks = SYSTEMS[name].build(spec, 4, "batch", 2)
    if name == "clusters":
        networks["classifier"].class_of.copy_(torch.tensor([2, 0, 1, 2, 3, 2]))
    kept = {role: networks[role] for role in SYSTEMS[name].pipeline if role in networks}
    return Pipeline(kept, spec, system={"name": SYSTEMS[name].name})


def raw(spec: DataSpec = IMAGE, n: int = 7) -> np.ndarray:
    random = np.random.default_rng(1)
    if spec.kind == "image":
        return random.integers(0, 256, (n, *spec.shape[1:]), dtype=np.uint8)
    return random.normal(size=(n, *spec.shape)).astype(np.float32)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_known_label_is_generated_and_no_other(name: str) -> None:
    pipeline = make(name)
    assert pipeline.labels == ([] if name == "none" else [0, 1, 2, 3])
    for label in pipeline.labels:
        a, b = (pipeline.generate(5, label=label, seed=4) for _ in range(2))
        assert np.array_equal(a, b)
        assert a.shape == (5, 12, 10)
        assert not np.array_equal(a, pipeline.generate(5, label=label, seed=5))
        assert not np.array_equal(a, pipeline.generate(5, label=(label + 1) % 4, seed=4))
    with pytest.raises(ValueError, match=r"leave label out" if name == "none" else r"label 4.*0, 1, 2, 3"):
        pipeline.generate(1, label=4)
    assert pipeline.generate(5, seed=0).shape == (5, 12, 10)
    assert pipeline.latents(5).shape == (5, pipeline.latent_dim)


@PARTS
def test_style_and_label_are_apart(name: str) -> None:
    """A given style stays to the bit whatever the label is; the same seed gives every class the same styles."""
    pipeline = make(name)
    style = torch.tensor([0.5, -1.0, 2.0])
    for label in range(4):
        codes = pipeline.latents(6, label=label, style=style.numpy(), seed=3)
        assert torch.equal(codes[:, :3], style.expand(6, 3))
        assert codes[:, 3:].sum(1).tolist() == [1] * 6
        chosen = codes[:, 3:].argmax(1)
        classes = pipeline.networks["classifier"].class_of[chosen] if name == "clusters" else chosen
        assert classes.tolist() == [label] * 6
        assert torch.equal(pipeline.latents(6, label, seed=3)[:, :3], pipeline.latents(6, 0, seed=3)[:, :3])
    each = torch.randn(6, 3)
    assert torch.equal(pipeline.latents(6, style=each)[:, :3], each)  # the label is drawn
    samples = pipeline.generate(6, label=1, style=style, seed=0)
    assert (samples == samples[0]).all() or name == "clusters"  # nothing is left to chance
    for wrong in (torch.zeros(4), torch.zeros(5, 3), torch.zeros(6, 2)):
        with pytest.raises(ValueError, match=r"must be \[6, 3\]"):
            pipeline.latents(6, style=wrong)


def test_clusters_of_a_class_are_all_drawn() -> None:
    chosen = make("clusters").latents(200, label=2, seed=0)[:, 3:].argmax(1)
    assert set(chosen.tolist()) == {0, 3, 5}


def test_a_code_in_one_piece_has_no_style() -> None:
    for name in ("none", "mode"):
        with pytest.raises(ValueError, match="no label part"):
            make(name).generate(2, style=torch.zeros(2, 3))
    pipeline = make("none")
    del pipeline.networks["prior"]
    with pytest.raises(ValueError, match="one piece"):
        pipeline.generate(2, style=torch.zeros(2, 3))


@pytest.mark.parametrize("spec", [IMAGE, SIGNAL], ids=["image", "signal"])
def test_a_decoder_is_told_the_labels_that_are_known(spec: DataSpec) -> None:
    pipeline, x, y = make("told", spec), raw(spec, 6), np.array([0, 3, -1, 2, 1, -1])
    z = pipeline.encode(x).mean
    assert z.shape == (6, 3)
    hot = torch.zeros(6, 4)
    hot[y >= 0, y[y >= 0]] = 1
    assert np.array_equal(pipeline.reconstruct(x, y), pipeline.decode(torch.cat([z, hot], 1)))
    assert np.array_equal(pipeline.reconstruct(x), pipeline.decode(torch.cat([z, 0 * hot], 1)))
    with pytest.raises(ValueError, match="5 labels for 6"):
        pipeline.reconstruct(x, y[:5])
    batch = normalise(torch.from_numpy(x), spec)
    found = report.evaluate(pipeline, [(batch, torch.from_numpy(y))])
    x_hat = pipeline.decoded(torch.cat([z, hot], 1))
    assert found["reconstruction_mse"] == pytest.approx((x_hat - batch).square().mean().item(), rel=1e-5)
    assert found["kl"] is None
    assert found["accuracy"] is None
    assert {"latent_space", "reconstructions", "samples", "samples_by_class"} <= report.draw_figures(
        pipeline, batch, torch.from_numpy(y)
    ).keys()


@pytest.mark.parametrize("spec", [IMAGE, SIGNAL], ids=["image", "signal"])
def test_the_label_part_classifies(spec: DataSpec) -> None:
    pipeline, x = make("inferred", spec), raw(spec)
    np.testing.assert_allclose(pipeline.classify(x), pipeline.encode(x).mean[:, 3:], rtol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_saved_and_exported_they_are_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make(name)
    pipeline.save_pretrained(tmp_path / "saved")
    citations = {pipeline.system["name"]: citation_of(AAE())}
    export(str(tmp_path / "saved"), tmp_path / "exported", citations=citations)
    label = 2 if pipeline.labels else None
    for folder in ("saved", "exported", "exported/decoder"):  # the decoder alone still knows its codes
        loaded = Pipeline.from_pretrained(tmp_path / folder)
        assert loaded.labels == pipeline.labels
        assert np.array_equal(loaded.generate(4, label, seed=0), pipeline.generate(4, label, seed=0))
    assert np.array_equal(
        Pipeline.from_pretrained(tmp_path / "exported").reconstruct(raw()), pipeline.reconstruct(raw())
    )
    cards = sorted((tmp_path / "exported").rglob("README.md"))
    assert len(cards) == len(pipeline.networks) + 1
    for card in cards:
        text = card.read_text()
        assert "makhzani2015" in text
        assert "zemouri" not in text
        (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        monkeypatch.chdir(card.parent)
        names: dict = {}
        exec(compile(snippet, str(card), "exec"), names)
        assert names["pipeline"].spec == IMAGE


def test_without_any_label_clusters_stay_without_a_class(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 12, 12)).astype(np.uint8)
    for names in ((), ("a", "b", "c")):
        data, out = tmp_path / f"data{len(names)}", tmp_path / f"run{len(names)}"
        pack(x, np.full(40, -1), data, class_names=names)
        run = ["system.name=aae_unsupervised", "system.clusters=5", "max_steps=1", "networks.width=4"]
        assert main([*run, "data.batch_size=8", f"data.train={data}", f"data.validation={data}", f"output={out}"]) == 0
        summary = json.loads((out / "summary.json").read_text())
        assert summary["accuracy"] is summary["cluster_error"] is None
        pipeline = Pipeline.from_pretrained(out)
        assert pipeline.labels == []
        assert "classifier" not in pipeline.networks
        assert pipeline.generate(3, style=torch.zeros(8)).shape == (3, 12, 12)


ARGUMENTS = ["networks.width=4", "data.batch_size=16", "log_every=1", "system.steps=5", "checkpoint_every=2", "ema=0.5"]
RUNS = {
    "code": ["system.name=aae_semi_supervised", "system.backbone=conv", "data.labelled_fraction=0.25"],
    "clusters": ["system.name=aae_unsupervised", "system.clusters=6", "validate_every=2"],
    "discriminator": ["system.name=aae_supervised", "system.label_to=discriminator", "system.prior=swiss_roll"],
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_and_going_on_from_a_checkpoint(name: str, tmp_path: Path) -> None:
    """Interrupted equals uninterrupted, bit for bit; the summary and the figures say what there is to say."""
    folder = shards(tmp_path / "shards")
    data = [*RUNS[name], *ARGUMENTS, f"data.train={folder}"]
    whole = tmp_path / "whole"
    assert main([*data, f"data.validation={folder}", f"output={whole}"]) == 0
    assert status(whole)["outcome"] == "done"
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["kl"] is None
    assert (summary["accuracy"] is None) == (name == "discriminator")
    assert (summary["cluster_error"] is None) == (name != "clusters")
    if name == "clusters":
        assert summary["cluster_error"] == pytest.approx(1 - summary["accuracy"])
    pipeline = Pipeline.from_pretrained(whole)
    assert pipeline.posteriors is None
    assert pipeline.labels
    assert (whole / "figures" / "samples_by_class.png").exists()
    output = tmp_path / "again"
    shutil.copytree(whole, output)
    for number in (4, 5):
        shutil.rmtree(output / "checkpoints" / f"step-{number:08d}")
    shutil.rmtree(output / "pipeline")
    assert main([*data, f"output={output}"]) == 0  # from step 2
    expected, found = weights(whole), weights(output)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], value) for key, value in expected.items())
    for network in pipeline.networks:
        file = f"pipeline/{network}/model.safetensors"
        assert (output / file).read_bytes() == (whole / file).read_bytes()
