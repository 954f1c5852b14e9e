"""The figures of merit of samples, against what is known of Gaussians and of judges that are certain or at a loss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from savae_dist.evaluation.features.frechet import Gaussian, frechet_distance
from savae_dist.evaluation.features.sample_metrics import Judged, judged, measure_samples
from savae_dist.evaluation.metrics import laplacian_variance
from savae_dist.networks import AllConvEncoder, ConvDecoder, ConvEncoder, DcganDecoder, DenseClassifier
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.posteriors import PosteriorBank
from savae_dist.pipeline.sampling.sampler import fit
from savae_dist.preprocess import DataSpec

IMAGE = DataSpec("image", (1, 9, 8), 4, "unit")
SIGNAL = DataSpec("signal", (2, 40), 3, "none")


def gaussian(rng: np.random.Generator, units: int, rank: int | None = None) -> Gaussian:
    root = rng.normal(size=(units, rank or units))
    return Gaussian(rng.normal(size=units), root @ root.T)


def test_one_dimension_in_closed_form() -> None:
    """(m - n)^2 + (s - t)^2."""
    a, b = Gaussian(np.array([1.0]), np.array([[9.0]])), Gaussian(np.array([-1.5]), np.array([[0.25]]))
    assert frechet_distance(a, b) == pytest.approx(2.5**2 + (3 - 0.5) ** 2)


def test_covariances_that_commute_in_closed_form() -> None:
    """In common axes it is the sum of one-dimensional distances."""
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    s, t = rng.uniform(0.1, 3, (2, 6))
    mean = rng.normal(size=(2, 6))
    a, b = (Gaussian(m, axes @ np.diag(d**2) @ axes.T) for m, d in zip(mean, (s, t), strict=True))
    expected = np.square(mean[0] - mean[1]).sum() + np.square(s - t).sum()
    assert frechet_distance(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("rank", [8, 3], ids=["full", "singular"])
def test_any_covariances_against_the_matrix_root(rank: int) -> None:
    rng = np.random.default_rng(1)
    a, b = gaussian(rng, 8, rank), gaussian(rng, 8)
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * np.real(root))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)
    assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)


def test_the_fit_is_that_of_numpy() -> None:
    x = np.random.default_rng(2).normal(size=(50, 3)).astype(np.float32)
    fitted = Gaussian.of(x)
    centred = x.astype(np.float64) - x.mean(0, dtype=np.float64)
    np.testing.assert_allclose(fitted.mean, x.mean(0, dtype=np.float64))
    np.testing.assert_allclose(fitted.covariance, centred.T @ centred / 49)
    assert Gaussian.of(x[:, :1]).covariance.shape == (1, 1)


@pytest.mark.parametrize(
    ("rows", "confidence", "balance", "score"),
    [
        (np.eye(4), 1.0, 1.0, 4.0),  # certain, all classes
        (np.eye(4)[[2] * 5], 1.0, 0.0, 1.0),  # certain, one class
        (np.full((3, 4), 0.25), 0.25, 1.0, 1.0),  # at a loss
        (np.eye(4)[[0, 1]], 1.0, 0.5, 2.0),  # certain, two of four classes
    ],
    ids=["all", "one", "none", "half"],
)
def test_judges_that_are_certain_or_at_a_loss(
    rows: np.ndarray, confidence: float, balance: float, score: float
) -> None:
    found = Judged(np.zeros((len(rows), 1)), rows)
    assert list(found.once().values()) == pytest.approx((confidence, balance, score))


def test_samples_that_count_several_times() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(4), 12)
    weights = np.random.default_rng(1).integers(0, 4, (3, 12)).astype(float)
    found = Judged(np.zeros((12, 1)), rows).measures(weights)
    for number, times in enumerate(weights.astype(int)):
        repeated = Judged(np.zeros((1, 1)), np.repeat(rows, times, 0)).once()
        assert {name: one[number] for name, one in found.items()} == pytest.approx(repeated)


def judge_of(spec: DataSpec) -> Pipeline:
    torch.manual_seed(1)
    networks = {"encoder": ConvEncoder(spec.shape, 2, width=4), "classifier": DenseClassifier(2, spec.classes)}
    for network in networks.values():
        network.eval()
    return Pipeline(networks, spec)


def generator_of(spec: DataSpec) -> Pipeline:
    torch.manual_seed(2)
    return Pipeline({"decoder": DcganDecoder(spec.shape, 5, width=4)}, spec)


def batches(x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for part in x.split(7):
        yield part, torch.full((len(part),), -1)


@pytest.mark.parametrize("spec", [IMAGE, SIGNAL], ids=["image", "signal"])
def test_samples_are_measured_as_the_definitions_read(spec: DataSpec) -> None:
    pipeline, judge, x = generator_of(spec), judge_of(spec), torch.rand(30, *spec.shape)
    found = measure_samples(pipeline, batches(x), judge, count=12, seed=5)
    samples = pipeline.decoded(torch.randn(12, 5, generator=torch.Generator().manual_seed(5)))
    encoder, classifier = judge.networks["encoder"], judge.networks["classifier"]
    seen: list[Tensor] = []
    handle = encoder.mean.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        probabilities = classifier(encoder(samples)[0].mean).softmax(1)
        encoder(x)
    handle.remove()
    ours, theirs = (Gaussian.of(features.numpy()) for features in seen)
    assert found["frechet_distance"] == pytest.approx(frechet_distance(ours, theirs), rel=1e-4)
    assert found["judge_confidence"] == pytest.approx(probabilities.max(1).values.mean().item(), rel=1e-5)
    expected = (laplacian_variance(samples).mean() / laplacian_variance(x).mean()).item()
    assert found["sample_sharpness"] == pytest.approx(expected, rel=1e-5)
    assert found["frechet_floor"] is not None
    assert 0 < found["class_balance"] <= 1


def test_the_distance_knows_better_samples() -> None:
    """Real samples against real ones are near the floor, noise is not."""
    judge, x = judge_of(IMAGE), torch.rand(400, *IMAGE.shape) * torch.rand(400, 1, 1, 1)
    real, other, noise = (Gaussian.of(judged(judge, part).features) for part in (x[:200], x[200:], x[:200].round()))
    assert frechet_distance(real, other) < 0.1 * frechet_distance(real, noise)


def test_what_cannot_be_measured() -> None:
    pipeline, x = generator_of(IMAGE), torch.rand(20, *IMAGE.shape)
    assert measure_samples(pipeline, batches(x), count=12).keys() == {"sample_sharpness"}
    assert measure_samples(pipeline, batches(torch.zeros(9, *IMAGE.shape)), count=12) == {"sample_sharpness": None}
    assert measure_samples(pipeline, batches(x), judge_of(IMAGE), count=12)["frechet_floor"] is None
    with pytest.raises(ValueError, match="train a judge on the same shards"):
        measure_samples(pipeline, batches(x), judge_of(SIGNAL), count=12)


def test_a_judge_of_another_architecture_compares_in_its_codes() -> None:
    judge = Pipeline({"encoder": AllConvEncoder(IMAGE.shape, 5, width=4), "classifier": DenseClassifier(5, 4)}, IMAGE)
    pipeline, x = generator_of(IMAGE), torch.rand(30, *IMAGE.shape)
    found = measure_samples(pipeline, batches(x), judge, count=12)
    samples = pipeline.decoded(pipeline.latents(12, seed=0))
    real, ours = (Gaussian.of(judge.posterior(each).mean.numpy()) for each in (x, samples))
    assert found["frechet_distance"] == pytest.approx(frechet_distance(ours, real), rel=1e-4)


def test_draws_are_the_same_for_the_same_seed() -> None:
    pipeline = Pipeline({"decoder": ConvDecoder(IMAGE.shape, 2, width=4)}, IMAGE)
    x, judge = torch.rand(20, *IMAGE.shape), judge_of(IMAGE)
    first, again, other = (measure_samples(pipeline, batches(x), judge, 12, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_prior_stands_beside_the_sampler() -> None:
    """The usual one is measured; another on demand; and where that is the prior, it does not stand there twice."""
    pipeline, judge, x = generator_of(IMAGE), judge_of(IMAGE), torch.rand(30, *IMAGE.shape)
    of_prior = measure_samples(pipeline, batches(x), judge, 40)
    assert of_prior["prior_frechet_distance"] is None
    pipeline.mixture = fit(3 + torch.randn(90, 5), {}).sampler
    usual, asked = (measure_samples(pipeline, batches(x), judge, 40, sampler=one) for one in (None, "prior"))
    assert usual["prior_frechet_distance"] == of_prior["frechet_distance"] == asked["frechet_distance"]
    assert usual["frechet_distance"] != of_prior["frechet_distance"]
    assert asked["prior_frechet_distance"] is None


def test_classes_that_are_asked_for() -> None:
    """Of two codes one is given the class that the judge sees in it; classes without a code are not seen."""
    pipeline, judge, x = generator_of(IMAGE), judge_of(IMAGE), torch.rand(30, *IMAGE.shape)
    codes = torch.randn(2, 5)
    seen = judged(judge, pipeline.decoded(codes)).probabilities.argmax(1).tolist()
    right, other = seen[0], (seen[0] + 1) % 4
    pipeline.posteriors = PosteriorBank(codes, torch.full((2, 5), -60.0), torch.tensor([right, other]))

    def measured(y: list[int]) -> dict[str, float | None]:
        return measure_samples(pipeline, iter([(x, torch.tensor(y * 15))]), judge, count=40)

    y = torch.tensor([right, other] * 15)
    drawn = y[torch.randint(30, (40,), generator=torch.Generator().manual_seed(0))]
    expected = torch.where(drawn == right, 1.0, float(seen[1] == other)).mean()
    assert expected > 0
    assert measured([right, other])["label_agreement"] == pytest.approx(float(expected))
    alone = measured([right, (right + 2) % 4])
    assert alone["label_agreement"] == pytest.approx(float((drawn == right).float().mean()))
    features = judged(judge, pipeline.decoded(codes[:1].expand(int((drawn == right).sum()), -1))).features
    real = Gaussian.of(judged(judge, x).features)
    assert alone["label_frechet_distance"] == pytest.approx(frechet_distance(Gaussian.of(features), real), rel=1e-4)
    rare = [right, *[(right + 2) % 4] * 999]  # there, but not among the 40 that are drawn
    for y in ([-1, (right + 2) % 4], [-1], rare):
        none = measured(y)
        assert (none["label_agreement"], none["label_frechet_distance"]) == (None, None)
