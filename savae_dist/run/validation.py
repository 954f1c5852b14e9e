"""Measuring and drawing what a run has learnt so far, over all ranks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.data import (
    Order,
    Proportions,
    RawBatch,
    Reader,
    Request,
    Shards,
    loader,
    training_order,
)
from savae_dist.data.index.scan import UNLABELLED
from savae_dist.distributed.reduce import rank_sums
from savae_dist.evaluation import metrics, report
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.training.batches import Feed

SURVEYED = 65_536  # class means, posteriors and batch-norm statistics are taken over at most so many training samples
LANES, WINDOW = 8, 4  # of the order in which the labelled ones are surveyed
NOT_MEASURED = {  # without a network in that role
    "encoder": "samples are generated, not encoded or reconstructed; tools/evaluate.py --judge measures them",
    "classifier": "accuracy and class flips do not apply",
    "decoder": "nothing is reconstructed or generated: the phase that trains it has no steps",
}


class Survey:
    """A first part of the training set, for statistics of it."""

    def __init__(self, reader: Reader, feed: Feed) -> None:
        self.reader, self.feed = reader, feed
        self.labelled = sum(count for label, count in reader.shards.label_counts.items() if label != UNLABELLED)

    def batches(self, rank: int = 0, ranks: int = 1) -> Iterator[tuple[int, RawBatch]]:
        """(position, whole global batch) of the training order, each batch on one rank."""
        size = self.feed.slicing.size
        numbers = range(rank, math.ceil(min(self.reader.shards.size, SURVEYED) / size), ranks)
        requests = (Request(number * size, size, range(size)) for number in numbers)
        for number, raw in zip(numbers, loader(self.reader, requests, 0, False)):
            yield number * size, raw

    def first(self, count: int) -> Iterator[Tensor]:
        """x normalised of the first `count` samples (in whole batches) of the training order, on any rank the same."""
        for _, raw in islice(self.batches(), math.ceil(count / self.feed.slicing.size)):
            yield self.feed.batch(raw, {}).x

    def samples(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(x normalised, y) of the labelled samples, each once, whatever their share of the training order.

        There may be a few in a thousand million, so they have an order of their own.
        """
        if not self.labelled:
            return
        order = training_order(
            self.reader.shards, Proportions(labelled=1.0), seed=0, lanes=LANES, window=WINDOW, batch_size=1
        )
        reader, size, last = self.reader.with_order(order), self.feed.slicing.size, min(self.labelled, SURVEYED)
        requests = (Request(start, n := min(size, last - start), range(n)) for start in range(0, last, size))
        for raw in loader(reader, requests, 0, False):
            batch = self.feed.batch(raw, {})
            yield batch.x, batch.y


class Validation:
    """The validation set, the class means of the training set as the baseline, and perhaps a judge."""

    def __init__(self, shards: Shards, survey: Survey, judge: str | None) -> None:
        self.reader = Reader(shards, Order.sequential(shards.counts), bad_budget=shards.size)
        self.feed = survey.feed
        self.class_means = metrics.class_means(survey.samples(), shards.spec) if survey.labelled else None
        self.judge = Pipeline.from_pretrained(judge).to(self.feed.device) if judge else None
        if self.judge is not None:
            metrics.check_judge(self.judge, shards.spec)

    def measure(self, pipeline: Pipeline) -> dict[str, Any]:
        """Every sample once, each on one rank; the figures of merit, the same on all ranks."""
        sums = metrics.measure(pipeline, self._batches(), self.class_means, self.judge)
        total = rank_sums(torch.tensor(list(sums.values()), dtype=torch.float64))
        return metrics.summarise(dict(zip(sums, total.tolist(), strict=True)))

    def draw(self, pipeline: Pipeline, folder: Path) -> dict[str, Figure]:
        """Pictures of the first samples into `folder`."""
        batch = self.feed.batch(report.first(self.reader), {})
        return report.write_figures(pipeline, batch.x, batch.y, folder)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        slicing = self.feed.slicing
        for raw in report.raw_batches(self.reader, slicing.rank, slicing.ranks):
            batch = self.feed.batch(raw, {})
            yield batch.x, batch.y


def collapse(values: dict[str, Any], spec: DataSpec) -> str:
    """A sentence if the code says nothing: KL near 0, as with Zemouri's KL weight of 1, and no class told from it."""
    kl, accuracy = values.get("kl"), values.get("accuracy")
    if kl is None or not kl < 0.05 or (accuracy is not None and accuracy >= 1.5 / spec.classes):
        return ""
    chance = "" if accuracy is None else f", accuracy {accuracy:.3f}, no better than chance"
    return f"the posterior has collapsed (KL {kl:.4f} nats{chance}): lower the weight of the KL"


def closing_summary(folder: Path, values: dict[str, Any], roles: Collection[str]) -> str:
    """The last lines of a run: what came out of networks in these roles, and where everything lies."""
    missing = [f"  no {role}: {text}" for role, text in NOT_MEASURED.items() if role not in roles]
    shown = [f"  {name:28} {value:.4f}" for name, value in values.items() if isinstance(value, float)]
    places = (
        ("pipeline", f"Pipeline.from_pretrained({str(folder)!r})"),
        ("figures", folder / "figures"),
        ("curves", f"tensorboard --logdir {folder / 'tensorboard'}"),
        ("numbers", folder / "summary.json"),
    )
    return "\n".join(["done.", *shown, *missing, *(f"  {name:9} {place}" for name, place in places)])
