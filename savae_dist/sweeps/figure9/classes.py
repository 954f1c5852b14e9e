"""How the classes lie in the code of phase 1: Zemouri's figure 7 as numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from savae_dist.evaluation import metrics
from savae_dist.evaluation.figures import figures
from savae_dist.pipeline.pipeline import Pipeline

NEAREST = 3  # classes that are named beside each


def distances(codes: Tensor, y: Tensor, classes: int) -> Tensor:
    """Between the centroids of the classes, `[classes, classes]`, in units of the classes' width.

    codes `[n, K]`, y int64 `[n]`. The width is the root of the mean squared distance of a sample from its centroid.
    """
    known = y >= 0
    codes, y = codes[known].double(), y[known]
    sums = torch.zeros(classes, codes.shape[1], dtype=torch.float64).index_add(0, y, codes)
    centroids = sums / torch.bincount(y, minlength=classes)[:, None]
    width = (codes - centroids[y]).square().sum(1).mean().sqrt()
    return torch.cdist(centroids, centroids) / width


def encoded(pipeline: Pipeline, batches: metrics.Batches) -> tuple[Tensor, Tensor]:
    """The posterior means of all samples `[n, K]` and their labels `[n]`."""
    pairs = [(pipeline.posterior(x.to(pipeline.device)).mean.cpu(), y) for x, y in batches]
    codes, labels = zip(*pairs, strict=True)
    return torch.cat(codes), torch.cat(labels)


def table(between: Tensor, names: Sequence[str]) -> list[str]:
    """Markdown: a line per class with its nearest ones and their distances."""
    lines = [["class", *(f"nearest {place}" for place in range(1, NEAREST + 1))], ["---"] * (NEAREST + 1)]
    for label, name in enumerate(names):
        order = [other for other in between[label].argsort().tolist() if other != label][:NEAREST]
        lines.append([name, *(f"{names[other]} {between[label, other]:.2f}" for other in order)])
    return [f"| {' | '.join(line)} |" for line in lines]


def told(pipeline: Pipeline, batches: metrics.Batches) -> list[str]:
    """The table of a pipeline's codes of these samples."""
    names = [figures.class_name(label, pipeline.spec) for label in range(pipeline.spec.classes)]
    return table(distances(*encoded(pipeline, batches), pipeline.spec.classes), names)
