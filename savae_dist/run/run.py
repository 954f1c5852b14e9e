"""One run: it trains the phases of its system, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import tee
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import PartialState

from savae_dist.config.schema import RunConfig
from savae_dist.distributed.ranks import Peers
from savae_dist.distributed.reduce import rank_means, rank_sums
from savae_dist.distributed.signals import Stop
from savae_dist.errors import DivergedError, Preempted, SaveError
from savae_dist.networks import Network
from savae_dist.pipeline import Pipeline
from savae_dist.run import checkpoint
from savae_dist.run.checkpoint import TrainingState
from savae_dist.run.export import export, make_pipeline, name_the_clusters
from savae_dist.run.status_file import Status
from savae_dist.run.tracker import Clock, Tracker
from savae_dist.run.training_data import TrainingData
from savae_dist.run.validation import (
    TrainingFigures,
    Validation,
    closing_summary,
    collapse,
    in_one_line,
    worse_than_class_means,
)
from savae_dist.systems.phases import Phase, Preparation
from savae_dist.training.batch_norm import broadcast_buffers, recalibrate
from savae_dist.training.batches import training_plan
from savae_dist.training.engine import PreparedUpdate, run_phase

MEASURED = 2048  # training samples that a phase may measure before its first step

Updates = Mapping[str, PreparedUpdate]


@dataclass(frozen=True)
class Process:
    """This process of the launch: its rank and device, its peers, its stop signal and its status file.

    zero: DeepSpeed's ZeRO stage, 0 for whole replicas.
    """

    state: PartialState
    peers: Peers
    stop: Stop
    status: Status
    zero: int


@dataclass(frozen=True)
class Retry:
    """number: how often the run has diverged by now. lr_scale: the factor of its learning rates from now on."""

    number: int
    lr_scale: float


@dataclass
class Run:
    """A run at the start, or where its newest checkpoint left it; `setup.open_run` puts it together.

    training: where it stands. resumed_from: the checkpoint that it goes on from. given: the networks that started from
    `networks.initial`.
    """

    config: RunConfig
    process: Process
    folder: Path
    phases: tuple[Phase, ...]
    networks: dict[str, Network]
    given: frozenset[str]
    data: TrainingData
    validation: Validation | None
    training: TrainingState
    resumed_from: Path | None
    tracker: Tracker

    @cached_property
    def drawn(self) -> Validation | TrainingFigures:
        """The samples of which the figures are."""
        return self.validation or TrainingFigures(self.data)

    def steps(self, phase: Phase) -> int:
        return self.config.capped(phase.steps)

    def remaining_phases(self) -> Iterator[Phase]:
        """Yield each unfinished phase; for one that has not begun, first set `self.training` to its start."""
        names, size = [phase.name for phase in self.phases], self.data.builder.split.size
        for phase in self.phases[names.index(self.training.phase) :]:
            if self.training.phase != phase.name:
                before = self.phases[names.index(self.training.phase)]
                origin = self.training.origin + self.training.step * before.batches_per_iteration * size
                self.training = replace(self.training, phase=phase.name, step=0, origin=origin, phase_end=False)
            if not self.training.phase_end:
                yield phase

    def retry(self) -> Retry | None:
        """How to go on after a divergence; None if it was the last that is allowed."""
        training, allowed = self.training, self.config.divergence
        if training.retries >= allowed.retries:
            return None
        return Retry(training.retries + 1, training.lr_scale * allowed.lr_factor)

    def train(self, phase: Phase) -> None:
        """Train a phase to its end, from where `self.training` stands."""
        training, config, last = self.training, self.config, self.steps(phase)
        if phase.prepare is not None and not training.step:
            self._measure(phase.prepare)
        updates = self._prepare(phase)

        builder = self.data.builder
        plan = training_plan(phase, builder.split, first=training.step, last=last, origin=training.origin)
        ahead, plan = tee(plan)  # the loader reads ahead of the engine
        clock = Clock()
        self.process.stop.begin()
        for step in run_phase(plan, self.data.planned(ahead), updates, builder):
            clock.tick()
            training.total, training.step = training.total + 1, step
            self.tracker.advance(phase.name)
            self.process.status.beat(phase.name, step)
            if step % config.log_every == 0 or step == last:
                self._log(phase, updates, clock)
            if config.debug.check_ranks and step % config.debug.check_ranks == 0:
                self.process.peers.check_equal(self.networks, f"{phase.name} step {step}")
            asked_to_stop = self.process.stop.agreed()
            if asked_to_stop or (step % config.checkpoint_every == 0 and step != last):
                self.save(updates)
            if asked_to_stop:
                raise Preempted(f"stopped by signal {asked_to_stop} at {phase.name} step {step}; run it again to go on")
            if step % config.validate_every == 0 and step != last:
                self.validate(phase, updates)
            clock.skip()
        self.process.stop.settle()
        self._end(phase, updates, clock)

    def save(self, updates: Updates) -> None:
        """Write a checkpoint, on rank 0; SaveError on every rank if it fails."""
        message, write = "", self.process.state.is_main_process
        parameters = (p for network in self.networks.values() for p in network.parameters())
        finite = all(bool(torch.isfinite(parameter).all()) for parameter in parameters)
        self.training.good = finite and not any(int(update.skipped_in_a_row) for update in updates.values())
        try:
            checkpoint.save(
                self.folder / "checkpoints",
                self.networks,
                updates,
                self.training,
                self.config.keep_checkpoints,
                write,
                self.process.status.side,
            )
        except SaveError as error:
            message = str(error)
        if rank_sums(torch.tensor(float(bool(message)))).item():
            raise SaveError(message or "rank 0 could not save; see status.json")

    def validate(self, phase: Phase, updates: Updates) -> None:
        """Measure on the validation set, if there is one, over all ranks and log the result; draw the pictures."""
        pipeline = self._pipeline(phase, updates)
        broadcast_buffers(pipeline.networks)  # the buffers of weight averages are not broadcast anywhere else
        name_the_clusters(pipeline, self.data)
        if self.validation is not None:
            self._tell(phase, pipeline, self.validation.measure(pipeline))
        self._draw(pipeline)

    def _tell(self, phase: Phase, pipeline: Pipeline, metrics: dict[str, Any]) -> None:
        """Log the figures of merit, and warn of a collapse."""
        where = f"{phase.name} step {self.training.step}"
        numbers = {f"validation/{name}": value for name, value in metrics.items() if value is not None}
        self.tracker.scalars(numbers, self.training.total)
        self.tracker.say(f"{where}, validation: {in_one_line(metrics)}")
        if warning := collapse(metrics, pipeline.spec):
            self.tracker.say(f"{where}: {warning}")

    def finish(self) -> None:
        """Measure, export the pipeline with the training posteriors, and say where everything lies."""
        pipeline = self._pipeline(self.phases[-1], {})
        name_the_clusters(pipeline, self.data)
        metrics = self.validation.measure(pipeline) if self.validation is not None else {}
        if not self.process.state.is_main_process:
            return
        for warning in filter(None, (collapse(metrics, pipeline.spec), worse_than_class_means(metrics))):
            self.process.status.side.tell(warning, warning)
        steps = {phase.name: self.steps(phase) for phase in self.phases}
        summary = {"samples_per_second": self.training.rates, "steps": steps, "seed": self.config.seed}
        again = (self.folder / "summary.json").is_file()  # finished by an earlier launch, which logged the figures
        self.process.status.begin(again=True)  # what it said of an earlier pipeline holds no more
        export(self.folder, pipeline, self.data, {**metrics, **summary}, self.process.status.side)
        self._draw(pipeline, log=not again)
        self.tracker.say(closing_summary(self.folder, metrics, pipeline.networks, self.validation is not None))

    def _measure(self, prepare: Preparation) -> None:
        """Let a phase measure the training data before its first step; all ranks take rank 0's result."""
        for network in self.networks.values():
            network.eval()
        with torch.no_grad():
            prepare(SimpleNamespace(**self.networks), self.data.first(MEASURED))
        broadcast_buffers(self.networks)

    def _prepare(self, phase: Phase) -> dict[str, PreparedUpdate]:
        """The updates with their optimisers, loaded from the checkpoint if the phase had begun."""
        config = self.config
        updates = {
            update.name: PreparedUpdate(
                update,
                phase,
                self.networks,
                replace(optimizer := config.optimizers[update.name], lr=optimizer.lr * self.training.lr_scale),
                precision=config.precision,
                compile=config.compile,
                ema=config.ema,
                zero=self.process.zero,
                ddp=config.ddp,
            )
            for update in phase.updates
            if update.active
        }
        if self.training.step:
            assert self.resumed_from is not None
            checkpoint.load_updates(self.resumed_from, updates)
            self.process.state.wait_for_everyone()  # until all have read it: rank 0 may soon replace it
        return updates

    def _log(self, phase: Phase, updates: Updates, clock: Clock) -> None:
        """Losses and rates to TensorBoard and the progress; DivergedError after too many skipped steps in a row."""
        losses = rank_means({f"{name}/{term}": s for name, u in updates.items() for term, s in u.meter.drain().items()})
        for name, update in updates.items():
            skipped = int(update.skipped_in_a_row)
            if skipped >= self.config.nonfinite_limit:
                never = skipped >= self.training.step * update.steps_per_iteration
                advice = (
                    self._advice_on_data()
                    if never
                    else f"lower optimizers.{name}.lr or set optimizers.{name}.clip_norm, or divergence.retries"
                )
                raise DivergedError(
                    f"{phase.name} step {self.training.step}: {skipped} steps of {name} in a row "
                    f"had no finite gradient; {advice}"
                )
        rate = clock.rate(self.data.builder.split.size)
        values = {f"{name}/lr": update.lr for name, update in updates.items()}
        values |= {f"{name}/skipped": int(update.skipped) for name, update in updates.items()}
        values[f"{phase.name}/samples_per_second"] = rate
        self.tracker.scalars({**losses, **values}, self.training.total)
        shown = {name: value for name, value in losses.items() if not name.endswith("gradient_norm")}
        self.tracker.progress(f"{phase.name} step {self.training.step}/{self.steps(phase)}", shown, rate)

    def _advice_on_data(self) -> str:
        """What to do where not even the first step had a finite gradient: then the samples are too large."""
        size, data = self.data.builder.split.size, self.config.data
        largest = max(x.abs().max().item() for x in self.data.first(size))
        signals = self.data.shards.spec.kind == "signal" and data.normalise == "none"
        instead = "data.normalise=dataset" if signals else "the weights that it starts from and networks.*"
        return f"not even the first had one, on values up to {largest:.2g}: {'set' if signals else 'see to'} {instead}"

    def _end(self, phase: Phase, updates: Updates, clock: Clock) -> None:
        """End a phase: take the averaged weights, make buffers equal on all ranks, save a checkpoint and validate."""
        for update in updates.values():
            for name, average in update.averages.items():
                self.networks[name].load_state_dict(average.network.state_dict())
            update.averages.clear()
        broadcast_buffers(self.networks)
        builder = self.data.builder
        if phase.recalibrate is not None:
            whole_batches = self.data.survey(builder.split.rank, builder.split.ranks)
            recalibrate(phase.recalibrate, self.networks, whole_batches, builder)
        if clock.iterations:  # none if the run was resumed after the last step
            self.training.rates[phase.name] = clock.rate(builder.split.size)
        self.training.phase_end = True
        self.save(updates)
        for update in updates.values():
            update.close()
        if phase is not self.phases[-1]:  # the last one is measured when the run finishes
            self.validate(phase, updates)

    def _pipeline(self, phase: Phase, updates: Updates) -> Pipeline:
        """The pipeline of the networks as they are now, in `phase`; the weight average where one is kept."""
        averaged = {name: a.network for update in updates.values() for name, a in update.averages.items()}
        begun = [one for one in self.phases[: self.phases.index(phase) + 1] if self.steps(one)]
        networks = {**self.networks, **averaged}
        return make_pipeline(self.config.system, self.data.shards.spec, networks, begun, self.given)

    def _draw(self, pipeline: Pipeline, log: bool = True) -> None:
        if self.process.state.is_main_process:
            with self.process.status.side.spared("figures"):
                figures = self.drawn.draw(pipeline, self.folder / "figures")
                for name, figure in figures.items() if log else ():
                    self.tracker.figure(name, figure, self.training.total)
