"""One run: it trains the phases of its system, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import tee
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import PartialState

from savae_dist.config.schema import RunConfig
from savae_dist.distributed.ranks import Peers
from savae_dist.distributed.reduce import rank_means, rank_sums
from savae_dist.distributed.signals import Halt, Stop
from savae_dist.errors import DivergedError, SaveError
from savae_dist.networks import Network
from savae_dist.pipeline import Pipeline
from savae_dist.run import checkpoint
from savae_dist.run.checkpoint import TrainingState
from savae_dist.run.export import export, make_pipeline, name_the_clusters
from savae_dist.run.status_file import Status
from savae_dist.run.tracker import Clock, Tracker
from savae_dist.run.training_data import TrainingData
from savae_dist.run.validation import Validation, closing_summary, collapse, in_one_line
from savae_dist.systems.phases import Phase, Preparation
from savae_dist.training.batch_norm import broadcast_buffers, recalibrate
from savae_dist.training.batches import training_plan
from savae_dist.training.engine import PreparedUpdate, run_phase

MEASURED = 2048  # training samples that a phase may measure before its first step
# Seconds before each further try to save: an error of a disk or of a network file system may pass.
SAVE_AGAIN = (0.5, 2.0, 5.0)

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


@dataclass
class Run:
    """A run at the start, or where its newest checkpoint left it; `setup.open_run` puts it together.

    training: where it stands. resumed_from: the checkpoint that it goes on from. given: the networks that started from
    `networks.initial`. updates: of the phase that it is in. saved: `training.total` of its newest checkpoint.
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
    updates: Updates = field(default_factory=dict, init=False)
    saved: int = field(init=False)

    def __post_init__(self) -> None:
        self.saved = self.training.total

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

    def go(self) -> None:
        """Train what is left and write the results; if all ranks must stop before that, save what is not saved yet."""
        self.process.stop.begin()
        try:
            for phase in self.remaining_phases():
                self.train(phase)
            self.finish()
        except Halt as halt:
            if self.training.total != self.saved:
                self.save(self.updates)
            raise halt.told(f"{self.training.phase} step {self.training.step}") from halt

    def train(self, phase: Phase) -> None:
        """Train a phase to its end, from where `self.training` stands."""
        training, config, last = self.training, self.config, self.steps(phase)
        if phase.prepare is not None and not training.step:
            self._measure(phase.prepare)
        self.updates = updates = self._prepare(phase)

        builder = self.data.builder
        plan = training_plan(phase, builder.split, first=training.step, last=last, origin=training.origin)
        ahead, plan = tee(plan)  # the loader reads ahead of the engine
        clock = Clock()
        for step in run_phase(plan, self.data.planned(ahead), updates, builder, self.process.stop.together):
            clock.tick()
            training.total, training.step = training.total + 1, step
            self.tracker.advance(phase.name)
            self.process.status.beat(phase.name, step)
            if step % config.log_every == 0 or step == last:
                self._log(phase, updates, clock)
            if config.debug.check_ranks and step % config.debug.check_ranks == 0:
                self.process.peers.check_equal(self.networks, f"{phase.name} step {step}")
            if step % config.checkpoint_every == 0 and step != last:
                self.save(updates)
            if step % config.validate_every == 0 and step != last:
                self.validate(phase, updates)
            clock.skip()
        self._end(phase, updates, clock)

    def save(self, updates: Updates) -> None:
        """Write a checkpoint, on rank 0; SaveError on every rank if it fails each time that it is tried."""
        with self.process.stop.patient():
            for pause in (*SAVE_AGAIN, None):
                message = self._try_to_save(updates)
                if not rank_sums(torch.tensor(float(bool(message)))).item():
                    self.saved = self.training.total
                    return
                if pause is None:
                    raise SaveError(message or "rank 0 could not save; see status.json")
                self.tracker.say(f"savae_dist: {message}; trying again")
                time.sleep(pause)

    def _try_to_save(self, updates: Updates) -> str:
        """Why rank 0 could not write a checkpoint; empty if it could, and on the other ranks."""
        folder, write = self.folder / "checkpoints", self.process.state.is_main_process
        try:
            checkpoint.save(folder, self.networks, updates, self.training, self.config.keep_checkpoints, write)
        except SaveError as error:
            return str(error)
        return ""

    def validate(self, phase: Phase, updates: Updates) -> None:
        """Measure on the validation set, over all ranks; log the figures of merit and draw the pictures."""
        if self.validation is None:
            return
        where, pipeline = f"{phase.name} step {self.training.step}", self._pipeline(phase, updates)
        broadcast_buffers(pipeline.networks)  # the buffers of weight averages are not broadcast anywhere else
        metrics = self._metrics(pipeline)
        numbers = {f"validation/{name}": value for name, value in metrics.items() if value is not None}
        self.tracker.scalars(numbers, self.training.total)
        self.tracker.say(f"{where}, validation: {in_one_line(metrics)}")
        if warning := collapse(metrics, pipeline.spec):
            self.tracker.say(f"{where}: {warning}")
        self.process.stop.together(lambda: self._draw(pipeline))

    def finish(self) -> None:
        """Measure, export the pipeline with the training posteriors, and say where everything lies."""
        pipeline = self._pipeline(self.phases[-1], {})
        metrics = self._metrics(pipeline)
        self.process.stop.end()
        if not self.process.state.is_main_process:
            return
        if warning := collapse(metrics, pipeline.spec):
            self.tracker.say(warning)
        steps = {phase.name: self.steps(phase) for phase in self.phases}
        summary = {"samples_per_second": self.training.rates, "steps": steps, "seed": self.config.seed}
        again = (self.folder / "summary.json").is_file()  # finished by an earlier launch, which logged the figures
        export(self.folder, pipeline, self.data, {**metrics, **summary})
        self._draw(pipeline, log=not again)
        self.tracker.say(closing_summary(self.folder, metrics, pipeline.networks))

    def _measure(self, prepare: Preparation) -> None:
        """Let a phase measure the training data before its first step; all ranks take rank 0's result."""
        for network in self.networks.values():
            network.eval()
        with torch.no_grad():
            nets = SimpleNamespace(**self.networks)
            self.process.stop.together(lambda: prepare(nets, self.data.first(MEASURED)))
        broadcast_buffers(self.networks)

    def _prepare(self, phase: Phase) -> dict[str, PreparedUpdate]:
        """The updates with their optimisers, loaded from the checkpoint if the phase had begun."""
        config = self.config
        updates = {
            update.name: PreparedUpdate(
                update,
                phase,
                self.networks,
                config.optimizers[update.name],
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
                raise DivergedError(
                    f"{phase.name} step {self.training.step}: {skipped} steps of {name} in a row "
                    f"had no finite gradient; lower optimizers.{name}.lr or set optimizers.{name}.clip_norm"
                )
        rate = clock.rate(self.data.builder.split.size)
        values = {f"{name}/lr": update.lr for name, update in updates.items()}
        values |= {f"{name}/skipped": int(update.skipped) for name, update in updates.items()}
        values[f"{phase.name}/samples_per_second"] = rate
        self.tracker.scalars({**losses, **values}, self.training.total)
        shown = {name: value for name, value in losses.items() if not name.endswith("gradient_norm")}
        self.tracker.progress(f"{phase.name} step {self.training.step}/{self.steps(phase)}", shown, rate)

    def _end(self, phase: Phase, updates: Updates, clock: Clock) -> None:
        """End a phase: take the averaged weights, make buffers equal on all ranks, save a checkpoint and validate."""
        if phase.recalibrate is not None and self.training.total != self.saved:
            self.save(updates)  # first: the data are read once more, and may be out of reach
        for update in updates.values():
            for name, average in update.averages.items():
                self.networks[name].load_state_dict(average.network.state_dict())
            update.averages.clear()
        broadcast_buffers(self.networks)
        builder = self.data.builder
        if phase.recalibrate is not None:
            whole_batches = self.data.survey(builder.split.rank, builder.split.ranks)
            recalibrate(phase.recalibrate, self.networks, whole_batches, builder, self.process.stop.together)
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

    def _metrics(self, pipeline: Pipeline) -> dict[str, Any]:
        """The figures of merit over all ranks; empty without a validation set. Clusters get names in `pipeline`."""
        together, validation = self.process.stop.together, self.validation
        together(lambda: name_the_clusters(pipeline, self.data))
        if validation is None:
            return {}
        return validation.summarise(together(lambda: validation.measure(pipeline)))

    def _draw(self, pipeline: Pipeline, log: bool = True) -> None:
        if self.process.state.is_main_process and self.validation is not None:
            figures = self.validation.draw(pipeline, self.folder / "figures")
            for name, figure in figures.items() if log else ():
                self.tracker.figure(name, figure, self.training.total)
