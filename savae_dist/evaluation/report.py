"""The evaluation of a pipeline on shards: batches, all metrics as one dictionary, all figures as files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.data import RawBatch, Reader, Request, Shards, evaluation_requests, loader, sequential
from savae_dist.errors import ConfigError
from savae_dist.evaluation import metrics
from savae_dist.evaluation.figures import figures
from savae_dist.evaluation.worst import worst_reconstructions
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import normalise

EVALUATION_BATCH = 256
DRAWN = 2000  # samples in the scatter of the latent space


def open_reader(source: str, pipeline: Pipeline, own_classes: bool = False) -> Reader:
    """A reader of all samples of some shards, which are normalised as those were that the pipeline was trained on.

    own_classes: their labels stay as they are, in place of those of the pipeline's classes. ConfigError unless they
    have the pipeline's kind and shape; DataError where they name its classes differently.
    """
    return reader_of(Shards.open(source), pipeline, source, own_classes)


def reader_of(shards: Shards, pipeline: Pipeline, source: str, own_classes: bool = False) -> Reader:
    """The same of shards, or a part of them, that are open."""
    other = pipeline.spec.pictures is None and shards.spec.shape != pipeline.spec.shape
    if other or shards.spec.kind != pipeline.spec.kind:
        raise ConfigError(f"{source} holds {shards.spec.shape}, and the pipeline takes {pipeline.spec.shape}")
    classes = shards.spec if own_classes else pipeline.spec
    named = replace(pipeline.spec, classes=classes.classes, class_names=classes.class_names)
    shards = shards.with_spec(replace(named, attributes=shards.spec.attributes))
    if shards.foreign:
        print(f"{source}: {shards.foreign} samples are of classes not trained on: unlabelled", file=sys.stderr)
    return Reader(shards, sequential(shards), bad_budget=shards.size)


def raw_batches(reader: Reader, rank: int = 0, ranks: int = 1) -> Iterator[RawBatch]:
    """Every sample once, on one of the ranks; a sample that cannot be read is left out and named on stderr."""
    requests = evaluation_requests(reader.shards.size, EVALUATION_BATCH, rank, ranks)
    for raw in loader(reader, requests, workers=0, pin=False):  # the loader, since it fetches remote shards ahead
        for reason, shard, key in raw.bad:
            print(f"savae_dist: {shard}: {key}: {reason}; left out of the evaluation", file=sys.stderr)
        yield raw


def first(reader: Reader) -> RawBatch:
    """The first samples, at most `DRAWN`: those that the figures show."""
    count = min(DRAWN, reader.shards.size)
    return reader[Request(0, count, range(count))]


def batches(reader: Reader) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised x and y of every sample, once each."""
    for raw in raw_batches(reader):
        yield normalise(raw.x, reader.shards.spec), raw.y


def evaluate(
    pipeline: Pipeline,
    validation: metrics.Batches,
    training: metrics.Batches | None = None,
    judge: Pipeline | None = None,
) -> dict[str, float | None]:
    """The metrics of codes and reconstructions over the validation batches.

    training: batches whose class means are the baselines to compare with; without them there are no baselines.
    """
    means = None if training is None else metrics.class_means(training, pipeline.spec)
    return metrics.summarise(metrics.measure(pipeline, validation, means, judge))


def table(measured: Mapping[str, Any]) -> str:
    """A line per metric with its interval and number of samples; those without a value are named, then how it was done.

    measured: as in metrics.json.
    """
    numbers = {name: value for name, value in measured.items() if not isinstance(value, Mapping)}
    intervals, n = (measured.get(key, {}) for key in ("intervals", "n"))
    counts = {name: f"n = {count:,}" for name, count in n.items()}
    lines = [
        f"{name:40} {value:<11.6g} {_between(intervals.get(name)):24} {counts.get(name, '')}".rstrip()
        for name, value in numbers.items()
        if value is not None
    ]
    absent = [name for name, value in numbers.items() if value is None]
    lines += [f"does not apply here: {', '.join(absent)}"] if absent else []
    return "\n".join([*lines, *(f"{name}: {text}" for name, text in measured.get("protocol", {}).items())])


def _between(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"


def draw_figures(pipeline: Pipeline, x: Tensor, y: Tensor, of: str = "", worst: bool = False) -> dict[str, Figure]:
    """The figures by name, as many as the pipeline's networks allow.

    x: normalised samples `[n, *shape]` to encode and reconstruct. y: their labels `[n]`. of: what samples these are,
    for the titles. worst: also those of them that are reconstructed worst.
    """
    drawn: dict[str, Figure] = {}
    codes = pipeline.posterior(x).mean if "encoder" in pipeline.networks else None
    decoder = "decoder" in pipeline.networks
    if codes is not None:
        drawn["latent_space"] = figures.latent_space(codes, y, pipeline.spec, of)
    if codes is not None and decoder:
        rows = figures.choose(y, figures.REPRODUCED[pipeline.spec.kind])
        drawn["reconstructions"] = figures.reconstructions(
            x[rows], pipeline.decoded(pipeline.completed(codes[rows], y[rows])), y[rows], pipeline.spec, of
        )
        if worst:
            drawn["worst_reconstructions"] = worst_reconstructions(pipeline, x, codes, y, of)
    if decoder:
        drawn["samples"] = figures.samples(pipeline)
        if pipeline.labels:
            drawn["samples_by_class"] = figures.samples_by_class(pipeline)
        if pipeline.latent_dim == 2:
            drawn["latent_grid"] = figures.latent_grid(pipeline, codes, of)
    return drawn


def save_figures(drawn: Mapping[str, Figure], folder: Path, where: str = "", formats: Sequence[str] = ("png",)) -> None:
    """Each as `NAME.FORMAT` in the folder. where: a line below every title, such as the run and the step."""
    for name, figure in drawn.items():
        if where:
            figures.add_to_title(figure, where)
        for ending in formats:
            figures.save(figure, folder / f"{name}.{ending}")


def write_figures(
    pipeline: Pipeline, x: Tensor, y: Tensor, folder: str | Path, where: str = "", of: str = "", worst: bool = False
) -> dict[str, Figure]:
    """Draw the figures of `draw_figures`, save each as `NAME.png` in the folder, and return them; where: see above."""
    drawn = draw_figures(pipeline, x, y, of, worst)
    save_figures(drawn, Path(folder), where)
    return drawn
