"""The gaming measure on linear classifiers, where the smallest move to another class is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from savae_dist.evaluation.classes.gaming import choose, measure_gaming, move
from savae_dist.latents import Posterior
from savae_dist.networks.base import Classifier, Encoder
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

IMAGE = DataSpec("image", (1, 4, 5), 2, "unit")
SIGNAL = DataSpec("signal", (2, 10), 2, "none")


class Flat(Encoder):
    """The code is the sample itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.latent_dim = size

    def forward(self, x: Tensor) -> tuple[Posterior, list[Tensor]]:
        z = x.flatten(1)
        return Posterior(z, torch.full_like(z, -torch.inf)), []


class Linear(Classifier):
    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.line = nn.Linear(size, classes)

    def forward(self, z: Tensor) -> Tensor:
        return self.line(z)


def linear(spec: DataSpec, seed: int = 0, batch_size: int = 7) -> Pipeline:
    torch.manual_seed(seed)
    size = torch.Size(spec.shape).numel()
    classifier = Linear(size, spec.classes)
    with torch.no_grad():  # the boundaries go through the middle of the samples
        classifier.line.bias.copy_(-0.5 * classifier.line.weight.sum(1))
    return Pipeline({"encoder": Flat(size), "classifier": classifier}, spec, batch_size=batch_size)


def samples(spec: DataSpec, pipeline: Pipeline, spread: float, n: int = 40) -> tuple[Tensor, Tensor]:
    """Around the middle, each with the class that the pipeline takes it for; every fifth has no label."""
    x = 0.5 + spread * torch.randn(n, *spec.shape, generator=torch.Generator().manual_seed(1))
    y = pipeline.logits(x.flatten(1)).argmax(1)
    y[4::5] = -1
    return x, y


def to_the_boundary(pipeline: Pipeline, x: Tensor, own: Tensor, target: Tensor) -> Tensor:
    """The distance of each sample to where the target's score is that of its own class."""
    line = pipeline.role("classifier").line
    weight, bias = line.weight[own] - line.weight[target], line.bias[own] - line.bias[target]
    return (((weight * x.flatten(1)).sum(1) + bias) / weight.norm(dim=1)).detach()


@pytest.mark.parametrize(("spec", "spread"), [(IMAGE, 0.05), (SIGNAL, 30.0)])
def test_between_two_classes_the_move_is_the_distance_to_the_plane(spec: DataSpec, spread: float) -> None:
    """Of signals, however far out; images are well within [0, 1]."""
    pipeline = linear(spec)
    x, y = samples(spec, pipeline, spread)
    pairs = choose(pipeline, x, y, 100)
    assert len(pairs.x) == (y >= 0).sum()
    moved, reached = move(pipeline, pairs)
    assert reached.all()
    expected = to_the_boundary(pipeline, pairs.x, 1 - pairs.target, pairs.target)
    torch.testing.assert_close((moved - pairs.x).flatten(1).norm(dim=1), expected, rtol=0.01, atol=1e-3 * spread)
    assert torch.equal(pipeline.logits(moved.flatten(1)).argmax(1), pairs.target)
    values = measure_gaming(pipeline, pipeline, x, y)
    assert values["gaming_move"] == pytest.approx(expected.mean().item(), rel=0.01)
    assert values["gaming_judge_agreement"] == values["gaming_reached"] == 1
    assert values == measure_gaming(pipeline, pipeline, x, y)


def test_of_several_classes_no_move_is_shorter_than_to_the_target_s_plane() -> None:
    """Nor is it far longer: here the other classes are seldom in the way."""
    spec = DataSpec("image", (1, 9, 9), 3, "unit")
    pipeline = linear(spec)
    x, y = samples(spec, pipeline, 0.05)
    pairs = choose(pipeline, x, y, 100)
    own = pipeline.logits(pairs.x.flatten(1)).argmax(1)
    assert (own != pairs.target).all()
    assert set(own.tolist()) == set(pairs.target.tolist()) == {0, 1, 2}
    moved, reached = move(pipeline, pairs)
    assert reached.all()
    length, least = (moved - pairs.x).flatten(1).norm(dim=1), to_the_boundary(pipeline, pairs.x, own, pairs.target)
    assert (length > 0.999 * least).all()
    assert length.mean() < 1.2 * least.mean()


def test_pictures_stay_in_their_range_and_distances_are_those_between_classes() -> None:
    pipeline = linear(IMAGE)
    x, y = samples(IMAGE, pipeline, 2.0)
    x = x.clamp(0, 1)
    pairs = choose(pipeline, x, y, 5)
    assert len(pairs.x) == len(pairs.target) == 5
    moved, _ = move(pipeline, pairs)
    assert moved.min() >= 0
    assert moved.max() <= 1
    expected = torch.stack([(x[y == pairs.target[i]] - pairs.x[i]).flatten(1).norm(dim=1).mean() for i in range(5)])
    torch.testing.assert_close(pairs.distance, expected, rtol=1e-4, atol=1e-5)


def test_a_judge_that_sees_something_else_does_not_agree() -> None:
    pipeline, judge = linear(IMAGE), linear(IMAGE, seed=1)
    x, y = samples(IMAGE, pipeline, 0.1)
    with torch.no_grad():  # it sees only whether all is brighter, which no small move along another direction changes
        judge.role("classifier").line.weight.zero_()
        judge.role("classifier").line.bias.copy_(torch.tensor([1.0, 0.0]))
    share = (choose(pipeline, x, y, 200).target == 0).float().mean().item()
    assert measure_gaming(pipeline, judge, x, y)["gaming_judge_agreement"] == pytest.approx(share)


def test_a_class_that_nothing_reaches_is_told() -> None:
    pipeline = linear(IMAGE)
    x, y = torch.rand(6, *IMAGE.shape), torch.tensor([0, 0, 0, 1, 1, 1])
    with torch.no_grad():
        pipeline.role("classifier").line.bias.copy_(torch.tensor([1e4, 0.0]))
    values = measure_gaming(pipeline, pipeline, x, y)
    assert values == {k: 0.0 if k == "gaming_reached" else None for k in values}
    with pytest.raises(ValueError, match="at least two classes"):
        measure_gaming(pipeline, pipeline, x, torch.zeros(6, dtype=torch.int64))
