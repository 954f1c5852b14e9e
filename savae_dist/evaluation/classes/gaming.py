"""How far a classifier can be gamed: how little a picture must be moved to be taken for another class.

The latent loss (Zemouri eq 11) is seen through the pipeline's own encoder and classifier. Where a small move that
changes nothing for anybody else changes their class, a decoder can lower that loss without drawing the class. The move
is found as in Decoupling Direction and Norm (Rony et al. 2019, algorithm 1): gradient steps towards the target class
give the direction, and the length shrinks while the class is reached and grows while it is not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from savae_dist.evaluation.metrics import check_judge
from savae_dist.networks.base import inference
from savae_dist.pipeline.pipeline import Pipeline

PAIRS = 200  # how many pairs of a sample and a class are tried by default
STEPS = 100  # gradient steps, as many as in the paper
SHRINK = 0.05  # share by which the length changes in a step
FIRST = 0.1  # first length and first step, in distances between samples of the two classes
LAST_STEP = 0.01  # the last step as a share of the first; between them steps fall along a cosine
HALVINGS = 12  # bisections on the way from a sample to the point that was taken for the target


@dataclass(frozen=True)
class Pairs:
    """Samples x `[n, *shape]` that are taken for their class, each with a target class `[n]` that is another.

    distance: mean L2 distance `[n]` of each from the samples of its target class.
    """

    x: Tensor
    target: Tensor
    distance: Tensor


def measure_gaming(
    pipeline: Pipeline, judge: Pipeline, x: Tensor, y: Tensor, count: int = PAIRS
) -> dict[str, float | None]:
    """The measure over up to `count` pairs of the samples; deterministic. ValueError if there are no pairs.

    x: normalised `[n, *shape]`; y: their labels `[n]`, -1 = unlabelled.

    - gaming_move: mean L2 length of the smallest move found after which the pipeline takes the sample for the target.
    - gaming_distance: mean L2 distance between samples of the two classes, beside it.
    - gaming_reached: share of the pairs for which such a move was found; the other figures are of these, None without.
    - gaming_judge_agreement: share in which the judge takes the moved sample for the target, too. A move that really
      changes the class changes it for both: the lower this is, the more a repair by the latent loss is only seen by
      the pipeline itself.
    """
    check_judge(judge, pipeline.spec)
    pairs = choose(pipeline, x.to(pipeline.device), y.to(pipeline.device), count)
    if not len(pairs.x):
        raise ValueError("gaming needs samples of at least two classes, some of which the pipeline takes for their own")
    moved, reached = move(pipeline, pairs)
    if not reached.any():
        return {"gaming_move": None, "gaming_distance": None, "gaming_reached": 0.0, "gaming_judge_agreement": None}
    length = (moved - pairs.x)[reached].flatten(1).norm(dim=1)
    agreed = decision(judge, moved[reached]) == pairs.target[reached].to(judge.device)
    return {
        "gaming_move": length.mean().item(),
        "gaming_distance": pairs.distance[reached].mean().item(),
        "gaming_reached": reached.double().mean().item(),
        "gaming_judge_agreement": agreed.double().mean().item(),
    }


def choose(pipeline: Pipeline, x: Tensor, y: Tensor, count: int) -> Pairs:
    """The first samples that the pipeline takes for their class; their targets go through the other classes in turn."""
    classes = y[y >= 0].unique()
    right = ((y >= 0) & (decision(pipeline, x) == y)).nonzero()[:count, 0]
    if len(classes) < 2:
        right = right[:0]
    own = torch.searchsorted(classes, y[right])
    turn = torch.arange(len(right), device=y.device) % max(len(classes) - 1, 1)
    target = classes[(own + 1 + turn) % len(classes)]
    flat = x.flatten(1)
    far = [torch.cdist(flat[i : i + 1], flat[y == label]).mean() for i, label in zip(right, target, strict=True)]
    return Pairs(x[right], target, torch.stack(far) if far else x.new_zeros(0))


def move(pipeline: Pipeline, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """The samples moved to where they are taken for their targets, and which of them got there, bool `[n]`."""
    parts = (value.split(pipeline.batch_size) for value in (pairs.x, pairs.target, pairs.distance))
    found = [_move(pipeline, *part) for part in zip(*parts, strict=True)]
    moved, reached = (torch.cat(column) for column in zip(*found, strict=True))
    return moved, reached


def _move(pipeline: Pipeline, x: Tensor, target: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
    """The same of one part: Rony's algorithm 1, then the shortest reach on the straight way to what it found."""
    first = FIRST * _wide(distance, x)
    now, length, best = x, first, x
    shortest = torch.full_like(distance, math.inf)
    for step in range(STEPS):
        part = LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * step / STEPS)) / 2
        ahead = now - x - part * first * _unit(slope(pipeline, now, target))
        there = _wide(decision(pipeline, now) == target, x)
        length = torch.where(there, (1 - SHRINK) * length, (1 + SHRINK) * length)
        now = _within(pipeline, x + length * _unit(ahead))
        far = (now - x).flatten(1).norm(dim=1)
        better = (decision(pipeline, now) == target) & (far < shortest)
        best, shortest = torch.where(_wide(better, x), now, best), torch.where(better, far, shortest)
    return _nearest(pipeline, x, best, target), shortest.isfinite()


def _nearest(pipeline: Pipeline, x: Tensor, there: Tensor, target: Tensor) -> Tensor:
    """The point on the way from x to `there`, where the target is taken, at which it is taken first; by bisection."""
    low, high = torch.zeros(len(x), device=x.device), torch.ones(len(x), device=x.device)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        taken = decision(pipeline, torch.lerp(x, there, _wide(middle, x))) == target
        low, high = torch.where(taken, low, middle), torch.where(taken, middle, high)
    return torch.lerp(x, there, _wide(high, x))


def decision(pipeline: Pipeline, x: Tensor) -> Tensor:
    """The class that a pipeline takes each sample for `[n]`, at the mean of its posterior."""
    return pipeline.logits(pipeline.posterior(x).mean).argmax(1)


def slope(pipeline: Pipeline, x: Tensor, target: Tensor) -> Tensor:
    """The gradient of each sample's cross-entropy to its target, at the mean of its posterior, `[n, *shape]`."""
    encoder, classifier = pipeline.role("encoder"), pipeline.role("classifier")

    def cross_entropy(samples: Tensor) -> Tensor:
        return F.cross_entropy(classifier(encoder(samples)[0].mean).float(), target, reduction="sum")

    with inference(encoder), inference(classifier):
        gradient: Tensor = torch.func.grad(cross_entropy)(x)
    return gradient


def _within(pipeline: Pipeline, x: Tensor) -> Tensor:
    """Images stay in [0, 1]; signals have no range."""
    return x.clamp(0, 1) if pipeline.spec.kind == "image" else x


def _unit(x: Tensor) -> Tensor:
    """Each sample divided by its length; one of length 0 stays."""
    return x / _wide(x.flatten(1).norm(dim=1).clamp_min(1e-12), x)


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """Values `[n]`, one per sample, as `[n, 1, ...]` that go with x."""
    return values.view(-1, *[1] * (x.ndim - 1))
