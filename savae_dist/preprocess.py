"""From raw samples to what the networks see, and back; stored with every data set and every pipeline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

Kind = Literal["image", "signal"]
Normalise = Literal["unit", "window", "dataset", "none"]

MIN_STD = 1e-6  # smallest divisor: a constant window (a dead sensor) becomes zeros, not NaN


@dataclass(frozen=True)
class DataSpec:
    """What one sample is.

    kind: `image` (uint8 pixels) or `signal` (float windows).
    shape: as the networks see it, (channels, height, width) or (channels, length).
    classes: number of classes; labels are 0 .. classes - 1, and -1 for "unlabelled".
    normalise: `unit` (uint8 / 255; images), `window` (each window and channel to mean 0, deviation 1),
        `dataset` (by `mean` and `std` of the training set) or `none`; the last three are for signals.
    mean, std: per channel, in the units of the recording; needed for `dataset`.
    rate: sampling rate of a signal in Hz, 0 if unknown.
    """

    kind: Kind
    shape: tuple[int, ...]
    classes: int
    normalise: Normalise
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    rate: float = 0.0
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("shape", "mean", "std", "class_names"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.kind not in ("image", "signal"):
            raise ValueError(f"kind must be image or signal, not {self.kind!r}")
        if len(self.shape) != {"image": 3, "signal": 2}[self.kind]:
            raise ValueError(f"an {self.kind} sample cannot have the shape {self.shape}")
        if self.normalise not in ("unit", "window", "dataset", "none"):
            raise ValueError(f"normalise must be unit, window, dataset or none, not {self.normalise!r}")
        if (self.kind == "image") != (self.normalise == "unit"):
            raise ValueError(f"normalise={self.normalise} does not fit {self.kind}s")
        if self.normalise == "dataset" and not len(self.mean) == len(self.std) == self.shape[0]:
            raise ValueError("normalise=dataset needs one mean and one std per channel in the index")

    def renamed(self, other: DataSpec) -> tuple[int, str, str] | None:
        """The first class that this and `other` name differently: its number, the name here, the name there."""
        pairs = zip(self.class_names, other.class_names, strict=False)
        return next(((number, *names) for number, names in enumerate(pairs) if names[0] != names[1]), None)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def with_channels(x: Tensor, spec: DataSpec) -> Tensor:
    """Stored layout to network layout: `[n, h, w]` or `[n, h, w, c]` -> `[n, c, h, w]`, `[n, l]` -> `[n, 1, l]`."""
    dims = len(spec.shape)
    if x.ndim == dims:
        x = x.unsqueeze(1)
    elif spec.kind == "image" and x.ndim == dims + 1:
        x = rearrange(x, "n h w c -> n c h w")
    if tuple(x.shape[1:]) != spec.shape:
        raise ValueError(f"samples of shape {tuple(x.shape[1:])} do not fit {spec.shape} (channels first)")
    return x


def normalise(x: Tensor, spec: DataSpec) -> Tensor:
    """Raw samples as stored (uint8 images, windows in their own unit) to float32 `[n, *spec.shape]`."""
    x = with_channels(x, spec)
    if spec.normalise == "unit":
        if x.dtype != torch.uint8:
            raise ValueError(f"images are uint8 (0..255), not {x.dtype}")
        return x.float() / 255
    x = x.float()
    if spec.normalise == "window":
        std, mean = torch.std_mean(x, dim=-1, keepdim=True, correction=0)
        return (x - mean) / std.clamp_min(MIN_STD)
    if spec.normalise == "dataset":
        mean, std = (x.new_tensor(v)[:, None] for v in (spec.mean, spec.std))
        return (x - mean) / std.clamp_min(MIN_STD)
    return x


def denormalise(x: Tensor, spec: DataSpec) -> Tensor:
    """Network output back to the stored layout: uint8 images `[n, h, w(, c)]`, windows `[n, l]` or `[n, c, l]`.

    With `normalise=window` the level and scale of the original are gone: windows stay normalised.
    """
    if spec.normalise == "unit":
        x = (x * 255).round().clamp(0, 255).to(torch.uint8)
        return x[:, 0] if spec.shape[0] == 1 else rearrange(x, "n c h w -> n h w c")
    if spec.normalise == "dataset":
        mean, std = (x.new_tensor(v)[:, None] for v in (spec.mean, spec.std))
        x = x * std.clamp_min(MIN_STD) + mean
    return x[:, 0] if spec.shape[0] == 1 else x
