"""One run: its folder, its data, its networks, and its way through the phases."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import torch
from accelerate import PartialState

from savae_dist.config import identity
from savae_dist.config.schema import RunConfig
from savae_dist.data import Proportions, RawBatch, Reader, Request, loader, training_order
from savae_dist.distributed import launch
from savae_dist.distributed.ranks import Peers
from savae_dist.distributed.reduce import rank_means, rank_sums
from savae_dist.distributed.signals import Stop
from savae_dist.errors import DataError, DivergedError, Preempted, SaveError
from savae_dist.files import finite_or_null, write_json, write_text
from savae_dist.networks import Encoder, LabelPart
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.posteriors import collect_posteriors, name_clusters
from savae_dist.preprocess import normalise
from savae_dist.run import checkpoint, setup
from savae_dist.run.status_file import Status
from savae_dist.run.tracker import Clock, Tracker
from savae_dist.run.validation import Survey, Validation, closing_summary, collapse
from savae_dist.systems.phases import Phase, Preparation
from savae_dist.training.augment import Augmentation
from savae_dist.training.batch_norm import broadcast_buffers, recalibrate
from savae_dist.training.batches import Feed, Slicing, read_plan
from savae_dist.training.engine import PreparedUpdate, run_phase
from savae_dist.training.strategies import check_zero

MEASURED = 2048  # training samples that a phase may measure before its first step


class Run:
    """A run at the start, or where its newest checkpoint left it."""

    def __init__(self, config: RunConfig, state: PartialState, status: Status, stop: Stop, peers: Peers) -> None:
        self.config, self.state, self.status, self.stop, self.peers = config, state, status, stop, peers
        self.folder = Path(config.output or ".")
        data, ranks = config.data, state.num_processes
        self.shards, self.validation_shards = setup.open_shards(data)
        self.spec = self.shards.spec
        self.slicing = Slicing(data.batch_size, state.process_index, ranks, config.accumulate)
        augment = Augmentation(data.augment, self.spec)
        self.feed = Feed(self.slicing, state.device, lambda x: normalise(x, self.spec), config.seed, augment)
        self.system, self.phases = config.system, config.system.phases()
        self.zero = launch.zero_stage()
        if self.zero:
            check_zero(self.phases)
        self.networks = setup.build_networks(config, self.spec, self.slicing, state.device)
        initial = config.networks.initial  # read once: it may be another run's checkpoint, and go
        self.given = {path.name for path in Path(initial).iterdir()} if initial else set()
        start = setup.starting_state(config, self.shards, self.networks, self.phases[0], ranks)
        self.training, self.resumed_from = setup.resume(config, start, self.networks, peers)
        self.order = training_order(
            self.shards,
            Proportions(tuple(data.weights), data.labelled_fraction, data.balance),
            seed=config.seed,
            lanes=self.training.run["lanes"],
            window=data.shuffle_window,
            batch_size=self.slicing.size,
        )
        setup.check_cache(data, self.shards, self.order, ranks)
        state.wait_for_everyone()  # nobody looks for an older run once rank 0 writes
        self.reader = Reader(self.shards, self.order, int(data.bad_budget * self.shards.size), data.cache)
        self.survey = Survey(self.reader, self.feed)
        self.validation = (
            Validation(self.validation_shards, self.survey, config.judge) if self.validation_shards else None
        )
        if status.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "config.yaml", identity.to_yaml(config))
        total = sum(self.steps(phase) for phase in self.phases)
        # Last, since it must be closed: a run that cannot be opened leaves no bar behind.
        self.tracker = Tracker(self.folder / "tensorboard", total, self.training.total, status.writes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.tracker.close()

    def steps(self, phase: Phase) -> int:
        return min(phase.steps, self.config.max_steps or phase.steps)

    # Training.

    def remaining_phases(self) -> Iterator[Phase]:
        """The phases that are not finished, `self.training` set to the start of each that was not begun."""
        names = [phase.name for phase in self.phases]
        for phase in self.phases[names.index(self.training.phase) :]:
            if self.training.phase != phase.name:
                before = next(p for p in self.phases if p.name == self.training.phase)
                origin = self.training.origin + self.training.step * before.batches_per_iteration * self.slicing.size
                self.training = replace(self.training, phase=phase.name, step=0, origin=origin, phase_end=False)
            if not self.training.phase_end:
                yield phase

    def train(self, phase: Phase) -> None:
        """Train a phase to its end, from where `self.training` stands."""
        training, config, last = self.training, self.config, self.steps(phase)
        if phase.prepare is not None and not training.step:
            self._measure(phase.prepare)
        updates = self._prepare(phase)
        plan = read_plan(phase, training.step, last, training.origin, self.slicing)
        requests = (Request(start, self.slicing.size, slots) for start, slots in plan)
        raw = self._watched(loader(self.reader, requests, config.data.workers, self.state.device.type == "cuda"))
        clock = Clock()
        steps = run_phase(phase, updates, raw, self.feed, first=training.step, last=last, origin=training.origin)
        for step in steps:
            clock.tick()
            training.total, training.step = training.total + 1, step
            self.tracker.advance(phase.name)
            self.status.beat(phase.name, step)
            if step % config.log_every == 0 or step == last:
                self._log(phase, updates, clock)
            if config.debug.check_ranks and step % config.debug.check_ranks == 0:
                self.peers.check_equal(self.networks, f"{phase.name} step {step}")
            asked_to_stop = self.stop.agreed()
            if asked_to_stop or (step % config.checkpoint_every == 0 and step != last):
                self.save(updates)
            if asked_to_stop:
                raise Preempted(f"stopped by signal {asked_to_stop} at {phase.name} step {step}; run it again to go on")
            if step % config.validate_every == 0 and step != last:
                self.validate(phase, updates)
            clock.skip()
        self.stop.settle()
        self._end(phase, updates, clock)

    def _measure(self, prepare: Preparation) -> None:
        """What a phase asks of the training data before its first step; rank 0's answer is the run's."""
        for network in self.networks.values():
            network.eval()
        with torch.no_grad():
            prepare(SimpleNamespace(**self.networks), self.survey.first(MEASURED))
        broadcast_buffers(self.networks)

    def _prepare(self, phase: Phase) -> dict[str, PreparedUpdate]:
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
                zero=self.zero,
                ddp=config.ddp,
            )
            for update in phase.updates
            if update.active
        }
        if self.training.step:
            assert self.resumed_from is not None
            checkpoint.load_updates(self.resumed_from, updates)
            self.state.wait_for_everyone()  # rank 0 may soon write a folder of that name
        return updates

    def _watched(self, batches: Iterable[RawBatch]) -> Iterator[RawBatch]:
        """Says which samples were replaced, and why."""
        try:
            for batch in batches:
                for reason, shard, key in batch.bad:
                    print(f"savae_dist: {shard}: {key}: {reason}; another sample took its place", file=sys.stderr)
                yield batch
        except DataError as error:
            error.everywhere = False
            raise

    def _log(self, phase: Phase, updates: Mapping[str, PreparedUpdate], clock: Clock) -> None:
        sums = {f"{name}/{term}": s for name, u in updates.items() for term, s in u.meter.drain().items()}
        values = rank_means(sums)
        show = {name.split("/")[1]: value for name, value in values.items() if not name.endswith("gradient_norm")}
        for name, update in updates.items():
            values[f"{name}/lr"] = update.lr
            values[f"{name}/skipped"] = int(update.skipped)
            if int(update.skipped_in_a_row) >= self.config.nonfinite_limit:
                raise DivergedError(
                    f"{phase.name} step {self.training.step}: {int(update.skipped_in_a_row)} steps of {name} in a row "
                    f"had no finite gradient; lower optimizers.{name}.lr or set optimizers.{name}.clip_norm"
                )
        values[f"{phase.name}/samples_per_second"] = clock.rate(self.slicing.size)
        self.tracker.scalars(values, self.training.total, show)

    def _end(self, phase: Phase, updates: Mapping[str, PreparedUpdate], clock: Clock) -> None:
        """What a phase leaves behind: averaged weights if any are kept, equal statistics on all ranks, a checkpoint."""
        for update in updates.values():
            for name, average in update.averages.items():
                self.networks[name].load_state_dict(average.network.state_dict())
            update.averages.clear()
        broadcast_buffers(self.networks)
        if phase.recalibrate is not None:
            batches = self.survey.batches(self.slicing.rank, self.slicing.ranks)
            recalibrate(phase.recalibrate, self.networks, batches, self.feed)
        if clock.iterations:  # none where a run goes on from the last step
            self.training.rates[phase.name] = clock.rate(self.slicing.size)
        self.training.phase_end = True
        self.save(updates)
        for update in updates.values():
            update.close()
        if phase is not self.phases[-1]:  # the last one is measured when the run finishes
            self.validate(phase, updates)

    def save(self, updates: Mapping[str, PreparedUpdate]) -> None:
        """A checkpoint, written by rank 0; SaveError on every rank if it fails."""
        message = ""
        try:
            folder, write = self.folder / "checkpoints", self.state.is_main_process
            checkpoint.save(folder, self.networks, updates, self.training, self.config.keep_checkpoints, write)
        except SaveError as error:
            message = str(error)
        if rank_sums(torch.tensor(float(bool(message)))).item():
            raise SaveError(message or "rank 0 could not save; see status.json")

    def _pipeline(self, phase: Phase, updates: Mapping[str, PreparedUpdate]) -> Pipeline:
        """The networks but those that are still as they were initialised; averaged ones where an average is kept."""
        begun = [one for one in self.phases[: self.phases.index(phase) + 1] if self.steps(one)]
        trained, ever = (
            {name for one in phases for update in one.updates for name in update.trains}
            for phases in (begun, self.phases)
        )
        averaged = {name: a.network for update in updates.values() for name, a in update.averages.items()}
        names = [name for name in self.system.pipeline if name in self.networks]
        networks = {
            name: averaged.get(name, self.networks[name])
            for name in names
            if name in trained or name not in ever or name in self.given
        }
        return Pipeline(networks, self.spec, system=identity.plain(self.system))

    def validate(self, phase: Phase, updates: Mapping[str, PreparedUpdate]) -> None:
        """Measure on the validation set, over all ranks; log the figures of merit and draw the pictures."""
        if self.validation is None:
            return
        pipeline = self._pipeline(phase, updates)
        broadcast_buffers(pipeline.networks)  # averages' too
        self._name_clusters(pipeline)
        metrics = self.validation.measure(pipeline)
        numbers = {f"validation/{name}": value for name, value in metrics.items() if value is not None}
        self.tracker.scalars(numbers, self.training.total)
        if warning := collapse(metrics, self.spec):
            self.tracker.say(f"{phase.name} step {self.training.step}: {warning}")
        self._draw(pipeline)

    def _name_clusters(self, pipeline: Pipeline) -> None:
        """On every rank, with the same result: the survey is the same. The run's own network stays as it is."""
        encoder, classifier = pipeline.networks.get("encoder"), pipeline.networks.get("classifier")
        if isinstance(encoder, Encoder) and isinstance(classifier, LabelPart) and classifier.clusters:
            if self.survey.labelled:
                pipeline.networks["classifier"] = name_clusters(encoder, classifier, self.survey.samples())
            else:  # nothing says what the clusters are
                del pipeline.networks["classifier"]

    def _draw(self, pipeline: Pipeline) -> None:
        if self.state.is_main_process and self.validation is not None:
            figures = self.validation.draw(pipeline, self.folder / "figures")
            for name, figure in figures.items():
                self.tracker.figure(name, figure, self.training.total)

    def finish(self) -> None:
        """Measure, export the pipeline with the training posteriors, and say where everything lies."""
        pipeline = self._pipeline(self.phases[-1], {})
        self._name_clusters(pipeline)
        metrics = self.validation.measure(pipeline) if self.validation is not None else {}
        if not self.state.is_main_process:
            return
        if warning := collapse(metrics, self.spec):
            self.tracker.say(warning)
        encoder = pipeline.networks.get("encoder")
        if self.survey.labelled and isinstance(encoder, Encoder) and pipeline.prior is None:
            pipeline.posteriors = collect_posteriors(encoder, self.survey.samples())
        pipeline.save_pretrained(self.folder / "pipeline")
        self._draw(pipeline)
        steps = {phase.name: self.steps(phase) for phase in self.phases}
        summary = {"samples_per_second": self.training.rates, "steps": steps, "seed": self.config.seed}
        write_json(self.folder / "summary.json", finite_or_null({**metrics, **summary}))
        self.tracker.say(closing_summary(self.folder, metrics, pipeline.networks))
