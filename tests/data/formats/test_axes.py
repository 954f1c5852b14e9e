"""Which axis is what: the orders of other frameworks are turned and told, what could mean two things is refused."""

from __future__ import annotations

import numpy as np
import pytest

from savae_dist.data.formats.axes import read_axes
from savae_dist.errors import BadSample, ConfigError

RNG = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def window(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("x", "expected", "told"),
    [
        (pixels(28, 28), lambda x: x, ""),
        (pixels(28, 28, 3), lambda x: x, ""),
        (pixels(28, 28, 1), lambda x: x, ""),
        (pixels(3, 32, 32), lambda x: x.transpose(1, 2, 0), "channels stand first (3x32x32) and were put last"),
        (pixels(1, 28, 28), lambda x: x.transpose(1, 2, 0), "channels stand first (1x28x28) and were put last"),
        (pixels(28, 28, 5), lambda x: x, "images have 5 channels"),
        (pixels(28, 28).astype(np.int64), lambda x: x, "int64 pixels, 0 is black and 255 white"),
        (window(1024), lambda x: x, ""),
        (window(2, 1024), lambda x: x, ""),
        (window(1024, 2), lambda x: x.T, "windows stand as [length, channels] (1024x2) and were turned"),
        (window(1024, 1), lambda x: x[:, 0], "windows stand as [length, 1] (1024x1)"),
        (window(1024).astype(np.int16), lambda x: x, ""),
    ],
    ids=lambda value: "x".join(map(str, value.shape)) if isinstance(value, np.ndarray) else "",
)
def test_orders(x, expected, told):
    reading = read_axes(x.dtype, x.shape)
    made = reading.apply(x)
    wanted = np.ascontiguousarray(expected(x))
    assert made.shape == wanted.shape
    np.testing.assert_array_equal(made, wanted)
    assert reading.told == told


@pytest.mark.parametrize(
    ("dtype", "shape", "kind", "message"),
    [
        ("f4", (28, 28), "", "samples are 28x28 floats: images, or windows of 28 channels"),
        ("f4", (32, 32, 3), "", "images? say so: --kind images --range LOW,HIGH"),
        ("f4", (28, 28), "images", "say which values are black and white: --range 0,1"),
        ("f4", (1024, 40), "", "of 1024 or of 40 channels"),
        ("u1", (3, 4, 32), "", None),
        ("u1", (2, 32, 32), "", "of 32 channels"),
        ("i4", (4,), "", "samples are int32 4; give uint8"),
        ("f4", (2, 3, 4, 5), "", "give uint8 or bool images"),
        ("c8", (64,), "", "samples are complex64"),
    ],
)
def test_what_could_mean_two_things_is_refused(dtype, shape, kind, message):
    if message is None:
        assert read_axes(np.dtype(dtype), shape, kind).told.startswith("channels stand first")
        return
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        read_axes(np.dtype(dtype), shape, kind)


def test_ranges_become_pixels_and_nothing_is_clipped():
    reading = read_axes(np.dtype("f4"), (2, 2), "images", (-1.0, 1.0))
    assert reading.told == "float32 pixels, -1 is black and 1 white"
    x = np.array([[-1, 1], [0, 0.5]], np.float32)
    assert reading.apply(x).tolist() == [[0, 255], [128, 191]]
    with pytest.raises(BadSample, match="range"):
        reading.apply(x * 1.01)
    twelve = read_axes(np.dtype("u2"), (1, 3), "", (0.0, 4095.0))
    assert twelve.apply(np.array([[0, 4095, 2048]], np.uint16)).tolist() == [[0, 255, 128]]
    with pytest.raises(BadSample, match="range"):
        read_axes(np.dtype("i8"), (1, 1)).apply(np.array([[256]]))
    with pytest.raises(ConfigError, match="the first must be less"):
        read_axes(np.dtype("u2"), (1, 1), "", (1.0, 1.0))
