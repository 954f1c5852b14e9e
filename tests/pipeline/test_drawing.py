"""What a pipeline draws its codes from: which source is taken, what each knows, and that it is saved with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import SMALL
from safetensors.torch import load_file, save_file

from savae_dist import Pipeline
from savae_dist.errors import CheckpointError
from savae_dist.networks import ConvDecoder, Prior
from savae_dist.pipeline.exports.runtimes import functions
from savae_dist.pipeline.sampling.posteriors import PosteriorBank
from savae_dist.pipeline.sampling.sampler import WHOLE, Sampler
from savae_dist.preprocess import DataSpec
from savae_dist.train import main

SPEC = DataSpec("image", (1, 8, 8), 3, "unit", class_names=("a", "b", "c"))
FAR, NEAR = 50.0, 10.0  # where the mixture has its codes, and the posteriors theirs


def mixture() -> Sampler:
    """All samples at FAR, class 0 at -FAR."""
    mean = torch.tensor([[FAR, FAR], [-FAR, -FAR]])
    return Sampler(torch.tensor([WHOLE, 0]), torch.ones(2), mean, torch.full((2, 2), 0.1))


def make(**parts: object) -> Pipeline:
    torch.manual_seed(0)
    bank = PosteriorBank(torch.full((2, 2), NEAR), torch.full((2, 2), -4.0), torch.tensor([0, 1]))
    networks = {
        "decoder": ConvDecoder(SPEC.shape, 2, width=2),
        **({"prior": parts["prior"]} if "prior" in parts else {}),
    }
    return Pipeline(networks, SPEC, parts.get("bank", bank), mixture=parts.get("mixture", mixture()))  # type: ignore[arg-type]


def centre(pipeline: Pipeline, **options: object) -> float:
    return float(pipeline.latents(400, seed=0, **options).mean())  # type: ignore[arg-type]


def test_the_first_source_that_knows_the_class_is_taken() -> None:
    pipeline = make()
    assert centre(pipeline) == pytest.approx(FAR, abs=0.1)
    assert centre(pipeline, label="a") == pytest.approx(-FAR, abs=0.1)
    assert centre(pipeline, label=1) == pytest.approx(NEAR, abs=0.1)  # the mixture has none of class 1
    assert pipeline.labels == [0, 1]
    assert centre(make(mixture=None)) == pytest.approx(0, abs=0.2)
    assert centre(make(mixture=None), label=0) == pytest.approx(NEAR, abs=0.1)


def test_another_source_is_asked_for() -> None:
    pipeline = make()
    normal = torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(pipeline.latents(5, seed=3, sampler="prior"), normal)
    assert centre(pipeline, sampler="posteriors") == pytest.approx(NEAR, abs=0.1)
    assert centre(pipeline, sampler="posteriors", label="a") == pytest.approx(NEAR, abs=0.1)
    assert np.array_equal(
        pipeline.generate(3, seed=1, sampler="prior"), pipeline.decode(pipeline.latents(3, seed=1, sampler="prior"))
    )


@pytest.mark.parametrize("source", ["mixture", "prior", "posteriors"])
def test_temperature_shrinks_what_is_drawn_around_the_means(source: str) -> None:
    pipeline = make()
    warm, half, cold = (
        pipeline.latents(300, seed=0, sampler=source, temperature=temperature)  # type: ignore[arg-type]
        for temperature in (1.0, 0.5, 0.0)
    )
    assert len(cold.unique(dim=0)) == 1
    torch.testing.assert_close(half - cold, (warm - cold) / 2, atol=1e-4, rtol=0)


def test_a_prior_of_the_system_s_own() -> None:
    """Codes without a label part may have a mixture besides; a swiss roll has no temperature."""
    pipeline = make(prior=Prior(2, "gaussian", scale=5.0), bank=None)
    assert centre(pipeline) == pytest.approx(FAR, abs=0.1)
    assert float(pipeline.latents(500, seed=0, sampler="prior").std()) == pytest.approx(5, rel=0.1)
    assert float(pipeline.latents(500, seed=0, sampler="prior", temperature=0.2).std()) == pytest.approx(1, rel=0.1)
    with pytest.raises(ValueError, match="temperature: a swiss roll"):
        make(prior=Prior(2, "swiss_roll")).latents(2, sampler="prior", temperature=0.5)


@pytest.mark.parametrize(
    ("parts", "options", "said"),
    [
        (
            {"mixture": None},
            {"sampler": "mixture"},
            "draws codes from prior, posteriors",
        ),
        (
            {"bank": None},
            {"sampler": "posteriors"},
            "draws codes from mixture, prior",
        ),
        ({}, {"sampler": "prior", "label": 0}, "the prior N\\(0, I\\) knows no classes"),
        ({}, {"sampler": "mixture", "label": "b"}, "label 1: the mixture has no such class; it has 0"),
        ({"prior": Prior(2)}, {"sampler": "prior", "label": 0}, "label 0: the prior has no such class; it has none"),
        ({}, {"temperature": -1.0}, "temperature must be at least 0"),
        ({}, {"style": torch.zeros(2)}, "in one piece"),
        ({}, {"label": "c"}, "nothing to generate"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_said(parts: dict[str, object], options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(**parts).latents(3, **options)  # type: ignore[arg-type]


def test_it_is_saved_with_the_pipeline(tmp_path: Path) -> None:
    pipeline = make()
    pipeline.save_pretrained(tmp_path)
    loaded = Pipeline.from_pretrained(tmp_path)
    for options in ({}, {"label": "a"}, {"sampler": "prior"}):
        assert np.array_equal(loaded.generate(4, seed=0, **options), pipeline.generate(4, seed=0, **options))
    loaded.mixture = None
    loaded.save_pretrained(tmp_path)
    assert Pipeline.from_pretrained(tmp_path).mixture is None


def test_one_of_other_codes_is_refused(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "sampler.safetensors")
    save_file({**tensors, "mean": torch.zeros(2, 5), "factor": torch.ones(2, 5)}, tmp_path / "sampler.safetensors")
    with pytest.raises(CheckpointError, match="the sampler give codes of 5 numbers, and the decoder takes 2"):
        Pipeline.from_pretrained(tmp_path)


def test_a_run_fits_one_and_says_so(data: Path, tmp_path: Path) -> None:
    """Also to samples without labels; two runs that are alike fit the same."""
    words = [*SMALL, "max_steps=2", "system.latent_dim=2", f"data.train={data}"]
    for name in ("a", "b"):
        assert main([*words, f"output={tmp_path / name}"]) == 0
    told = json.loads((tmp_path / "a" / "summary.json").read_text())["sampler"]
    assert told["held_out_nats"] >= told["normal_nats"]
    mine, other = (Pipeline.from_pretrained(tmp_path / name).mixture for name in ("a", "b"))
    assert mine is not None
    assert other is not None
    assert mine.labels
    assert all(torch.equal(value, other.tensors()[name]) for name, value in mine.tensors().items())


def told_pipeline() -> Pipeline:
    """The decoder is told the class; class 0 has its styles at -FAR, class 2 at FAR, and class 1 none."""
    mean = torch.tensor([[0.0, 0.0], [-FAR, -FAR], [FAR, FAR]])
    styles = Sampler(torch.tensor([WHOLE, 0, 2]), torch.ones(3), mean, torch.full((3, 2), 0.1))
    networks = {"decoder": ConvDecoder(SPEC.shape, 5, width=2), "prior": Prior(2, labels="told", entries=3)}
    return Pipeline(networks, SPEC, mixture=styles)


def test_a_decoder_that_is_told_the_class_gets_the_styles_of_that_class() -> None:
    pipeline = told_pipeline()
    z = pipeline.latents(300, seed=0)
    y = z[:, 2:].argmax(1)
    assert torch.equal(z[:, 2:], torch.eye(3)[y])
    assert set(y.tolist()) == {0, 2}
    for label, place in ((0, -FAR), (2, FAR)):
        assert 120 < int((y == label).sum()) < 180
        assert float(z[y == label, :2].mean()) == pytest.approx(place, abs=0.1)
        own = pipeline.latents(5, label=label, seed=0)
        assert own[:, 2 + label].tolist() == [1.0] * 5
        assert float(own[:, :2].mean()) == pytest.approx(place, abs=0.5)
    assert float(pipeline.latents(300, label=1, seed=0)[:, :2].mean()) == pytest.approx(0, abs=0.2)  # by the prior
    style = torch.tensor([1.0, 2.0])
    assert pipeline.latents(3, label=2, style=style)[0].tolist() == [1, 2, 0, 0, 1]
    with pytest.raises(ValueError, match="style needs"):
        pipeline.latents(3, style=style, sampler="mixture")


def test_what_draws_in_other_runtimes_knows_the_classes_styles(tmp_path: Path) -> None:
    pipeline = told_pipeline()
    pipeline.save_pretrained(tmp_path)
    pipeline = Pipeline.from_pretrained(tmp_path)
    generate = functions(pipeline, np.zeros((3, 8, 8), np.uint8))["generate"]
    assert generate.inputs["eps"].shape[1] == 2
    made = generate.module(torch.zeros(2, 2), torch.tensor([0.2, 0.7]))
    codes = torch.tensor([[-FAR, -FAR, 1, 0, 0], [FAR, FAR, 0, 0, 1]])
    assert np.array_equal(made.numpy(), pipeline.decode(codes))


def test_a_sampler_without_classes_is_refused_where_the_decoder_is_told_one(tmp_path: Path) -> None:
    pipeline = told_pipeline()
    assert pipeline.mixture is not None
    pipeline.mixture = pipeline.mixture.of(WHOLE)
    pipeline.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="the sampler has no class, and the decoder is told one"):
        Pipeline.from_pretrained(tmp_path)
