"""All numbers of a pipeline together: each with its interval, the number of samples, and how it was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from savae_dist.data import pack
from savae_dist.evaluation import metrics, report
from savae_dist.evaluation.comparable import Asked, Measured, measure_all
from savae_dist.evaluation.features.feature_view import FeatureView
from savae_dist.evaluation.features.frechet import Gaussian, frechet_distance
from savae_dist.evaluation.features.kernel_distance import kernel_distance
from savae_dist.evaluation.features.neighbours import quality
from savae_dist.evaluation.gathered import FeatureSet
from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec, normalise

SPEC = DataSpec("image", (1, 12, 12), 4, "unit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (90, 12, 12)).astype(np.uint8)
    y = rng.integers(0, 4, 90)
    y[::5] = -1
    shards = tmp_path_factory.mktemp("shards") / "set"
    pack(x, y, shards, block=32)
    return shards


def pipeline_of(seed: int) -> Pipeline:
    torch.manual_seed(seed)
    networks = {
        "encoder": ConvEncoder(SPEC.shape, 3, width=4),
        "decoder": ConvDecoder(SPEC.shape, 3, width=4),
        "classifier": DenseClassifier(3, 4),
    }
    return Pipeline(networks, SPEC)


@pytest.fixture(scope="module")
def measured(folder: Path) -> Measured:
    pipeline, judge = pipeline_of(0), pipeline_of(1)
    reader = report.open_reader(str(folder), pipeline)
    view = FeatureView.of(judge, "runs/judge", SPEC)
    asked = Asked(samples=40, view=view, probes=True, nearest=True, seed=5)
    return measure_all(pipeline, reader, report.open_reader(str(folder), pipeline), judge, asked)


def test_the_averages_are_those_of_the_trainer(folder: Path, measured: Measured) -> None:
    pipeline = pipeline_of(0)
    reader = report.open_reader(str(folder), pipeline)
    means = metrics.class_means(report.batches(reader), SPEC)
    expected = metrics.summarise(metrics.measure(pipeline, report.batches(reader), means, pipeline_of(1)))
    assert {name: measured.values[name] for name in expected} == expected
    assert expected["psnr"] is not None
    assert expected["ssim"] is not None


def test_every_number_has_its_count_and_nearly_every_one_an_interval(measured: Measured) -> None:
    there = {name for name, value in measured.values.items() if value is not None}
    assert there <= measured.n.keys()
    without = there - measured.intervals.keys()
    of_samples = {"sample_sharpness", "label_agreement", "label_frechet_distance", "prior_frechet_distance"}
    assert without <= of_samples | {"frechet_floor", "gfid_floor"}
    assert measured.intervals["frechet_distance"] == measured.intervals["gfid"]
    for name, (low, high) in measured.intervals.items():
        value = measured.values[name]
        assert value is not None
        assert low <= high
        if name not in (
            "gkid",
            "rkid",
            "macro_f1",
            "active_units",
            "precision",
            "density",
            "inception_score",
            "class_balance",
        ):
            assert low <= value <= high, name
    labelled = int((np.arange(90) % 5 != 0).sum())
    assert {measured.n[name] for name in ("accuracy", "macro_f1", "macro_auroc", "linear_probe")} == {labelled}
    assert (measured.n["psnr"], measured.n["gfid"], measured.n["rfid"]) == (90, 40, 90)


def test_distances_are_those_of_the_features(folder: Path, measured: Measured) -> None:
    pipeline, judge = pipeline_of(0), pipeline_of(1)
    reader = report.open_reader(str(folder), pipeline)
    view = FeatureView.of(judge, "runs/judge", SPEC)
    x = torch.cat([x for x, _ in report.batches(reader)])
    made = pipeline.decoded(pipeline.latents(40, seed=5))
    real, ours, generated = (view.features(one) for one in (x, pipeline.decoded(pipeline.posterior(x).mean), made))
    for name, features in (("rfid", ours), ("gfid", generated)):
        expected = frechet_distance(Gaussian.of(features), Gaussian.of(real))
        assert measured.values[name] == pytest.approx(expected, rel=1e-5)
    assert measured.values["gfid"] == pytest.approx(measured.values["frechet_distance"], rel=1e-6)
    kept = FeatureSet(40)
    kept.add(real, np.arange(90))
    assert measured.values["gkid"] == pytest.approx(kernel_distance(generated, kept.kept))
    for name, values in quality(kept.kept, generated).items():
        assert measured.values[name] == pytest.approx(values.mean())
    nearest = torch.cdist(made.flatten(1).double(), x.flatten(1).double()).amin(1).mean() / 12
    assert measured.values["nearest_training"] == pytest.approx(nearest.item())
    assert measured.values["nearest_training_real"] == 0  # the set is its own training set here


def test_it_is_told_how_it_was_measured(measured: Measured) -> None:
    protocol = measured.as_dict()["protocol"]
    assert protocol["seed"] == 5
    assert "90 samples" in protocol["reference"]
    assert protocol["generated"] == "40 draws of the prior"
    assert protocol["resize"] == "none"
    lines = report.table(measured.as_dict()).splitlines()
    line = next(one for one in lines if one.startswith("psnr "))
    assert line.endswith("n = 90")
    assert "[" in line
    assert any(one.startswith("features: last hidden layer of the conv_encoder of runs/judge") for one in lines)


def test_kept_features_are_a_fair_draw_and_the_moments_are_of_all() -> None:
    x = np.arange(1000.0)[:, None]
    found = [FeatureSet(50, seed) for seed in range(20)]
    for one in found:
        for start in range(0, 1000, 130):
            one.add(x[start : start + 130], np.arange(1000)[start : start + 130])
        assert one.n == 1000
        assert len(np.unique(one.kept)) == len(one.unit) == 50
        assert (one.kept[:, 0] == one.unit).all()
        assert one.moments is not None
        assert one.moments.gaussian().mean[0] == pytest.approx(499.5)
    mean = np.mean([one.kept.mean() for one in found])
    assert abs(mean - 499.5) < 4 * 289 / np.sqrt(1000)


def test_a_part_of_a_pipeline_has_its_part_of_the_numbers(folder: Path) -> None:
    whole = pipeline_of(0)
    for roles, there, absent in (
        (("encoder",), {"kl", "active_units"}, {"psnr", "accuracy", "sharpness"}),
        (("decoder",), {"sample_sharpness", "gfid", "gkid", "recall"}, {"kl", "psnr"}),
    ):
        part = Pipeline({role: whole.networks[role] for role in roles}, SPEC)
        reader = report.open_reader(str(folder), part)
        view = FeatureView.of(pipeline_of(1), "runs/judge", SPEC)
        found = measure_all(part, reader, None, None, Asked(samples=20, view=view)).values
        assert there <= {name for name, value in found.items() if value is not None}
        assert all(found[name] is None for name in absent)
        assert not {"rfid", "linear_probe", "macro_f1"} & found.keys()
    assert normalise(torch.zeros(1, 12, 12, dtype=torch.uint8), SPEC).shape == (1, *SPEC.shape)
