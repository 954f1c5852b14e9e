"""Raw samples to what the networks see, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from savae_dist.preprocess import MIN_STD, DataSpec, denormalise, normalise, with_channels

GRAY = DataSpec("image", (1, 4, 6), 3, "unit")
COLOUR = DataSpec("image", (3, 4, 6), 3, "unit")
MONO = DataSpec("signal", (1, 50), 3, "window", rate=12_000.0)
STEREO = DataSpec("signal", (2, 50), 3, "window")
DATASET = DataSpec("signal", (2, 50), 3, "dataset", (10.0, -1.0), (2.0, 0.5))


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 3 + 100


# Images.


@pytest.mark.parametrize("spec", [GRAY, COLOUR], ids=["gray", "colour"])
def test_every_pixel_value_comes_back(spec: DataSpec) -> None:
    tail = (4, 6) if spec is GRAY else (4, 6, 3)
    x = (torch.arange(256)[:, None] + torch.arange(torch.Size(tail).numel())).to(torch.uint8).reshape(256, *tail)
    seen = normalise(x, spec)
    assert seen.shape == (256, *spec.shape)
    assert seen.dtype == torch.float32
    assert (seen.min().item(), seen.max().item()) == (0.0, 1.0)
    assert torch.equal(denormalise(seen, spec), x)


def test_a_pixel_is_a_255th() -> None:
    x = torch.tensor([0, 51, 255], dtype=torch.uint8).repeat(8).reshape(1, 4, 6)
    assert normalise(x, GRAY).flatten()[:3].tolist() == pytest.approx([0, 0.2, 1])


def test_channels_come_first() -> None:
    x = torch.randint(0, 256, (2, 4, 6, 3), dtype=torch.uint8)
    assert torch.equal(normalise(x, COLOUR)[1, 2], x[1, :, :, 2] / 255)


def test_images_out_of_range_are_cut() -> None:
    x = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.7, 100.0]).repeat(4).reshape(1, 1, 4, 6)
    assert denormalise(x, GRAY).flatten()[:6].tolist() == [0, 0, 128, 255, 255, 255]


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.bool])
def test_images_of_another_type_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match="images are uint8 here"):
        normalise(torch.zeros(2, 4, 6).to(dtype), GRAY)


# Signals.


@pytest.mark.parametrize("spec", [MONO, STEREO], ids=["mono", "stereo"])
def test_window(spec: DataSpec) -> None:
    """Each window and channel to mean 0 and (population) deviation 1."""
    x = draw(5, 50) if spec is MONO else draw(5, 2, 50)
    seen = normalise(x, spec)
    raw = x.double().reshape(5, *spec.shape)
    centred = raw - raw.mean(-1, keepdim=True)
    assert torch.allclose(seen.double(), centred / centred.square().mean(-1, keepdim=True).sqrt(), atol=1e-4)
    assert torch.equal(denormalise(seen, spec), seen.reshape(x.shape))  # level and scale are gone


@pytest.mark.parametrize("value", [0.0, 0.1, 1000.1, -123456.7, 3.3e7])
def test_a_dead_sensor_gives_zeros(value: float) -> None:
    assert torch.equal(normalise(torch.full((3, 50), value), MONO), torch.zeros(3, 1, 50))
    flat = replace(DATASET, mean=(value, value), std=(0.0, 0.0))
    assert torch.equal(normalise(torch.full((3, 2, 50), value), flat), torch.zeros(3, 2, 50))


def test_a_faint_signal_is_still_one() -> None:
    """MIN_STD is a limit, not an addend."""
    x = torch.tensor([1.0, -1.0]).repeat(25)[None] * 2 * MIN_STD
    assert torch.allclose(normalise(x, MONO).abs(), torch.ones(1, 1, 50))


def test_dataset_statistics() -> None:
    x = draw(5, 2, 50)
    seen = normalise(x, DATASET)
    assert torch.allclose(seen[:, 0], (x[:, 0] - 10) / 2)
    assert torch.allclose(seen[:, 1], (x[:, 1] + 1) / 0.5)
    assert torch.allclose(denormalise(seen, DATASET), x, atol=1e-4)


def test_a_dead_channel_of_a_data_set_comes_back() -> None:
    spec = replace(DATASET, mean=(7.0, 0.0), std=(0.0, 1.0))
    x = torch.full((3, 2, 50), 7.0)
    assert torch.allclose(denormalise(normalise(x, spec), spec), x)


def test_none_leaves_values_alone() -> None:
    spec = replace(STEREO, normalise="none")
    x = draw(5, 2, 50)
    assert torch.equal(normalise(x, spec), x)
    assert torch.equal(denormalise(x, spec), x)


def test_integers_are_a_signal_too() -> None:
    seen = normalise(torch.arange(50, dtype=torch.int16)[None], replace(MONO, normalise="none"))
    assert seen.dtype == torch.float32
    assert torch.equal(seen.flatten(), torch.arange(50).float())


def test_a_batch_without_samples() -> None:
    """A rank's part of a short last batch may be empty."""
    assert normalise(torch.empty(0, 50), replace(MONO, normalise="none")).shape == (0, 1, 50)
    assert normalise(torch.empty(0, 4, 6, dtype=torch.uint8), GRAY).shape == (0, 1, 4, 6)


# Layouts.


@pytest.mark.parametrize(
    ("spec", "stored"),
    [(GRAY, (4, 6)), (GRAY, (4, 6, 1)), (COLOUR, (4, 6, 3)), (MONO, (50,)), (MONO, (1, 50)), (STEREO, (2, 50))],
)
def test_stored_layouts(spec: DataSpec, stored: tuple[int, ...]) -> None:
    assert with_channels(torch.zeros(7, *stored), spec).shape == (7, *spec.shape)


@pytest.mark.parametrize(
    ("spec", "stored"),
    [
        *[(GRAY, shape) for shape in ((6, 4), (4,))],
        *[(COLOUR, shape) for shape in ((4, 6), (3, 4, 6))],
        *[(MONO, shape) for shape in ((51,), (2, 50))],
        (STEREO, (50,)),
    ],
)
def test_other_shapes_are_refused(spec: DataSpec, stored: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit") as caught:
        normalise(torch.zeros(7, *stored, dtype=torch.uint8), spec)
    assert "\n" not in str(caught.value)


# The description.


@pytest.mark.parametrize("spec", [GRAY, MONO, DATASET, replace(COLOUR, class_names=("a", "ö", "c"))])
def test_json_round_trip(spec: DataSpec) -> None:
    again = DataSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert again == spec
    assert hash(again) == hash(spec)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "sound"}, "kind must be image or signal"),
        ({"shape": (1, 2, 50)}, "cannot have the shape"),
        ({"kind": "image", "normalise": "unit"}, "cannot have the shape"),
        ({"normalise": "unit"}, "does not fit signals"),
        ({"kind": "image", "shape": (1, 4, 6)}, "does not fit images"),
        ({"normalise": "dataset"}, "one mean and one std per channel"),
        ({"normalise": "dataset", "mean": (0.0, 0.0), "std": (1.0,)}, "one mean and one std per channel"),
        ({"normalise": "windows"}, "normalise"),
        ({"normalise": None}, "normalise"),
    ],
)
def test_impossible_descriptions_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(STEREO, **changes)
