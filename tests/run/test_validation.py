"""Measuring over a validation set: every sample once, against a direct computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from savae_dist.data import Order, Reader, Shards, pack
from savae_dist.evaluation import report
from savae_dist.evaluation.metrics import laplacian_variance
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec, normalise
from savae_dist.run import training_data as module
from savae_dist.run.training_data import TrainingData
from savae_dist.run.validation import Validation, closing_summary
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import CPU
from savae_dist.training.batches import BatchBuilder, BatchSplit

CLASSES = 3
SYSTEM = SAVAE(latent_dim=2)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "EVALUATION_BATCH", 16)  # several, the last one short


def images(n: int, seed: int, folder: Path) -> tuple[np.ndarray, np.ndarray, Shards]:
    """Images whose brightness tells the class, every fifth unlabelled, in several shards."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, n)
    y[:CLASSES] = range(CLASSES)
    x = np.clip(rng.integers(0, 80, (n, 12, 10)) + 60 * y[:, None, None], 0, 255).astype(np.uint8)
    y[4::5] = -1
    pack(x, y, folder, shard_size=20, block=8)
    return x, y, Shards.open(folder)


def training_data(shards: Shards, batch_size: int = 16, rank: int = 0, ranks: int = 1) -> TrainingData:
    reader = Reader(shards, Order(shards.counts, 0, 8, 16), bad_budget=0)
    builder = BatchBuilder(BatchSplit(batch_size, rank, ranks), CPU, lambda x: normalise(x, shards.spec), seed=0)
    return TrainingData(reader, builder)


def pipeline_of(spec: DataSpec) -> Pipeline:
    torch.manual_seed(0)
    networks = SYSTEM.build(spec, 4, "batch", 2)
    return Pipeline({name: networks[name].eval() for name in SYSTEM.pipeline}, spec)


def means_of(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x[y == label].mean(0) for label in range(CLASSES)])


@torch.no_grad()
def directly(pipeline: Pipeline, x: Tensor, y: Tensor, means: Tensor) -> dict[str, float]:
    """The figures of merit of all samples at once, as their definitions read."""
    encoder, classifier, decoder = (pipeline.networks[name] for name in SYSTEM.pipeline)
    labelled = y >= 0
    posterior, _ = encoder(x)
    x_hat = decoder(posterior.mean)
    decision = classifier(posterior.mean).argmax(1)
    again = classifier(encoder(x_hat)[0].mean).argmax(1)
    variance = posterior.log_variance.exp()
    return {
        "accuracy": (decision == y)[labelled].double().mean().item(),
        "reconstruction_mse": (x_hat - x).square().mean().item(),
        "class_mean_mse": (x - means[y])[labelled].square().mean().item(),
        "class_flip_rate": (again != decision).double().mean().item(),
        "kl": (0.5 * (variance + posterior.mean**2 - 1 - posterior.log_variance)).sum(1).mean().item(),
        "sharpness": (laplacian_variance(x_hat).sum() / laplacian_variance(x).sum()).item(),
    }


def test_measure_is_what_the_definitions_say(tmp_path: Path) -> None:
    train_x, train_y, train = images(64, 0, tmp_path / "train")
    x, y, shards = images(45, 1, tmp_path / "validation")
    pipeline = pipeline_of(train.spec)
    validation = Validation(shards.with_spec(train.spec), training_data(train), None)
    found = validation.summarise(validation.measure(pipeline))
    seen = torch.from_numpy(x)[:, None].float() / 255
    means = means_of(torch.from_numpy(train_x)[:, None].float() / 255, torch.from_numpy(train_y))
    expected = directly(pipeline, seen, torch.from_numpy(y), means)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert found["judge_flip_rate"] is None
    assert found["class_mean_mse"] < seen.var()  # the means tell the classes apart


@pytest.mark.parametrize("batch_size", [7, 64, 100])
def test_the_survey_counts_every_training_sample_once(batch_size: int, tmp_path: Path) -> None:
    """Whatever the batch size: the baseline is that of the training set."""
    x, y, train = images(64, 0, tmp_path / "train")
    measured = Validation(train, training_data(train, batch_size), None).class_means
    assert measured.sums["count"].tolist() == [(y == label).sum() for label in range(CLASSES)]
    expected = means_of(torch.from_numpy(x).double() / 255, torch.from_numpy(y))
    assert torch.allclose(measured.of("sample", torch.arange(CLASSES))[:, 0], expected, atol=1e-6)


def test_the_survey_stops_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, train = images(64, 0, tmp_path / "train")
    monkeypatch.setattr(module, "SURVEYED", 32)
    assert sum(len(x) for x, _ in training_data(train).labelled_samples()) == 32


def test_the_survey_finds_the_few_labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two in two hundred, and only eight are looked at."""
    y = np.full(200, -1)
    y[[30, 170]] = 1, 0
    x = np.zeros((200, 12, 10), np.uint8)
    x[y >= 0] = 9
    pack(x, y, tmp_path / "train", shard_size=20, block=8)
    monkeypatch.setattr(module, "SURVEYED", 8)
    (found,) = training_data(Shards.open(tmp_path / "train")).labelled_samples()
    assert sorted(found[1].tolist()) == [0, 1]
    assert (found[0] == 9 / 255).all()


def test_the_survey_s_batches_are_shared_among_the_ranks(tmp_path: Path) -> None:
    _, _, train = images(64, 0, tmp_path / "train")
    whole = {position: raw.id.tolist() for position, raw in training_data(train).survey()}
    parts = [dict(training_data(train).survey(rank, 3)) for rank in range(3)]
    assert sorted(position for part in parts for position in part) == sorted(whole)
    assert all(raw.id.tolist() == whole[position] for part in parts for position, raw in part.items())
    assert sorted(sample for ids in whole.values() for sample in ids) == list(range(64))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_ranks_together_see_every_sample_once(ranks: int, tmp_path: Path) -> None:
    x, y, shards = images(45, 1, tmp_path / "validation")
    pairs = []
    for rank in range(ranks):
        part = Validation(shards, training_data(shards, 18, rank, ranks), None)
        pairs += [(a.sum().item(), b.item()) for xs, ys in part._batches() for a, b in zip(xs, ys, strict=True)]
    expected = zip((torch.from_numpy(x).float() / 255).sum((1, 2)).tolist(), y.tolist(), strict=True)
    assert np.allclose(sorted(pairs), sorted(expected))


def test_a_judge_judges(tmp_path: Path) -> None:
    _, _, train = images(64, 0, tmp_path / "train")
    pipeline = pipeline_of(train.spec)
    pipeline.save_pretrained(tmp_path / "judge")
    validation = Validation(train, training_data(train), str(tmp_path / "judge"))
    found = validation.summarise(validation.measure(pipeline))
    assert found["judge_flip_rate"] == found["class_flip_rate"]  # it is the pipeline itself
    assert found["judge_flip_rate"] is not None


def test_measuring_leaves_the_networks_as_they_are(tmp_path: Path) -> None:
    _, _, train = images(64, 0, tmp_path / "train")
    pipeline = pipeline_of(train.spec)
    for network in pipeline.networks.values():
        network.train()
    before = {k: v.clone() for n in pipeline.networks.values() for k, v in n.state_dict().items()}
    Validation(train, training_data(train), None).measure(pipeline)
    assert all(network.training for network in pipeline.networks.values())
    after = {k: v for n in pipeline.networks.values() for k, v in n.state_dict().items()}
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_the_first_samples_are_those_of_the_training_order(tmp_path: Path) -> None:
    """In whole batches, and of no more than there are, whatever the number of ranks."""
    _, _, train = images(40, 0, tmp_path / "train")
    data = training_data(train)
    size = data.builder.split.size
    whole = [data.builder.batch(raw).x for _, raw in data.survey()]
    for count, batches in ((1, 1), (size + 1, 2), (10_000, len(whole))):
        first = list(data.first(count))
        assert len(first) == batches
        assert all(torch.equal(a, b) for a, b in zip(first, whole[:batches], strict=True))


def test_draw_writes_what_it_gives(tmp_path: Path) -> None:
    _, _, train = images(20, 0, tmp_path / "train")
    figures = Validation(train, training_data(train), None).draw(pipeline_of(train.spec), tmp_path / "figures")
    assert figures.keys() >= {"latent_space", "reconstructions", "samples", "latent_grid"}
    assert {path.stem for path in (tmp_path / "figures").iterdir()} == figures.keys()


def test_the_closing_lines_say_where_everything_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And name nothing that is not there."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/my run")
    assert closing_summary(folder, {}, (), measured=True).count(str(folder)) == 0
    for name in ("pipeline", "figures", "tensorboard", "summary.json"):
        (folder / name).mkdir(parents=True)
    roles = ("encoder", "classifier", "decoder")
    text = closing_summary(folder, {"accuracy": 0.98765, "judge_flip_rate": None}, roles)
    assert "warning" not in text
    told = closing_summary(folder, {}, roles, warnings=["decoder step 3: class lost"])
    assert "  warning   decoder step 3: class lost" in told.splitlines()
    lines = text.splitlines()
    assert lines[0] == "done."
    assert "0.9877" in text
    assert lines[2] == "  classes: 99 % of the samples are put into the right one"
    assert "judge_flip_rate" not in text
    assert "Pipeline.from_pretrained('runs/my run')" in text
    assert all(str(folder) in line for line in lines[3:])
    assert {"pipeline", "figures", "curves", "numbers"} <= {line.split()[0] for line in lines[1:]}
    assert "no " not in text
    assert "not encoded or reconstructed" in closing_summary(folder, {}, ("decoder",))
