"""What the axes of an array mean: other frameworks put channels elsewhere, and a square may be an image or a window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from savae_dist.errors import BadSample, ConfigError

Kind = Literal["", "images", "signals"]
COLOURS = (1, 3)
LAYERS = (1, 3, 4)  # channels that the images of another writer's tar may have in front
MANY = 16  # images with more channels are refused
CHANNELS = 32  # signals with more are refused, unless `kind` says that they are signals
SQUARE = 8  # with more channels than this, a window must be at least so many times as long as it has channels


@dataclass(frozen=True)
class Reading:
    """How the samples of an array are read: `apply` turns one into pixels or a window; told: how, in words, or ""."""

    apply: Callable[[np.ndarray], np.ndarray]
    told: str = ""


def read_axes(
    dtype: np.dtype, shape: tuple[int, ...], kind: Kind = "", limits: tuple[float, float] | None = None
) -> Reading:
    """How to read samples of that dtype and shape; ConfigError where that could mean several things.

    Pixels are uint8, bool or other integers but int16, windows are floats or int16; kind: what they are, where that is
    not so. limits: the values that become black and white.
    """
    pixels = kind == "images" or (not kind and dtype.kind in "biu" and dtype.newbyteorder("=") != np.int16)
    if pixels and len(shape) in (2, 3):
        return _image(dtype, shape, limits)
    if not pixels and dtype.kind in "fiu" and len(shape) in (1, 2):
        return _window(shape, kind)
    shown = "x".join(map(str, shape))
    if len(shape) == 3 and dtype.kind == "f":
        raise ConfigError(f"samples are {dtype} {shown}: images? say so: --kind images --range LOW,HIGH")
    raise ConfigError(f"samples are {dtype} {shown}; give uint8 or bool images, or float or int16 windows")


def form(dtype: np.dtype, shape: tuple[int, ...]) -> str:
    """`float32 3x32x32`, for messages."""
    return f"{dtype.name} {'x'.join(map(str, shape)) or 'single value'}"


def channels_first(dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    """Whether pixels of that shape can only be [channels, h, w]."""
    return dtype == np.uint8 and len(shape) == 3 and shape[0] in LAYERS and shape[2] not in LAYERS


def channels_last(x: np.ndarray) -> np.ndarray:
    """A sample of another writer's array with its channels where they are stored: of images last, of windows first.

    BadSample where it would have more channels than pixels or values: then the axes mean something else.
    """
    if channels_first(x.dtype, x.shape):
        return np.ascontiguousarray(np.moveaxis(x, 0, -1))
    pixels = x.dtype == np.uint8 and x.ndim == 3 and x.shape[2] not in LAYERS
    if pixels and (x.shape[2] > MANY or x.shape[2] >= min(x.shape[:2])):
        raise BadSample("shape", f"{form(x.dtype, x.shape)}: an image of {x.shape[2]} channels? Put them last")
    if x.dtype == np.float32 and x.ndim == 2 and x.shape[0] > x.shape[1]:
        raise BadSample("shape", f"{form(x.dtype, x.shape)}: a window of {x.shape[0]:,} channels? Put the time last")
    return x


def _image(dtype: np.dtype, shape: tuple[int, ...], limits: tuple[float, float] | None) -> Reading:
    if dtype.kind == "f" and limits is None:
        raise ConfigError("pixels are floats: say which values are black and white: --range 0,1")
    low, high = limits or (0.0, 255.0)
    plain = dtype in (np.uint8, np.bool_) and limits is None
    values = _same if plain else _Scaled(low, high, exact=limits is None)
    told = "" if plain else f"{dtype} pixels, {low:g} is black and {high:g} white"
    if len(shape) == 2 or shape[2] in COLOURS:
        return Reading(values, told)
    if shape[0] in COLOURS:
        turned = f"channels stand first ({shape[0]}x{shape[1]}x{shape[2]}) and were put last"
        return Reading(_Turned(values), "; ".join(filter(None, [told, turned])))
    if shape[2] > MANY or shape[2] >= min(shape[:2]):
        raise ConfigError(f"images are {'x'.join(map(str, shape))}: of {shape[2]} channels? Put the channels last")
    return Reading(values, "; ".join(filter(None, [told, f"images have {shape[2]} channels"])))


def _window(shape: tuple[int, ...], kind: Kind) -> Reading:
    if len(shape) == 1:
        return Reading(_same)
    shown, (first, last) = "x".join(map(str, shape)), shape
    if last == 1 and first > 1:
        return Reading(_flat, f"windows stand as [length, 1] ({shown})")
    if not kind and min(shape) > SQUARE and max(shape) < SQUARE * min(shape):
        raise ConfigError(
            f"samples are {shown} floats: images, or windows of {min(shape)} channels? "
            "--kind images --range LOW,HIGH, or --kind signals"
        )
    if first <= last:
        return Reading(_same)
    if last > CHANNELS and not kind:
        raise ConfigError(f"windows are {shown}: of {first} or of {last} channels? Put the time last")
    return Reading(np.transpose, f"windows stand as [length, channels] ({shown}) and were turned")


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _flat(x: np.ndarray) -> np.ndarray:
    return x[:, 0]


@dataclass(frozen=True)
class _Turned:
    """[channels, h, w] to [h, w, channels]."""

    values: Callable[[np.ndarray], np.ndarray]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.moveaxis(self.values(x), 0, -1))


@dataclass(frozen=True)
class _Scaled:
    """Values from `low` to `high` as 0 to 255, to the nearest; BadSample where one lies outside.

    exact: they are integers from 0 to 255 already.
    """

    low: float
    high: float
    exact: bool

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"--range {self.low:g},{self.high:g}: the first must be less than the second")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if not (np.isfinite(x).all() and x.min() >= self.low and x.max() <= self.high):
            raise BadSample("range")
        if self.exact:
            return x.astype(np.uint8)
        return np.round((x.astype(np.float64) - self.low) * (255 / (self.high - self.low))).astype(np.uint8)
