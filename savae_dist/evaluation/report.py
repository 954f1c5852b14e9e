"""Metrics and figures of a pipeline, put together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.data import RawBatch, Reader, Request, evaluation_requests, loader
from savae_dist.evaluation import figures, metrics
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import normalise

EVALUATION_BATCH = 256
DRAWN = 2000  # samples in the latent scatter


def raw_batches(reader: Reader, rank: int = 0, ranks: int = 1) -> Iterator[RawBatch]:
    """Every sample once, each on one rank; the unreadable are left out and named on stderr."""
    requests = evaluation_requests(reader.shards.size, EVALUATION_BATCH, rank, ranks)
    for raw in loader(reader, requests, workers=0, pin=False):  # which fetches remote shards ahead
        for reason, shard, key in raw.bad:
            print(f"savae_dist: {shard}: {key}: {reason}; left out of the evaluation", file=sys.stderr)
        yield raw


def first(reader: Reader) -> RawBatch:
    """The samples that figures are drawn of."""
    count = min(DRAWN, reader.shards.size)
    return reader[Request(0, count, range(count))]


def batches(reader: Reader) -> Iterator[tuple[Tensor, Tensor]]:
    """(x normalised, y) of every sample once."""
    for raw in raw_batches(reader):
        yield normalise(raw.x, reader.shards.spec), raw.y


def evaluate(
    pipeline: Pipeline,
    validation: metrics.Batches,
    training: metrics.Batches | None = None,
    judge: Pipeline | None = None,
) -> dict[str, float | None]:
    """All metrics over the validation batches; the class-mean baselines need the training batches."""
    means = None if training is None else metrics.class_means(training, pipeline.spec)
    return metrics.summarise(metrics.measure(pipeline, validation, means, judge))


def draw_figures(pipeline: Pipeline, x: Tensor, y: Tensor) -> dict[str, Figure]:
    """Every figure that this pipeline's networks allow, of normalised samples x `[n, *shape]` with labels y `[n]`."""
    drawn: dict[str, Figure] = {}
    codes = pipeline.posterior(x).mean if "encoder" in pipeline.networks else None
    decoder = "decoder" in pipeline.networks
    if codes is not None:
        drawn["latent_space"] = figures.latent_space(codes, y, pipeline.spec)
    if codes is not None and decoder:
        rows = figures.choose(y, figures.REPRODUCED[pipeline.spec.kind])
        drawn["reconstructions"] = figures.reconstructions(
            x[rows], pipeline.decoded(pipeline.completed(codes[rows], y[rows])), y[rows], pipeline.spec
        )
    if decoder:
        drawn["samples"] = figures.samples(pipeline)
        if pipeline.labels:
            drawn["samples_by_class"] = figures.samples_by_class(pipeline)
        if pipeline.latent_dim == 2:
            drawn["latent_grid"] = figures.latent_grid(pipeline, codes)
    return drawn


def write_figures(
    pipeline: Pipeline, x: Tensor, y: Tensor, folder: str | Path, step: int | None = None
) -> dict[str, Figure]:
    """Draw them and save each as `NAME.png`, or `NAME-STEP.png`, in the folder; returned for a tracker."""
    suffix = "" if step is None else f"-{step:08d}"
    drawn = draw_figures(pipeline, x, y)
    for name, figure in drawn.items():
        figures.save(figure, Path(folder) / f"{name}{suffix}.png")
    return drawn
