"""The results of a run: metrics, figures and, at its end, the pipeline."""

from __future__ import annotations

import gc
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from savae_dist.config.hub import datasets_of
from savae_dist.config.identity import as_dict
from savae_dist.config.schema import RunConfig
from savae_dist.distributed.launch import describe
from savae_dist.networks import Network
from savae_dist.pages.run import write_run
from savae_dist.pipeline import Pipeline
from savae_dist.pipeline.card.card_data import CardFacts
from savae_dist.pipeline.exports.export import pictures_of, told_of_posteriors, write_folders
from savae_dist.pipeline.folder import config_text
from savae_dist.run.checkpoints.best import KeepBest
from savae_dist.run.export import add_samplers, export, make_pipeline, name_the_clusters
from savae_dist.run.hub import HubPush
from savae_dist.run.process import Process
from savae_dist.run.reporting.tracker import Tracker
from savae_dist.run.reporting.watch import Watch
from savae_dist.run.training_data import TrainingData
from savae_dist.run.training_state import TrainingState
from savae_dist.run.validation import (
    TrainingFigures,
    Validation,
    closing_summary,
    in_one_line,
)
from savae_dist.systems.papers import citation_of
from savae_dist.systems.phases import Phase
from savae_dist.training.batch_norm import broadcast_buffers


@dataclass(frozen=True)
class Results:
    """Measures and draws networks, and writes them out.

    given: the networks that started from `networks.initial`. validation: None without a validation set; then nothing is
    measured.
    """

    config: RunConfig
    process: Process
    folder: Path
    phases: tuple[Phase, ...]
    given: frozenset[str]
    data: TrainingData
    validation: Validation | None
    tracker: Tracker
    watch: Watch
    hub: HubPush
    keep_best: KeepBest

    @cached_property
    def drawn(self) -> Validation | TrainingFigures:
        """The samples of which the figures are."""
        return self.validation or TrainingFigures(self.data)

    def validate(self, phase: Phase, networks: Mapping[str, Network], at: TrainingState) -> bool:
        """Measure on the validation set over all ranks, if there is one, log the result and draw the figures.

        Returns whether it is the best validation so far (`keep_best`).
        """
        pipeline = self._pipeline(phase, networks)
        broadcast_buffers(pipeline.networks)  # the buffers of weight averages are not broadcast anywhere else
        metrics = self._metrics(pipeline)
        better = self.keep_best.judged(metrics, at)
        where = f"{phase.name} step {at.step}"
        if metrics:
            self._record(metrics, at.total)
            self.tracker.say(f"{where}, validation: {in_one_line(metrics)}{'; the best so far' * better}")
        self.tracker.warn(self.watch.validated(phase, at.step, metrics), at.total)
        self.process.stop.together(lambda: self._draw(pipeline, at.total))
        self.hub.checkpoint()
        return better

    def finish(self, networks: Mapping[str, Network], at: TrainingState, saves: Mapping[str, Any]) -> None:
        """Measure, export the pipeline with what it draws codes from, and say where everything lies.

        saves: what the checkpoints cost, for summary.json.
        """
        pipeline = self._pipeline(self.phases[-1], networks)
        metrics = self._metrics(pipeline)
        self.keep_best.judged(metrics, at)
        self.process.stop.end()
        if not self.process.state.is_main_process:
            return
        side = self.process.status.side
        self.tracker.warn(self.watch.finished(self.phases[-1], at.step, metrics), at.total)
        if self.validation is not None and self.validation.shared:
            side.tell("groups on both sides", self.validation.shared)
        summary = {**metrics, **self._told(at)}
        summary |= {"checkpoints": saves} if saves else {}
        again = (self.folder / "summary.json").is_file()  # an earlier launch finished it, and logged the figures
        # An earlier "done" must not stand in status.json while the pipeline is being replaced.
        self.process.status.begin(again=True)
        summary |= add_samplers(pipeline, self.data)
        export(self.folder, pipeline, summary, side)
        self._draw(pipeline, at.total, log=not again, worst=True)
        if metrics and not again:
            self._record(metrics, at.total)
            self.tracker.hparams(as_dict(self.config), validated(metrics), at.total)
        with side.spared("report.html"):
            write_run(self.folder, outcome="done")
        measured = self.validation is not None
        self.tracker.say(closing_summary(self.folder, metrics, pipeline.networks, measured, summary["warnings"]))
        citation, pictures = citation_of(self.config.system), pictures_of(self.folder)
        about = CardFacts(summary, self.config.hub.license, citation=citation, pictures=pictures)
        if pushed := self.hub.finish(lambda folder: write_folders(pipeline, folder, about)):
            self.tracker.say(f"  hub       {pushed}")
            command = f"tools/export_hub.py {self.folder} OUT --without-posteriors --push-to {self.config.hub.push}"
            if line := told_of_posteriors(pipeline, command):
                self.tracker.say(f"  pushed    {line}")

    def _told(self, at: TrainingState) -> dict[str, Any]:
        """What summary.json says besides metrics: steps, speed, training data, hours and warnings."""
        steps = {phase.name: self.config.capped(phase.steps) for phase in self.phases} | {at.phase: at.step}
        data: dict[str, Any] = {"samples": self.data.shards.describe(), "index_sha256": self.data.shards.digest}
        if sets := datasets_of(self.config.data.train):
            data["datasets"] = sets
        if self.validation is not None and self.validation.shared:
            data["on_both_sides"] = self.validation.shared
        size, process = self.data.builder.split.size, self.process
        seconds = sum(steps[name] * size / rate for name, rate in at.rates.items() if rate)
        return {
            "samples_per_second": at.rates,
            "steps": steps,
            "seed": self.config.seed,
            "training_hours": seconds / 3600,
            "trained_on": describe(process.state, self.config.precision, process.strategy),
            "training_data": data,
            **({"gradient_shares": at.gradient_shares} if at.gradient_shares else {}),
            **({"best": at.best} if at.best else {}),
            "warnings": list(at.warnings.values()),
        }

    def _pipeline(self, phase: Phase, networks: Mapping[str, Network]) -> Pipeline:
        """The pipeline of the networks as they are in `phase`."""
        begun = [one for one in self.phases[: self.phases.index(phase) + 1] if self.config.capped(one.steps)]
        return make_pipeline(self.config.system, self.data.shards.spec, networks, begun, self.given)

    def checkpointed(self, phase: Phase, networks: Mapping[str, Network], averaged: Collection[str]) -> str:
        """The `pipeline.json` of a checkpoint in `phase`; "" while it has no trained network.

        averaged: the networks of which it holds an average, which is taken. Clusters have no classes yet: a classifier
        of them is left out.
        """
        pipeline = self._pipeline(phase, networks)
        ready = [name for name in pipeline.networks if not (name == "classifier" and pipeline.has_clusters)]
        places = {name: f"{'ema' if name in averaged else 'networks'}/{name}" for name in ready}
        return config_text(places, pipeline.spec, pipeline.system) if places else ""

    def _metrics(self, pipeline: Pipeline) -> dict[str, Any]:
        """The metrics over all ranks; empty without a validation set. Also names the clusters of `pipeline`."""
        together, validation = self.process.stop.together, self.validation
        together(lambda: name_the_clusters(pipeline, self.data))
        if validation is None:
            return {}
        return validation.summarise(together(lambda: validation.measure(pipeline)))

    def _record(self, metrics: Mapping[str, Any], step: int) -> None:
        """Add a validation to the curves."""
        self.tracker.scalars(validated(metrics), step)

    def _draw(self, pipeline: Pipeline, step: int, log: bool = True, worst: bool = False) -> None:
        if self.process.state.is_main_process:
            # Collect the last figures now: their reference cycles hold up to 80 MB until Python's next collection.
            gc.collect()
            with self.process.status.side.spared("figures"):
                where = f"{self.folder.name}, step {step:,}"
                figures = self.drawn.draw(pipeline, self.folder / "figures", where, worst)
                for name, figure in figures.items() if log else ():
                    self.tracker.figure(name, figure, step)


def validated(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that were measured, as curves name them."""
    return {f"validation/{name}": value for name, value in metrics.items() if value is not None}
