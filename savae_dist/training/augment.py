"""Augmentation on the device: pure functions of samples and of draws, few and standard.

A sample keeps its shape and its label. Strengths are the values of `data.augment`; what is not named there is off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from savae_dist.config.schema import AUGMENTATIONS
from savae_dist.preprocess import DataSpec, Kind

# Images: float [n, channels, height, width] in [0, 1]. `u`: draws from [0, 1].


def crop(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Up to the share `strength` of each side is cut off, and the rest (bilinear) brought back to size. u: [n, 3]."""
    size = 1 - strength * u[:, 0]
    centre = (1 - size)[:, None] * (2 * u[:, 1:] - 1)  # x, y; of the box, where the image spans [-1, 1]
    zero = torch.zeros_like(size)
    box = torch.stack([size, zero, centre[:, 0], zero, size, centre[:, 1]], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(box.to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def flip(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Left becomes right with the probability `strength`. u: [n]."""
    return torch.where((u < strength)[:, None, None, None], x.flip(3), x)


def shift(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """By whole pixels, up to the share `strength` of each side either way; what comes in is black. u: [n, 2]."""
    rows, height = _moved(u[:, 0], x.shape[2], strength)
    columns, width = _moved(u[:, 1], x.shape[3], strength)
    inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]
    each = torch.arange(len(x), device=x.device)[:, None, None]
    moved = x[each, :, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return torch.where(inside[..., None], moved, 0).movedim(3, 1)


def cutout(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """A box of the share `strength` of each side becomes black (DeVries and Taylor 2017). u: [n, 2]."""
    rows = _stretch(u[:, 0], x.shape[2], strength)
    columns = _stretch(u[:, 1], x.shape[3], strength)
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], 0, x)


# Signals: float [n, channels, length], normalised.


def time_shift(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Rolled by up to the share `strength` of the window either way: its spectrum stays what it is. u: [n]."""
    source, length = _moved(u, x.shape[2], strength)
    return x.gather(2, (source % length)[:, None].expand_as(x))


def scaling(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Each channel times a factor from [1 - strength, 1 + strength]. u: [n, channels]."""
    return x * (1 + strength * (2 * u - 1))[:, :, None]


def jitter(x: Tensor, normal: Tensor, strength: float) -> Tensor:
    """Gaussian noise of the deviation `strength`, in units of the normalised signal. normal: [n, channels, length]."""
    return x + strength * normal


def masking(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """One stretch of the share `strength` of the window becomes 0, in all channels. u: [n]."""
    return torch.where(_stretch(u, x.shape[2], strength)[:, None], 0, x)


def _whole(u: Tensor, count: int) -> Tensor:
    """`u` from [0, 1] to whole numbers 0 .. count - 1, each as likely."""
    return (u * count).long().clamp(max=count - 1)


def _extent(strength: float, side: int) -> int:
    return max(1, round(strength * side))


def _moved(u: Tensor, side: int, strength: float) -> tuple[Tensor, int]:
    """Where each element of a side comes from after a move, int64 [n, side], perhaps from outside; and the side."""
    most = _extent(strength, side)
    return torch.arange(side, device=u.device) - (_whole(u, 2 * most + 1) - most)[:, None], side


def _within(index: Tensor, side: int) -> Tensor:
    return (index >= 0) & (index < side)


def _stretch(u: Tensor, side: int, strength: float) -> Tensor:
    """bool [n, side]: a run of the share `strength` of it, at a random place."""
    length = _extent(strength, side)
    start = _whole(u, side - length + 1)[:, None]
    return _within(torch.arange(side, device=u.device) - start, length)


class Operation(NamedTuple):
    """draws: shape of a sample -> shape of the draws that it needs."""

    apply: Callable[[Tensor, Tensor, float], Tensor]
    kind: Kind
    draws: Callable[[tuple[int, ...]], tuple[int, ...]]
    uniform: bool = True  # draws from [0, 1]; else standard normal ones


# By the names of `AUGMENTATIONS`, in whose order they are applied.
OPERATIONS: dict[str, Operation] = {
    "crop": Operation(crop, "image", lambda shape: (3,)),
    "flip": Operation(flip, "image", lambda shape: ()),
    "shift": Operation(shift, "image", lambda shape: (2,)),
    "cutout": Operation(cutout, "image", lambda shape: (2,)),
    "time_shift": Operation(time_shift, "signal", lambda shape: ()),
    "scaling": Operation(scaling, "signal", lambda shape: shape[:1]),
    "jitter": Operation(jitter, "signal", lambda shape: shape, uniform=False),
    "masking": Operation(masking, "signal", lambda shape: ()),
}


@dataclass(frozen=True)
class Augmentation:
    """`data.augment` for samples of `spec`; ValueError where a strength is for the other kind.

    strengths: name of an operation -> strength. One of 0 leaves its operation out, so the samples as they are.
    """

    strengths: Mapping[str, float]
    spec: DataSpec

    def __post_init__(self) -> None:
        for name in self.strengths:
            if OPERATIONS[name].kind != self.spec.kind:
                fitting = ", ".join(n for n, operation in OPERATIONS.items() if operation.kind == self.spec.kind)
                raise ValueError(
                    f"data.augment.{name} is for {OPERATIONS[name].kind}s and data.train holds {self.spec.kind}s; "
                    f"those take {fitting}"
                )

    def _active(self) -> dict[str, Operation]:
        return {name: OPERATIONS[name] for name in AUGMENTATIONS if self.strengths.get(name)}

    @property
    def noise(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape per sample of the standard normal draws that it needs, as an update's `noise`."""
        return {name: operation.draws(self.spec.shape) for name, operation in self._active().items()}

    def __call__(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """x: normalised `[n, *spec.shape]`; draws: standard normal, `[n, *shape]` for each name of `noise`."""
        for name, operation in self._active().items():
            u = torch.special.ndtr(draws[name]) if operation.uniform else draws[name]
            x = operation.apply(x, u, self.strengths[name])
        return x
