"""From slices of raw data to the batches of a loss: the plan of what is read when, and the noise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from savae_dist.systems.phases import Batch, Phase, Turn
from savae_dist.training.augment import Augmentation


class RawBatch(Protocol):
    """A slice of a global batch as the reader gives it: `slot` `[n]` says which elements of the global batch."""

    x: Tensor
    y: Tensor
    slot: Tensor
    labelled: int  # labelled samples in the whole global batch


@dataclass(frozen=True)
class Slicing:
    """How a global batch of `size` is cut: over the ranks, then into accumulation steps."""

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

    def slots(self) -> list[range]:
        """The slots of this rank, one range per accumulation step."""
        mine = range(self.rank, self.size, self.ranks)
        step = len(mine) // self.accumulate
        return [mine[i : i + step] for i in range(0, len(mine), step)]


@dataclass(frozen=True)
class Feed:
    """Raw slices to batches: onto the device, normalised, varied, with this slice's part of the global noise."""

    slicing: Slicing
    device: torch.device
    normalise: Callable[[Tensor], Tensor]
    seed: int
    augment: Augmentation | None = None

    def noise(self, turn: Turn, position: int) -> dict[str, Tensor]:
        """The update's draws for the whole global batch, `[size, *shape]` each, on the CPU.

        A pure function of (seed, position in the data, turn), so it is the same for any number of ranks and after a
        resumption, and there is no random state to save.
        """
        update = turn.update
        key = (position, update.name, turn.which, turn.repeat)
        return {name: self._normal((*key, name), shape) for name, shape in update.noise.items()}

    def variation(self, position: int) -> dict[str, Tensor]:
        """The augmentation's draws for the global batch at `position`, in the same way.

        They belong to the batch and not to the turn: turns that share a batch compare their networks on the same
        samples, and those on fresh batches have other positions.
        """
        noise = self.augment.noise if self.augment else {}
        return {name: self._normal((position, "augment", name), shape) for name, shape in noise.items()}

    def _normal(self, key: tuple[int | str, ...], shape: tuple[int, ...]) -> Tensor:
        digest = hashlib.blake2b(repr((self.seed, *key)).encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.randn(self.slicing.size, *shape, generator=generator)

    def batch(self, raw: RawBatch, noise: Mapping[str, Tensor], variation: Mapping[str, Tensor] | None = None) -> Batch:
        """noise, variation: of the whole global batch; without the second the samples stay as they are."""
        x = self.normalise(raw.x.to(self.device, non_blocking=True))
        if self.augment and variation:
            x = self.augment(x, self._mine(raw, variation))
        return Batch(
            x=x,
            y=raw.y.to(self.device, non_blocking=True),
            noise=self._mine(raw, noise),
            label_weight=self._weight(raw.labelled),
            unlabelled_weight=self._weight(self.slicing.size - raw.labelled),
        )

    def _weight(self, count: int) -> Tensor:
        """Of a sum over some of a slice's samples, of which the global batch holds `count` (see `Batch`)."""
        shares = self.slicing.ranks * self.slicing.accumulate
        return torch.tensor(shares / count if count else 0.0, device=self.device)

    def _mine(self, raw: RawBatch, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {k: v[raw.slot].to(self.device, non_blocking=True) for k, v in draws.items()}


def positions(phase: Phase, iteration: int, origin: int, size: int) -> list[tuple[Turn, int]]:
    """The active turns of an iteration and where in the data their batches start; `origin` is where the phase did."""
    first = origin + iteration * phase.batches_per_iteration * size
    return [(turn, first + turn.batch * size) for turn in phase.turns() if turn.update.active]


def read_plan(phase: Phase, first: int, last: int, origin: int, slicing: Slicing) -> Iterator[tuple[int, range]]:
    """(start of a global batch, slots of it) in the order in which `run_phase` takes them from its reader."""
    for iteration in range(first, last):
        starts = dict.fromkeys(start for _, start in positions(phase, iteration, origin, slicing.size))
        for start in starts:
            for slots in slicing.slots():
                yield start, slots
