"""The plan of a phase, which says what is read and stepped when, and the batches that its losses see."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from savae_dist.data import AttributeTable, RawBatch, Request
from savae_dist.latents import Posterior
from savae_dist.systems.phases import Batch, OptimizerStep, Phase
from savae_dist.training.augment import Augmentation
from savae_dist.training.noise import Shapes, seed_of, standard_normal, standard_normals

T = TypeVar("T")
# Noise is drawn at once for so many steps ahead, unless they need more values: 1 MB, and 4 while they are drawn.
STEPS_AHEAD, VALUES_AHEAD = 64, 2**18

Noise = Mapping[str, Tensor]


class Together(Protocol):
    """together(work) is the result of work() once all ranks have theirs; an error of one ends it on all."""

    def __call__(self, work: Callable[[], T], /) -> T: ...


class Lookup(Protocol):
    """of(ids) is q(z|x) of these samples, None if that of one is not known; `posteriors.Posteriors`."""

    def of(self, ids: Tensor) -> Posterior | None: ...


def alone(work: Callable[[], T], /) -> T:
    """`Together` of a single process that nobody stops."""
    return work()


@dataclass(frozen=True)
class BatchSplit:
    """How a global batch of `size` samples is split: over the ranks, then into accumulation steps."""

    size: int
    rank: int = 0
    ranks: int = 1
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % (self.ranks * self.accumulate):
            raise ValueError(
                f"data.batch_size={self.size} must be a multiple of {self.ranks} processes "
                f"x accumulate={self.accumulate}"
            )

    @property
    def rows(self) -> int:
        """Samples of a rank's forward pass: its share of one accumulation step."""
        return self.size // (self.ranks * self.accumulate)

    def slots(self) -> list[range]:
        """The slots (places in the global batch) that this rank reads, one range per accumulation step."""
        mine = range(self.rank, self.size, self.ranks)
        return [mine[i : i + self.rows] for i in range(0, len(mine), self.rows)]


class PlannedStep(NamedTuple):
    """An optimiser step, the iteration that it belongs to, and the position in the data where its global batch starts.

    reads: the slots of that batch that this rank reads now, one range per accumulation step; empty if the step
        before has read the same batch.
    ends_iteration: whether it is the last step of its iteration.
    """

    step: OptimizerStep
    iteration: int
    position: int
    reads: list[range]
    ends_iteration: bool


def training_plan(
    phase: Phase, split: BatchSplit, *, first: int, last: int, origin: int, starts: Mapping[str, int] | None = None
) -> Iterator[PlannedStep]:
    """The active optimiser steps of iterations `first` to `last` - 1, in order; the phase began at position `origin`.

    The loader reads ahead by this plan and the engine steps by it, so they cannot disagree. Inactive steps, and those
    of an update before its iteration in `starts`, keep their positions in the data, so that the other steps see the
    same batches without them.
    """
    starts = starts or {}
    steps = [step for step in phase.optimizer_steps() if step.update.active]
    slots, per_iteration = split.slots(), phase.batches_per_iteration * split.size
    for iteration in range(first, last):
        before, due = None, [step for step in steps if iteration >= starts.get(step.update.name, 0)]
        for number, step in enumerate(due, 1):
            position = origin + iteration * per_iteration + step.batch * split.size
            reads = slots if position != before else []
            yield PlannedStep(step, iteration, position, reads, ends_iteration=number == len(due))
            before = position


def read_requests(plan: Iterable[PlannedStep], size: int) -> Iterator[Request]:
    """The requests by which a reader follows the plan with global batches of `size` samples."""
    return (Request(planned.position, size, slots) for planned in plan for slots in planned.reads)


@dataclass(frozen=True)
class BatchBuilder:
    """Turns the samples of a reader into the batches that losses see.

    seed: of all noise and augmentation. augment: applied to training samples; None: nothing is. attributes: of the set
    that the samples come from. posteriors: of a frozen encoder, by sample, where a phase keeps them.
    """

    split: BatchSplit
    device: torch.device
    normalise: Callable[[Tensor], Tensor]
    seed: int
    augment: Augmentation | None = None
    attributes: AttributeTable | None = None
    posteriors: Lookup | None = None

    def during(self, phase: str) -> BatchBuilder:
        """The builder for this phase: without the augmentation if that is meant for others."""
        others = self.augment is not None and self.augment.phases and phase not in self.augment.phases
        return replace(self, augment=None) if others else self

    def batch(self, raw: RawBatch, position: int | None = None) -> Batch:
        """The samples on the device, normalised; augmented if `position`, where their global batch starts, is given."""
        there = raw.on(self.device)
        x = self.normalise(there.x)
        if self.augment is not None and position is not None:
            x = self.augment(x, self.augmentation_noise(position, there.slot))
        return Batch(
            x=x,
            y=there.y,
            noise={},
            label_weight=self._weight(raw.labelled),
            unlabelled_weight=self._weight(self.split.size - raw.labelled),
            attributes=self._attributes(raw.id),
            posterior=self.posteriors.of(raw.id) if self.posteriors is not None and position is not None else None,
        )

    def _attributes(self, ids: Tensor) -> Tensor | None:
        if self.attributes is None:
            return None
        return torch.from_numpy(self.attributes.of(ids.numpy())).to(self.device, non_blocking=True)

    def noise(self, step: OptimizerStep, position: int, slots: Tensor) -> dict[str, Tensor]:
        """The draws that the step's update declares, for `slots` `[n]` of the global batch at `position`.

        They are a pure function of (seed, position in the data, step, slot): the same for any number of ranks and after
        a resumption, so there is no random state to save.
        """
        return _first(self.draws([self._seed(step, position)], slots, step.update.noise))

    def with_noise(self, plan: Iterable[PlannedStep]) -> Iterator[tuple[PlannedStep, list[Noise]]]:
        """Each step of the plan with its noise, for each of this rank's slices.

        It is drawn for many steps at once: the launches of one drawing serve them all. No value depends on that.
        """
        plan, slots = iter(plan), self.split.slots()
        while first := list(islice(plan, 1)):
            slots = first[0].reads or slots  # the same in all steps; a step that reads nothing has those before it
            sizes = [len(part) for part in slots]
            values = sum(math.prod(shape) for shape in first[0].step.update.noise.values())
            most = min(max(VALUES_AHEAD // max(sum(sizes) * values, 1), 1), STEPS_AHEAD)
            steps = [*first, *islice(plan, most - 1)]
            mine = torch.tensor([slot for part in slots for slot in part])
            drawn = {name: self._drawn(name, steps, mine) for name in {one.step.update.name for one in steps}}
            for planned in steps:
                draws = {name: value.split(sizes) for name, value in next(drawn[planned.step.update.name]).items()}
                yield planned, [{name: value[part] for name, value in draws.items()} for part in range(len(sizes))]

    def _drawn(self, update: str, steps: Sequence[PlannedStep], slots: Tensor) -> Iterator[Noise]:
        """The noise of those steps that are this update's, in their order."""
        own = [planned for planned in steps if planned.step.update.name == update]
        seeds = [self._seed(planned.step, planned.position) for planned in own]
        draws = self.draws(seeds, slots, own[0].step.update.noise)
        return ({name: values[number] for name, values in draws.items()} for number in range(len(own)))

    def _seed(self, step: OptimizerStep, position: int) -> int:
        return seed_of(self.seed, position, step.update.name, step.loss_index, step.repeat)

    def draws(self, seeds: Sequence[int], slots: Tensor, shapes: Shapes) -> dict[str, Tensor]:
        """`standard_normals` on the device of the run."""
        return standard_normals(seeds, slots.to(self.device, non_blocking=True), shapes)

    def augmentation_noise(self, position: int, slots: Tensor) -> dict[str, Tensor]:
        """The draws of the augmentation, a pure function of (seed, position in the data, slot).

        They do not depend on the step, so that steps that share a batch see equal samples.
        """
        shapes = self.augment.noise if self.augment is not None else {}
        return standard_normal(seed_of(self.seed, position, "augment"), slots.to(self.device), shapes)

    def _weight(self, count: int) -> Tensor:
        """`Batch`'s factor from sums to means over samples of one kind, of which the global batch holds `count`."""
        shares = self.split.ranks * self.split.accumulate
        return _factor(count, shares, self.device)


@cache
def _factor(count: int, shares: int, device: torch.device) -> Tensor:
    """Kept, because a new one would have to be sent to the device in each step."""
    return torch.tensor(shares / count if count else 0.0, device=device)


def _first(draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: values[0] for name, values in draws.items()}
