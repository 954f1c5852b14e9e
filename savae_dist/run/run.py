"""One run: it trains the phases of its system, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import tee
from pathlib import Path
from types import SimpleNamespace

import torch

from savae_dist.config.compile import Compile
from savae_dist.config.schema import RunConfig
from savae_dist.distributed.reduce import means_and_rows
from savae_dist.distributed.signals import Halt
from savae_dist.errors import DivergedError, SaveError
from savae_dist.networks import Network
from savae_dist.run import posterior_cache
from savae_dist.run.checkpoints import checkpoint
from savae_dist.run.checkpoints.saves import Saves
from savae_dist.run.process import Process
from savae_dist.run.profiling import profiled
from savae_dist.run.reporting.pace import Pace
from savae_dist.run.reporting.tracker import Clock, Tracker
from savae_dist.run.results import Results
from savae_dist.run.retry import Retry
from savae_dist.run.training_data import TrainingData
from savae_dist.run.training_state import TrainingState
from savae_dist.systems.phases import Phase, Preparation
from savae_dist.training.batch_norm import broadcast_buffers, recalibrate
from savae_dist.training.batches import training_plan
from savae_dist.training.engine import PreparedUpdate, run_phase
from savae_dist.training.gradient_shares import read_out
from savae_dist.training.own_time import Waiting
from savae_dist.training.posteriors import Posteriors
from savae_dist.training.sharded import join, whole

MEASURED = 2048  # training samples that a phase may measure before its first step

Updates = Mapping[str, PreparedUpdate]


@dataclass
class Run:
    """A run at the start, or where its newest checkpoint left it; `setup.open_run` puts it together.

    training: where it stands. resumed_from: the checkpoint that it goes on from. updates: of the phase that it is in.
    profile: how many iterations of each phase the profiler records (`profiling`).
    """

    config: RunConfig
    process: Process
    folder: Path
    phases: tuple[Phase, ...]
    networks: dict[str, Network]
    data: TrainingData
    training: TrainingState
    resumed_from: Path | None
    tracker: Tracker
    results: Results
    updates: Updates = field(default_factory=dict, init=False)
    saves: Saves = field(init=False)
    profile: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.saves = Saves(self.folder, self.config, self.process, self.tracker, self.training.total)

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

    def go(self) -> Retry | None:
        """Train what is left and write the results; if all ranks must stop before that, save what is not saved yet.

        After a divergence the way to go on, or DivergedError if no retry is left.
        """
        self.process.stop.begin()
        try:
            for phase in self.remaining_phases():
                self.train(phase)
            self.results.finish(self.networks, self.training, self.saves.report())
        except Halt as halt:
            if not isinstance(halt.error, SaveError):
                if self.training.total != self.saves.begun:
                    self.save(self.updates)
                self.saves.settle()
            raise halt.told(f"{self.training.phase} step {self.training.step}") from halt
        except DivergedError as error:
            self.saves.settle()  # the retry may go back to the checkpoint that is being written
            retry = Retry.after(error, self.training, self.config.divergence)
            self.tracker.say(retry.told(error, self.config.divergence))
            return retry
        return None

    def train(self, phase: Phase) -> None:
        """Train a phase to its end, from where `self.training` stands."""
        training, config = self.training, self.config
        keep_best = self.results.keep_best
        last = training.step if keep_best.tired(training) else self.steps(phase)
        if phase.prepare is not None and not training.step:
            self._measure(phase.prepare)
        self.updates = updates = self._prepare(phase)

        builder = replace(self.data.builder.during(phase.name), posteriors=self._posteriors(phase))
        split, starts = builder.split, {name: update.config.start for name, update in updates.items()}
        plan = training_plan(phase, split, first=training.step, last=last, origin=training.origin, starts=starts)
        ahead, plan = tee(plan)  # the loader reads ahead of the engine
        batches, clock = Waiting(self.data.planned(ahead)), Clock()
        pace = Pace(phase.name, self.process.peers.hosts, self.process.state.device, batches, updates.values())
        if keep_best.overdue(training, config.validate_every, last) and self.validate(phase, updates):
            self.save(updates)
        with profiled(self.profile, phase.name, self.folder, self.process, self.tracker.say) as after_iteration:
            for step in run_phase(plan, batches, updates, builder, self.saves.together):
                clock.tick()
                after_iteration()
                training.total, training.step = training.total + 1, step
                self.tracker.advance(phase.name)
                self.process.status.beat(phase.name, step)
                for update in updates.values():
                    self.tracker.warn(update.capture.told(), training.total)
                if step % config.log_every == 0 or step == last:
                    self._log(phase, updates, clock, pace)
                if config.debug.check_ranks and step % config.debug.check_ranks == 0:
                    with self.whole(updates):
                        self.process.peers.check_equal(self.networks, f"{phase.name} step {step}")
                if step != last:
                    self._keep(phase, updates)
                clock.skip()
                if keep_best.tired(training):
                    break
        self._end(phase, updates, clock)

    def _keep(self, phase: Phase, updates: Updates) -> None:
        """Save and validate where they are due, in this order.

        With `keep_best` the validation comes first: then the checkpoint holds its result, and no resumption repeats it.
        """
        step, config, best = self.training.step, self.config, bool(self.results.keep_best.metric)
        saves = step % config.checkpoint_every == 0 or (step % config.log_every == 0 and self.saves.due())
        better = False
        if saves and not best:
            self.save(updates)
        if step % config.validate_every == 0:
            better = self.validate(phase, updates)
        if better or (saves and best):
            self.save(updates)

    def save(self, updates: Updates) -> None:
        """Begin to write a checkpoint, on rank 0; SaveError on every rank if the one before could not be written."""
        state = replace(self.training, good=not any(int(update.skipped_in_a_row) for update in updates.values()))
        phase = next(phase for phase in self.phases if phase.name == state.phase)
        pipeline = self.results.checkpointed(phase, self.networks, _averaged(updates))
        with self.whole(updates):
            self.saves.begin(self.networks, updates, state, pipeline)

    def validate(self, phase: Phase, updates: Updates) -> bool:
        """Measure and draw the networks as they are now, or their weight average; whether they are the best so far."""
        if self.config.hub.push is not None:
            self.saves.settle()  # the push takes the newest checkpoint, so it must be whole
        with self.whole(updates):
            return self.results.validate(phase, {**self.networks, **_averaged(updates)}, self.training)

    def whole(self, updates: Updates) -> AbstractContextManager[None]:
        """Inside, networks and averages are whole on every rank, as they always are but under FSDP."""
        return whole([*self.networks.values(), *_averaged(updates).values()])

    def _measure(self, prepare: Preparation) -> None:
        """Let a phase measure the training data before its first step; all ranks take rank 0's result."""
        for network in self.networks.values():
            network.eval()
        with torch.no_grad():
            nets = SimpleNamespace(**self.networks)
            self.process.stop.together(lambda: prepare(nets, self.data.first(MEASURED)))
        broadcast_buffers(self.networks)

    def _posteriors(self, phase: Phase) -> Posteriors | None:
        """Those of the phase's frozen encoder, if they are kept."""
        if phase.posteriors is None:
            return None
        next(iter(self.updates.values())).enter()  # the encoder is frozen as in training
        left = self.steps(phase) - self.training.step
        return posterior_cache.kept(phase, self.config, self.data, self.networks, left, self.process.stop.together)

    def _prepare(self, phase: Phase) -> dict[str, PreparedUpdate]:
        """The updates with their optimisers, loaded from the checkpoint if the phase had begun."""
        updates = self.updates_of(phase, self.config.compile)
        if self.training.step:
            assert self.resumed_from is not None
            with self.whole(updates):
                checkpoint.load_updates(self.resumed_from, updates)
            self.process.state.wait_for_everyone()  # until all have read it: rank 0 may soon replace it
        return updates

    def updates_of(self, phase: Phase, compile: Compile) -> dict[str, PreparedUpdate]:
        """The updates with their optimisers, before their first step."""
        config = self.config
        return {
            update.name: PreparedUpdate(
                update,
                phase,
                self.networks,
                replace(optimizer := config.optimizers[update.name], lr=optimizer.lr * self.training.lr_scale),
                precision=config.precision,
                compile=compile,
                ema=config.ema,
                strategy=self.process.strategy,
                ddp=config.ddp,
                schedules=config.schedules,
                adaptive=config.adaptive,
                shares_every=config.log_every,
            )
            for update in phase.updates
            if update.active
        }

    def _log(self, phase: Phase, updates: Updates, clock: Clock, pace: Pace) -> None:
        """Losses and rates to TensorBoard and the progress; DivergedError after too many skipped steps in a row."""
        sums = {f"{name}/{term}": s for name, u in updates.items() for term, s in u.meter.drain().items()}
        losses, rows = means_and_rows(sums, pace.measured())
        for name, update in updates.items():
            skipped = int(update.skipped_in_a_row)
            if skipped >= self.config.nonfinite_limit:
                never = skipped >= (self.training.step - update.config.start) * update.steps_per_iteration
                advice = (
                    self.data.advice()
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
        shares = read_out(update.shares for update in updates.values())
        self.training.gradient_shares |= shares
        values |= {f"gradient_share/{term}": share for term, share in shares.items()}
        pictures = read_out(update.pictures for update in updates.values())
        values |= {f"generated/{name}": value for name, value in pictures.items()}
        values |= pace.logged(rows, self.training.step, clock.iterations, clock.seconds)
        self.process.status.values["ranks"] = pace.status
        self.tracker.scalars({**losses, **values}, self.training.total)
        warnings = pace.warnings | self.results.watch.logged(phase, self.training.step, losses, shares, pictures)
        self.tracker.warn(warnings, self.training.total)
        shown = {name: value for name, value in losses.items() if not name.endswith("gradient_norm")}
        self.tracker.progress(f"{phase.name} step {self.training.step}/{self.steps(phase)}", shown, rate, pace.note)

    def _end(self, phase: Phase, updates: Updates, clock: Clock) -> None:
        """End a phase: take the averaged weights, make buffers equal on all ranks, save a checkpoint and validate."""
        recalibration = phase.recalibrate if self.steps(phase) else None  # without steps all is as it was given
        if recalibration is not None and self.training.total != self.saves.begun:
            self.save(updates)  # first: the data are read once more, and may be out of reach
        for update in updates.values():
            for name, average in update.averages.items():
                self.networks[name].load_state_dict(average.network.state_dict())
            update.averages.clear()
        for network in self.networks.values():
            join(network)
        broadcast_buffers(self.networks)
        builder = self.data.builder
        if recalibration is not None:
            whole_batches = self.data.survey(builder.split.rank, builder.split.ranks)
            recalibrate(recalibration, self.networks, whole_batches, builder, self.process.stop.together)
        if clock.iterations:  # none if the run was resumed after the last step
            self.training.rates[phase.name] = clock.rate(builder.split.size)
        self.training.phase_end = True
        self.save(updates)
        for update in updates.values():
            update.close()
        if phase is not self.phases[-1] and self.steps(phase):  # the last one is measured when the run finishes
            self.validate(phase, updates)
        # Finish writing before the next phase forks its workers: they would inherit the open files.
        self.saves.settle()


def _averaged(updates: Updates) -> dict[str, Network]:
    """The weight averages that are kept, by the names of their networks."""
    return {name: average.network for update in updates.values() for name, average in update.averages.items()}
