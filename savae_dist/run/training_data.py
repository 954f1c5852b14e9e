"""The training set as a run reads it: in training order, and in parts for measurements."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from itertools import islice

from torch import Tensor

from savae_dist.data import Proportions, RawBatch, Reader, Request, loader, training_order
from savae_dist.data.index.labels import UNLABELLED
from savae_dist.errors import UserError
from savae_dist.training.batches import BatchBuilder, PlannedStep, read_requests

SURVEYED = 65_536  # class means, posteriors and batch-norm statistics are taken over at most so many training samples
LANES, WINDOW = 8, 4  # the order in which `labelled_samples` reads


class TrainingData:
    """The reader of the training set and the builder of its batches.

    workers, pin: of the loader for training; parts for measurements are read in this process.
    """

    def __init__(self, reader: Reader, builder: BatchBuilder, workers: int = 0, pin: bool = False) -> None:
        self.reader, self.builder, self.workers, self.pin = reader, builder, workers, pin
        self.shards = reader.shards
        self.labelled = sum(count for label, count in self.shards.label_counts.items() if label != UNLABELLED)

    def planned(self, plan: Iterable[PlannedStep]) -> Iterator[RawBatch]:
        """Read what the plan asks for, in its order; report replaced samples, and why, on stderr."""
        requests = read_requests(plan, self.builder.split.size)
        for raw in loader(self.reader, requests, self.workers, self.pin):
            for reason, shard, key in raw.bad:
                print(f"savae_dist: {shard}: {key}: {reason}; another sample took its place", file=sys.stderr)
            yield raw

    def survey(self, rank: int = 0, ranks: int = 1) -> Iterator[tuple[int, RawBatch]]:
        """(position, whole global batch) of the first part of the training order, each batch on one rank."""
        size = self.builder.split.size
        numbers = range(rank, math.ceil(min(self.shards.size, SURVEYED) / size), ranks)
        requests = (Request(number * size, size, range(size)) for number in numbers)
        for number, raw in zip(numbers, loader(self.reader, requests, 0, False)):
            yield number * size, raw

    def first(self, count: int) -> Iterator[Tensor]:
        """Normalised x of the first `count` samples of the training order, in whole batches; equal on all ranks."""
        for _, raw in islice(self.survey(), math.ceil(count / self.builder.split.size)):
            yield self.builder.batch(raw).x

    def labelled_samples(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(normalised x, y) of the labelled samples, each once, whatever their share of the training order.

        They are read in an order of their own, since they may be a few among very many.
        """
        if not self.labelled:
            return
        order = training_order(self.shards, Proportions(labelled=1.0), seed=0, lanes=LANES, window=WINDOW, batch_size=1)
        reader, size, last = self.reader.with_order(order), self.builder.split.size, min(self.labelled, SURVEYED)
        requests = (Request(start, n := min(size, last - start), range(n)) for start in range(0, last, size))
        for raw in loader(reader, requests, 0, False):
            batch = self.builder.batch(raw)
            yield batch.x, batch.y

    def advice(self) -> str:
        """What to do where not even the first step had a finite gradient: then the samples are too large."""
        try:
            seen = f", on values up to {max(x.abs().max().item() for x in self.first(self.builder.split.size)):.2g}"
        except UserError:  # the data cannot be read now; the user must hear of the divergence all the same
            seen = ""
        signals = self.shards.spec.kind == "signal" and self.shards.spec.normalise == "none"
        instead = "data.normalise=dataset" if signals else "the weights that it starts from and networks.*"
        return f"not even the first had one{seen}: {'set' if signals else 'see to'} {instead}"
