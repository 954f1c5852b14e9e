"""Augmentation on the device: a few standard operations, each a pure function of samples and random draws.

A sample keeps its shape and its label. Strengths are the values of `data.augment`; an operation not named there is off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from savae_dist.config.augmentations import AUGMENTATIONS
from savae_dist.preprocess import DataSpec, Kind

SHARP = 1e-2  # pixels of deviation below which a blur does nothing: a neighbour's weight is 0 in float32

# Images: float [n, channels, height, width] in [0, 1]. `u`: draws from [0, 1].


def crop(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Crop to a random box, smaller by up to the fraction `strength`, and resize it to full (bilinear). u: [n, 3]."""
    size = 1 - strength * u[:, 0]
    centre = (1 - size)[:, None] * (2 * u[:, 1:] - 1)
    return _cut(x, torch.stack([size, size], 1), centre)


def _cut(x: Tensor, size: Tensor, centre: Tensor) -> Tensor:
    """The box of this size and centre, both [n, 2] (x, y), resized to the whole image, which spans [-1, 1]."""
    zero = torch.zeros_like(size[:, 0])
    box = torch.stack([size[:, 0], zero, centre[:, 0], zero, size[:, 1], centre[:, 1]], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(box.to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def resized_crop(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Crop to a random box of an area smaller by up to the fraction `strength`, of proportions from 3/4 to 4/3 of the
    image's (Szegedy et al. 2015, section 6), and resize it to full (bilinear). u: [n, 4].
    """
    area = 1 - strength * u[:, 0]
    ratio = torch.exp(math.log(4 / 3) * (2 * u[:, 1] - 1))  # width / height
    ratio = torch.maximum(torch.minimum(ratio, 1 / area), area)  # neither side goes beyond the image
    size = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1)  # x, y
    return _cut(x, size, (1 - size) * (2 * u[:, 2:] - 1))


def flip(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Mirror left to right with the probability `strength`. u: [n]."""
    return torch.where((u < strength)[:, None, None, None], x.flip(3), x)


def shift(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Shift by whole pixels, up to the fraction `strength` of each side, and fill with black. u: [n, 2]."""
    rows, height = _moved(u[:, 0], x.shape[2], strength)
    columns, width = _moved(u[:, 1], x.shape[3], strength)
    inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]
    each = torch.arange(len(x), device=x.device)[:, None, None]
    moved = x[each, :, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return torch.where(inside[..., None], moved, 0).movedim(3, 1)


def blur(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Blur with a Gaussian whose deviation, in pixels, is drawn up to the fraction `strength` of the longer side.

    The weights of each pixel sum to 1, at the edges too, so that no border darkens. u: [n].
    """
    deviation = strength * u * max(x.shape[2:])
    rows, columns = (_gaussian_rows(side, deviation).to(x.dtype) for side in x.shape[2:])
    return rows[:, None] @ x @ columns[:, None].mT


def _gaussian_rows(side: int, deviation: Tensor) -> Tensor:
    """What each of `side` pixels in a line gives to each other one [n, to, from], by the deviation [n] of a sample."""
    place = torch.arange(side, device=deviation.device)
    distance = (place[:, None] - place).square()
    return (-distance / (2 * deviation.clamp_min(SHARP).square()[:, None, None])).softmax(2)


def noise(x: Tensor, normal: Tensor, strength: float) -> Tensor:
    """Add Gaussian noise, clipped to [0, 1]; each image has a deviation of its own, drawn from [0, strength].

    normal: [n, 1 + channels * height * width], the first for the deviation.
    """
    level = strength * torch.special.ndtr(normal[:, :1])
    return (x + (level * normal[:, 1:]).view_as(x)).clamp(0, 1)


def cutout(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Blacken a box of the fraction `strength` of each side (DeVries and Taylor 2017). u: [n, 2]."""
    rows = _stretch(u[:, 0], x.shape[2], strength)
    columns = _stretch(u[:, 1], x.shape[3], strength)
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], 0, x)


# Signals: float [n, channels, length], normalised.


def time_shift(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Roll by up to the fraction `strength` of the window either way, which keeps the amplitude spectrum. u: [n]."""
    source, length = _moved(u, x.shape[2], strength)
    return x.gather(2, (source % length)[:, None].expand_as(x))


def scaling(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Multiply each channel by a factor from [1 - strength, 1 + strength]. u: [n, channels]."""
    return x * (1 + strength * (2 * u - 1))[:, :, None]


def jitter(x: Tensor, normal: Tensor, strength: float) -> Tensor:
    """Add Gaussian noise of standard deviation `strength` to the normalised signal. normal: [n, channels, length]."""
    return x + strength * normal


def masking(x: Tensor, u: Tensor, strength: float) -> Tensor:
    """Set one stretch of the fraction `strength` of the window to 0, in all channels. u: [n]."""
    return torch.where(_stretch(u, x.shape[2], strength)[:, None], 0, x)


def _whole(u: Tensor, count: int) -> Tensor:
    """Map `u` from [0, 1] to the integers 0 .. count - 1, all equally likely."""
    return (u * count).long().clamp(max=count - 1)


def _extent(strength: float, side: int) -> int:
    return max(1, round(strength * side))


def _moved(u: Tensor, side: int, strength: float) -> tuple[Tensor, int]:
    """The source index of each element after a random shift, int64 [n, side], possibly outside it; and the side."""
    most = _extent(strength, side)
    return torch.arange(side, device=u.device) - (_whole(u, 2 * most + 1) - most)[:, None], side


def _within(index: Tensor, side: int) -> Tensor:
    return (index >= 0) & (index < side)


def _stretch(u: Tensor, side: int, strength: float) -> Tensor:
    """bool [n, side]: true on one stretch of the fraction `strength` of the side, at a random place."""
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
    "resized_crop": Operation(resized_crop, "image", lambda shape: (4,)),
    "flip": Operation(flip, "image", lambda shape: ()),
    "shift": Operation(shift, "image", lambda shape: (2,)),
    "blur": Operation(blur, "image", lambda shape: ()),
    "noise": Operation(noise, "image", lambda shape: (1 + math.prod(shape),), uniform=False),
    "cutout": Operation(cutout, "image", lambda shape: (2,)),
    "time_shift": Operation(time_shift, "signal", lambda shape: ()),
    "scaling": Operation(scaling, "signal", lambda shape: shape[:1]),
    "jitter": Operation(jitter, "signal", lambda shape: shape, uniform=False),
    "masking": Operation(masking, "signal", lambda shape: ()),
}


@dataclass(frozen=True)
class Augmentation:
    """`data.augment` for samples of `spec`; ValueError if an operation is for the other kind of samples.

    strengths: name of an operation -> strength; 0 switches it off. phases: the phases whose batches are meant; empty:
    all.
    """

    strengths: Mapping[str, float]
    spec: DataSpec
    phases: Sequence[str] = ()

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
        """Name -> shape per sample of the standard normal draws that it needs, in the form of an update's `noise`."""
        return {name: operation.draws(self.spec.shape) for name, operation in self._active().items()}

    def __call__(self, x: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Augment x, normalised `[n, *spec.shape]`. draws: standard normal, `[n, *shape]` for each name of `noise`."""
        for name, operation in self._active().items():
            u = torch.special.ndtr(draws[name]) if operation.uniform else draws[name]
            x = operation.apply(x, u, self.strengths[name])
        return x
