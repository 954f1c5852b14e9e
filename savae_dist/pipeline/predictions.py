"""What a pipeline says of files, row by row: class, probabilities and how well it reconstructs them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from savae_dist.pipeline.anomaly import kinds, scores
from savae_dist.pipeline.class_names import Probabilities, name_of
from savae_dist.pipeline.inputs.inputs import as_tensor
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import normalise


def columns(pipeline: Pipeline) -> list[str]:
    """The header of `rows`."""
    classes = [name_of(number, pipeline.spec.class_names) for number in range(pipeline.spec.classes)]
    return [
        "file",
        *(["seconds" if pipeline.spec.rate else "sample"] if pipeline.spec.kind == "signal" else []),
        *(["class", *classes] if "classifier" in pipeline.networks else []),
        *(["error"] if "decoder" in pipeline.networks else []),
        *(f"score_{kind}" for kind in kinds(pipeline)),
    ]


def rows(pipeline: Pipeline, files: Sequence[Any], **reading: Any) -> Iterator[list[Any]]:
    """A row for each picture, or each window of a recording, which may be larger than the memory.

    The error is that of `reconstructed`, the scores are those of `Pipeline.score`. reading: see `Pipeline.prepared`.
    """
    networks, spec = pipeline.networks, pipeline.spec
    for part in pipeline.parts(files, **reading):
        x = normalise(as_tensor(part.x).to(pipeline.device), spec)
        mean = pipeline.posterior(x).mean
        found: list[list[Any]] = [[part.name] for _ in part.starts]
        if spec.kind == "signal":
            for row, start in zip(found, part.starts, strict=True):
                row.append(f"{start / spec.rate:.6g}" if spec.rate else start)
        if "classifier" in networks:
            chances = Probabilities.of(pipeline.logits(mean).softmax(1).cpu().numpy(), spec.class_names)
            for row, name, own in zip(found, chances.names(), chances.tolist(), strict=True):
                row += [name, *(f"{chance:.6f}" for chance in own)]
        x_hat = None
        if "decoder" in networks:
            x_hat, errors = reconstructed(pipeline, x, mean)
            for row, error in zip(found, errors, strict=True):
                row.append(f"{error:.6g}")
        strange = scores(pipeline, x, mean, x_hat)
        for row, *own in zip(found, *(strange[kind] for kind in kinds(pipeline)), strict=True):
            row += [f"{score:.6g}" for score in own]
        yield from found


def by_file(pipeline: Pipeline, found: Iterable[list[Any]]) -> Iterator[list[Any]]:
    """The rows of `rows` for signals, a row for each file: its windows, and the means over them.

    The class is that of the largest mean probability. The header is `columns`, with `windows` in place of the time.
    """
    names, classify = pipeline.spec.class_names, "classifier" in pipeline.networks
    first = 3 if classify else 2  # before the numbers: file, time and, with a classifier, the class
    for file, windows in groupby(found, key=itemgetter(0)):
        values = np.array([[float(value) for value in row[first:]] for row in windows])
        mean = values.mean(axis=0)
        chosen = [name_of(int(mean[: pipeline.spec.classes].argmax()), names)] if classify else []
        yield [file, len(values), *chosen, *(f"{value:.6g}" for value in mean)]


class Reconstruction(NamedTuple):
    """x_hat: normalised `[n, *shape]`. errors: mean squared, per element of [0, 1] images or normalised windows."""

    x_hat: Tensor
    errors: list[float]


def reconstructed(pipeline: Pipeline, x: Tensor, mean: Tensor) -> Reconstruction:
    """Normalised samples x `[n, *shape]` decoded from the means `[n, K]` of their posteriors, and told no class."""
    x_hat = pipeline.decoded(pipeline.completed(mean, torch.full((len(x),), -1)))
    return Reconstruction(x_hat, (x_hat - x).square().flatten(1).mean(1).tolist())
