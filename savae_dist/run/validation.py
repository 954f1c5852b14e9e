"""Measure and draw what a run has learnt so far, over all ranks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.data import Order, Reader, Shards
from savae_dist.distributed.reduce import rank_sums
from savae_dist.evaluation import metrics, report
from savae_dist.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.run.training_data import TrainingData

NOT_MEASURED = {  # role -> what is missing without a network in that role
    "encoder": "samples are generated, not encoded or reconstructed; tools/evaluate.py --judge measures them",
    "classifier": "accuracy and class flips do not apply",
    "decoder": "nothing is reconstructed or generated: the phase that trains it has no steps",
}


class Validation:
    """The validation set, the class means of the training set as the baseline, and perhaps a judge."""

    def __init__(self, shards: Shards, training: TrainingData, judge: str | None) -> None:
        self.reader = Reader(shards, Order.sequential(shards.counts), bad_budget=shards.size)
        self.shards, self.builder = shards, training.builder
        labelled = training.labelled_samples()
        self.class_means = metrics.class_means(labelled, shards.spec) if training.labelled else None
        self.judge = Pipeline.from_pretrained(judge).to(self.builder.device) if judge else None
        if self.judge is not None:
            metrics.check_judge(self.judge, shards.spec)

    def measure(self, pipeline: Pipeline) -> dict[str, float]:
        """Sums over this rank's share of the samples, of which all ranks together take each once."""
        return metrics.measure(pipeline, self._batches(), self.class_means, self.judge)

    def summarise(self, sums: dict[str, float]) -> dict[str, Any]:
        """The figures of merit, from the sums of all ranks; equal on all of them."""
        total = rank_sums(torch.tensor(list(sums.values()), dtype=torch.float64))
        return metrics.summarise(dict(zip(sums, total.tolist(), strict=True)))

    def draw(self, pipeline: Pipeline, folder: Path) -> dict[str, Figure]:
        """Write figures of the first samples into `folder`, and return them by name."""
        batch = self.builder.batch(report.first(self.reader))
        return report.write_figures(pipeline, batch.x, batch.y, folder)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        split = self.builder.split
        for raw in report.raw_batches(self.reader, split.rank, split.ranks):
            batch = self.builder.batch(raw)
            yield batch.x, batch.y


def collapse(values: dict[str, Any], spec: DataSpec) -> str:
    """A warning if the posterior has collapsed, else empty.

    It has if its KL is near 0, as happens with Zemouri's KL weight of 1, and the accuracy is near chance.
    """
    kl, accuracy = values.get("kl"), values.get("accuracy")
    if kl is None or not kl < 0.05 or (accuracy is not None and accuracy >= 1.5 / spec.classes):
        return ""
    chance = "" if accuracy is None else f", accuracy {accuracy:.3f}, no better than chance"
    return f"the posterior has collapsed (KL {kl:.4f} nats{chance}): lower the weight of the KL"


def in_one_line(values: dict[str, Any]) -> str:
    """`accuracy 0.9871, kl 2.31`: what was measured, to four digits."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, float))


def closing_summary(folder: Path, values: dict[str, Any], roles: Collection[str]) -> str:
    """The last lines of a run: what was measured, what these roles leave out, and where the results lie."""
    missing = [f"  no {role}: {text}" for role, text in NOT_MEASURED.items() if role not in roles]
    shown = [f"  {name:28} {value:.4f}" for name, value in values.items() if isinstance(value, float)]
    places = (
        ("pipeline", f"Pipeline.from_pretrained({str(folder)!r})"),
        ("figures", folder / "figures"),
        ("curves", f"tensorboard --logdir {folder / 'tensorboard'}"),
        ("numbers", folder / "summary.json"),
    )
    return "\n".join(["done.", *shown, *missing, *(f"  {name:9} {place}" for name, place in places)])
