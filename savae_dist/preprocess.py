"""From raw samples to what the networks see, and back; stored with every data set and every pipeline."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor

from savae_dist.origin import DECODER, Origin, Resize, check_decoder, origin_entry, origin_of

Kind = Literal["image", "signal"]
Normalise = Literal["unit", "window", "dataset", "none"]

MIN_STD = 1e-6  # smallest divisor: a constant window (a dead sensor) becomes zeros, not NaN


@dataclass(frozen=True)
class Pictures:
    """How a picture of any size becomes a sample: upright as its EXIF says, opaque on black, and of one form.

    size: (height, width). resize: `crop` takes the largest centred part of these proportions, `pad` puts the whole
        picture on black, `stretch` changes its proportions.
    mode: `gray` or `rgb`.
    bits: 8, to which deeper pictures are scaled, or 16 (8-bit ones times 257).
    range: the values that become 0 and 1, all others are clipped; None: all that the bits can hold.
    decoder: the version of the function that does it, so that nobody reads pictures in another way than was trained.
    """

    size: tuple[int, int]
    resize: Resize = "crop"
    mode: Literal["gray", "rgb"] = "rgb"
    bits: int = 8
    range: tuple[float, float] | None = None
    decoder: int = DECODER

    def __post_init__(self) -> None:
        for name in ("size", "range"):  # JSON gives lists
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(value))
        check_decoder(self.decoder)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the stored layout."""
        return self.size if self.mode == "gray" else (*self.size, 3)

    @property
    def channels_first(self) -> tuple[int, int, int]:
        """As the networks see it."""
        return (1 if self.mode == "gray" else 3, *self.size)


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
    pictures: of images, how they were made from pictures of other forms; None: they were of this one.
    origin: how these were made from files when the set was packed; None: by nothing but decoding.
    attributes: names of the columns of `Batch.attributes`.
    """

    kind: Kind
    shape: tuple[int, ...]
    classes: int
    normalise: Normalise
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    rate: float = 0.0
    class_names: tuple[str, ...] = ()
    pictures: Pictures | None = None
    attributes: tuple[str, ...] = ()
    origin: Origin | None = None

    def __post_init__(self) -> None:
        for name in ("shape", "mean", "std", "class_names", "attributes"):  # JSON gives lists
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
        if self.pictures is not None and self.shape != self.pictures.channels_first:
            raise ValueError(f"pictures become {self.pictures.channels_first}, and the samples are {self.shape}")

    def renamed(self, other: DataSpec) -> tuple[int, str, str] | None:
        """The first class that this and `other` name differently: its number, the name here, the name there."""
        pairs = zip(self.class_names, other.class_names, strict=False)
        return next(((number, *names) for number, names in enumerate(pairs) if names[0] != names[1]), None)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        pictures = values.get("pictures")
        origin = origin_of(values["kind"], values.get("origin"))
        return cls(**{**values, "pictures": pictures and Pictures(**pictures), "origin": origin})

    def to_dict(self) -> dict[str, Any]:
        later = ("pictures", "attributes")  # left out where empty, so that older files stay the same
        values = {name: value for name, value in asdict(self).items() if value or name not in later}
        return {**{name: value for name, value in values.items() if name != "origin"}, **origin_entry(self.origin)}

    @property
    def limits(self) -> tuple[float, float]:
        """The stored values of an image that become 0 and 1."""
        if self.pictures is None:
            return 0.0, 255.0
        return self.pictures.range or (0.0, float(2**self.pictures.bits - 1))

    @property
    def pixels(self) -> torch.dtype:
        """The type of a stored image's values."""
        return torch.uint8 if self.pictures is None or self.pictures.bits == 8 else torch.uint16


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
    """Raw samples as stored (uint8 or uint16 images, windows in their own unit) to float32 `[n, *spec.shape]`."""
    x = with_channels(x, spec)
    if spec.normalise == "unit":
        if x.dtype != spec.pixels:
            raise ValueError(f"images are {str(spec.pixels).removeprefix('torch.')} here, not {x.dtype}")
        low, high = spec.limits
        if (low, high) == (0, 255):
            return x.float() / 255
        return ((x.float() - low) / (high - low)).clamp(0, 1)
    x = x.float()
    if spec.normalise == "window":
        std, mean = torch.std_mean(x, dim=-1, keepdim=True, correction=0)
        return (x - mean) / std.clamp_min(MIN_STD)
    if spec.normalise == "dataset":
        mean, std = (x.new_tensor(v)[:, None] for v in (spec.mean, spec.std))
        return (x - mean) / std.clamp_min(MIN_STD)
    return x


def denormalise(x: Tensor, spec: DataSpec) -> Tensor:
    """Network output back to the stored layout: images `[n, h, w(, c)]`, windows `[n, l]` or `[n, c, l]`.

    With `normalise=window` the level and scale of the original are gone: windows stay normalised.
    """
    if spec.normalise == "unit":
        low, high = spec.limits
        x = (x * (high - low) + low).round().clamp(0.0, 2.0 ** torch.iinfo(spec.pixels).bits - 1).to(spec.pixels)
        return x[:, 0] if spec.shape[0] == 1 else rearrange(x, "n c h w -> n h w c")
    if spec.normalise == "dataset":
        mean, std = (x.new_tensor(v)[:, None] for v in (spec.mean, spec.std))
        x = x * std.clamp_min(MIN_STD) + mean
    return x[:, 0] if spec.shape[0] == 1 else x
