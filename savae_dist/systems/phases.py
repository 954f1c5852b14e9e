"""The words of training: a system has phases, a phase has updates, an update trains networks by losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor

from savae_dist.config.counts import Auto
from savae_dist.config.effect import field_values
from savae_dist.latents import Posterior
from savae_dist.networks import Network
from savae_dist.preprocess import DataSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

BatchUse = Literal["fresh", "shared"]


@dataclass(frozen=True)
class Batch:
    """What a loss sees of one slice of the global batch.

    x: float32 `[batch, channels, height, width]` in [0, 1] or `[batch, channels, length]`, normalised.
    y: int64 `[batch]`, -1 = unlabelled.
    noise: the standard normal draws that the update declares, each `[batch, *its shape]`.
    label_weight: scalar; sum over this slice's labelled samples times it, averaged over ranks and accumulation
        steps as gradients are, is the mean over the labelled samples of the global batch (0 where there is none).
    unlabelled_weight: the same for the unlabelled samples.
    attributes: float32 `[batch, names]` in the order of `DataSpec.attributes`, NaN where a value is missing; None where
        the set has none (`data.attributes`).
    posterior: q(z|x) by the phase's frozen encoder where that is kept, else None: the loss encodes x itself.
    """

    x: Tensor
    y: Tensor
    noise: Mapping[str, Tensor]
    label_weight: Tensor
    unlabelled_weight: Tensor
    attributes: Tensor | None = None
    posterior: Posterior | None = None


# The networks by name (`nets.encoder`) and a batch -> named terms with their weights applied; their sum is the loss.
Loss = Callable[[SimpleNamespace, Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class Update:
    """One optimiser and the networks that it trains; every other network is frozen meanwhile.

    losses: stepped one after the other, each on its own batch (unless the phase shares one).
    repeats: how often that happens per iteration.
    noise: name -> shape per sample of the standard normal draws that the losses need.
    active: False leaves the steps out, but keeps their place in the order of the data and in the noise, so that the
        other updates see what they would have seen.
    averaged: whether an exponential moving average of its networks is kept when the run keeps one.
    optimizer: settings of the optimiser that differ from the run's default for this update.
    chance: of a critic's update, term -> its value where the critic cannot tell (`losses.chance_loss`), by which a run
        sees that it has won, or tells nothing. Terms that are not its judgement of samples are left out.
    """

    name: str
    trains: tuple[str, ...]
    losses: tuple[Loss, ...]
    repeats: int = 1
    noise: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    active: bool = True
    averaged: bool = True
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    chance: Mapping[str, float] = field(default_factory=dict)


class OptimizerStep(NamedTuple):
    """One optimiser step of an iteration: on which loss of its update, in which repeat, on which of its batches."""

    update: Update
    loss_index: int
    repeat: int
    batch: int


@dataclass(frozen=True)
class Recalibration:
    """Batch-norm statistics are recomputed over the training set, because later phases and users need them frozen.

    networks: those whose statistics are. forward: runs them on a batch. update: whose noise that batch carries.
    """

    networks: tuple[str, ...]
    forward: Callable[[SimpleNamespace, Batch], object]
    update: Update


# The networks and x of the first training samples, batch by batch; what it measures goes into buffers of the networks.
Preparation = Callable[[SimpleNamespace, Iterable[Tensor]], None]


@dataclass(frozen=True)
class Phase:
    """A stretch of training; its updates run in order in each of `steps` iterations.

    batches: `fresh` gives every step its own batch, `shared` gives one batch to the whole iteration.
    recalibrate: what is done for its batch norms when the phase ends.
    prepare: called before the first step, on every rank with the same samples, in eval mode and without gradients.
    posteriors: an encoder, frozen in this phase, whose posteriors the losses take from `batch.posterior` if they are
        there.
    """

    name: str
    steps: int
    updates: tuple[Update, ...]
    batches: BatchUse = "fresh"
    recalibrate: Recalibration | None = None
    prepare: Preparation | None = None
    posteriors: str | None = None

    def optimizer_steps(self) -> tuple[OptimizerStep, ...]:
        """All optimiser steps of one iteration in their order, inactive ones included."""
        plain = [
            (update, loss_index, repeat)
            for update in self.updates
            for repeat in range(update.repeats)
            for loss_index in range(len(update.losses))
        ]
        return tuple(OptimizerStep(*step, batch=0 if self.batches == "shared" else i) for i, step in enumerate(plain))

    @property
    def batches_per_iteration(self) -> int:
        return max(step.batch for step in self.optimizer_steps()) + 1


def code_size(latent_dim: int | Auto) -> int:
    """latent_dim; ValueError where it is still `auto`, which a run replaces before it builds a system."""
    if latent_dim == "auto":
        raise ValueError("system.latent_dim=auto is for runs, which know their samples: give a number here")
    return latent_dim


def check_numbers(system: DataclassInstance, at_least_one: Iterable[str], not_negative: Iterable[str] = ()) -> None:
    """ValueError that names the key if one of a system's numbers is too small, or one of the latter not finite."""
    values = field_values(system)
    for key in at_least_one:
        if values[key] != "auto" and values[key] < 1:
            raise ValueError(f"system.{key} must be at least 1, not {values[key]}")
    for key in not_negative:
        if not 0 <= values[key] < math.inf:
            raise ValueError(f"system.{key} must not be negative, not {values[key]}")


def check_classes(name: str, spec: DataSpec) -> None:
    """ValueError where a system is given data without classes to tell apart."""
    if spec.classes < 2:
        needs = f"system.name={name} needs labels of at least 2 classes, system.name=vae none"
        raise ValueError(f"{needs}; data.train has {spec.classes}")


class System(Protocol):
    """A paper: a frozen dataclass of hyperparameters, with the networks and the phases."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    @property
    def pipeline(self) -> tuple[str, ...]:
        """The networks that a user of the trained model needs."""
        ...

    def build(self, spec: DataSpec, width: int, norm: Any, pools: int) -> dict[str, Network]: ...

    def phases(self) -> tuple[Phase, ...]: ...
