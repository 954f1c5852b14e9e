"""Measure and draw what a run has learnt so far, over all ranks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.data import Reader, Shards, attributes_of, on_both_sides, sequential
from savae_dist.distributed.reduce import rank_sums
from savae_dist.errors import of_key
from savae_dist.evaluation import metrics, report
from savae_dist.pipeline import Pipeline
from savae_dist.run.reporting.verdict import in_words
from savae_dist.run.training_data import TrainingData

NOT_MEASURED = {  # role -> what is missing without a network in that role
    "encoder": "samples are generated, not encoded or reconstructed; tools/evaluate.py --judge measures them",
    "classifier": "accuracy and class flips do not apply",
    "decoder": "nothing is reconstructed or generated: the phase that trains it has no steps",
}


UNMEASURED = "no validation set: reconstruction, accuracy and the like are not measured"
HOLD_OUT = "data.hold_out=0.1 holds a tenth of data.train out"


class Validation:
    """The validation set, the class means of the training set as the baseline, and perhaps a judge.

    shared: which groups it shares with the training set, in words, "" for none.
    """

    def __init__(self, shards: Shards, training: TrainingData, judge: str | None) -> None:
        self.reader = Reader(shards, sequential(shards), bad_budget=shards.size)
        self.shards, self.builder = shards, replace(training.builder, attributes=attributes_of(shards))
        self.shared = on_both_sides(training.shards, shards)
        labelled = training.labelled_samples()
        self.class_means = metrics.class_means(labelled, shards.spec) if training.labelled else None
        with of_key("judge", judge):
            self.judge = Pipeline.from_pretrained(judge).to(self.builder.device) if judge else None
        if self.judge is not None:
            metrics.check_judge(self.judge, shards.spec)

    def measure(self, pipeline: Pipeline) -> dict[str, float]:
        """Sums over this rank's share of the samples, of which all ranks together take each once."""
        return metrics.measure(pipeline, self._batches(), self.class_means, self.judge)

    def summarise(self, sums: dict[str, float]) -> dict[str, Any]:
        """The metrics, from the sums of all ranks; equal on all of them."""
        total = rank_sums(torch.tensor(list(sums.values()), dtype=torch.float64))
        return metrics.summarise(dict(zip(sums, total.tolist(), strict=True)))

    def draw(self, pipeline: Pipeline, folder: Path, where: str = "", worst: bool = False) -> dict[str, Figure]:
        """Write figures of the first samples into `folder`, and return them by name; OSError if that cannot be.

        where: the run and the step, for the titles. worst: also those of them that are reconstructed worst, for which
        all must be decoded.
        """
        folder.mkdir(exist_ok=True)  # not its parents: a run's folder that is gone is not made anew without its rest
        batch = self.builder.batch(report.first(self.reader))
        return report.write_figures(pipeline, batch.x, batch.y, folder, where, worst=worst)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        split = self.builder.split
        for raw in report.raw_batches(self.reader, split.rank, split.ranks):
            batch = self.builder.batch(raw)
            yield batch.x, batch.y


class TrainingFigures:
    """What is drawn of a run without a validation set: training samples, and the figures say so."""

    def __init__(self, training: TrainingData) -> None:
        self.shards, self.builder = training.shards, training.builder

    @cached_property
    def reader(self) -> Reader:
        """The stored order, since the training order would take its first samples from many shards."""
        return Reader(self.shards, sequential(self.shards), bad_budget=self.shards.size)

    def draw(self, pipeline: Pipeline, folder: Path, where: str = "", worst: bool = False) -> dict[str, Figure]:
        """As `Validation.draw`."""
        folder.mkdir(exist_ok=True)
        batch = self.builder.batch(report.first(self.reader))
        return report.write_figures(pipeline, batch.x, batch.y, folder, where, of="training data", worst=worst)


def in_one_line(values: dict[str, Any]) -> str:
    """`accuracy 0.9871, kl 2.31`: what was measured, to four digits."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, float))


def closing_summary(
    folder: Path,
    values: dict[str, Any],
    roles: Collection[str],
    measured: bool = True,
    warnings: Sequence[str] = (),
) -> str:
    """The last lines of a run: what was measured, in words too, what these roles leave out, warnings, and places.

    measured: whether there was a validation set. Only what is there is named.
    """
    missing = [f"  no {role}: {text}" for role, text in NOT_MEASURED.items() if role not in roles]
    if not measured:
        missing.append(f"  {UNMEASURED}; {HOLD_OUT}")
    shown = [f"  {name:28} {value:.4f}" for name, value in values.items() if isinstance(value, float)]
    verdict = [f"  {sentence}" for sentence in in_words(values)]
    places = (
        ("pipeline", "pipeline", f"Pipeline.from_pretrained({str(folder)!r})"),
        ("figures", "figures", f"{folder / 'figures'}"),
        ("report", "report.html", f"{folder / 'report.html'}"),
        ("curves", "tensorboard", f"tensorboard --logdir {folder / 'tensorboard'}"),
        ("numbers", "summary.json", f"{folder / 'summary.json'}"),
    )
    there = [f"  {name:9} {text}" for name, where, text in places if (folder / where).exists()]
    warned = [f"  warning   {warning}" for warning in warnings]
    return "\n".join(["done.", *shown, *verdict, *missing, *warned, *there])
