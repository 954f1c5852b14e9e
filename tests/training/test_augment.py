"""Augmentation: each operation against its closed form, and the draws against slices, steps and interruptions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import SMALL, cut, shards, weights
from torch import Tensor

from savae_dist.config.identity import digest, identity
from savae_dist.data import Order, Reader, Shards, pack
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import normalise
from savae_dist.run.training_data import TrainingData
from savae_dist.run.validation import Validation
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import CPU, IMAGE, SIGNAL, Samples, SmallRun, same
from savae_dist.train import main
from savae_dist.training import augment
from savae_dist.training.augment import OPERATIONS, Augmentation
from savae_dist.training.batch_norm import recalibrate
from savae_dist.training.batches import BatchBuilder, BatchSplit, training_plan

N = 500
SPECS = {"image": IMAGE, "signal": SIGNAL}
ALL = {kind: {name: 0.3 for name, o in OPERATIONS.items() if o.kind == kind} for kind in SPECS}


def drawn(*shape: int) -> Tensor:
    return torch.rand(N, *shape, generator=torch.Generator().manual_seed(1))


def of(u: list[float], width: int) -> Tensor:
    """The same draws for every sample."""
    return torch.tensor(u).expand(N, width)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(N, 2, 20, 10, generator=torch.Generator().manual_seed(2)) + 0.1  # nothing is black yet


@pytest.fixture
def windows() -> Tensor:
    return torch.randn(N, 2, 50, generator=torch.Generator().manual_seed(3)) + 10


# Images.


@pytest.mark.parametrize(("u", "by"), [((0, 0), (-4, -2)), ((0.5, 0.5), (0, 0)), ((1, 1), (4, 2)), ((0, 1), (-4, 2))])
def test_shift_is_roll_with_zeros_for_what_comes_in(u: list[float], by: tuple[int, int], images: Tensor) -> None:
    expected = images.roll(by, (2, 3))
    for dim, moved in zip((2, 3), by, strict=True):
        if moved:
            expected.narrow(dim, 0 if moved > 0 else expected.shape[dim] + moved, abs(moved)).zero_()
    assert torch.equal(augment.shift(images, of(u, 2), 0.2), expected)


def test_shifts_are_equally_likely(images: Tensor) -> None:
    """-2 .. 2 columns, of the sides of an image that is one bright pixel."""
    images.zero_()[:, :, 10, 5] = 1
    where = augment.shift(images, drawn(2), 0.2)[:, 0].sum(1).argmax(1)
    assert torch.bincount(where, minlength=10)[3:8].sum() == N
    assert torch.bincount(where)[3:8].min() > 0.7 * N / 5


def test_flip_mirrors_and_leaves_the_others_alone(images: Tensor) -> None:
    u = drawn()
    y = augment.flip(images, u, 0.25)
    flipped = u < 0.25
    assert 0.15 * N < flipped.sum() < 0.35 * N
    assert torch.equal(y[flipped], images[flipped].flip(-1))
    assert torch.equal(y[~flipped], images[~flipped])
    assert torch.equal(augment.flip(y, u, 0.25), images)


def test_cutout_is_one_black_box_of_its_area(images: Tensor) -> None:
    y = augment.cutout(images, drawn(2), 0.3)
    black = y == 0
    assert (black.sum((1, 2, 3)) == 2 * 6 * 3).all()
    assert torch.equal(y[~black], images[~black])
    assert torch.equal(black[:, 0], black[:, 1])
    assert (black[:, 0].any(1).sum(1) == 3).all()
    assert (black[:, 0].any(2).sum(1) == 6).all()
    assert black.any(0).all()  # every place is hit, the corners too


@pytest.mark.parametrize("u", [(0.0, 0.3, 0.9), (1.0, 0.0, 1.0), (0.6, 0.5, 0.5), (1.0, 1.0, 0.25)])
def test_crop_of_a_ramp_is_a_flatter_ramp_of_the_same_size(u: tuple[float, float, float]) -> None:
    height, width, strength = 20, 10, 0.4
    rows, columns = torch.arange(20.0)[:, None].expand(20, 10), torch.arange(10.0).expand(20, 10)
    ramps = torch.stack([rows, columns]).expand(N, 2, 20, 10)
    y = augment.crop(ramps, of(u, 3), strength)
    share = 1 - strength * u[0]
    for channel, (side, place) in enumerate(((height, u[2]), (width, u[1]))):
        # Pixel centres of the box, in the pixels of the image; a box that ends at its edge ends at its last centre.
        line = (side * (1 - share) * place + share * (torch.arange(side) + 0.5) - 0.5).clamp(0, side - 1)
        expected = line[:, None].expand(20, 10) if channel == 0 else line.expand(20, 10)
        torch.testing.assert_close(y[:, channel], expected.expand(N, 20, 10), atol=1e-4, rtol=0)


def test_crop_of_nothing_is_the_image_and_stays_in_its_range(images: Tensor) -> None:
    torch.testing.assert_close(augment.crop(images, of([0, 0.2, 0.7], 3), 0.5), images)
    y = augment.crop(images, drawn(3), 0.5)
    assert y.shape == images.shape
    assert images.min() - 1e-6 <= y.min()
    assert y.max() <= images.max() + 1e-6


def test_resized_crop_changes_area_and_proportions_within_the_image() -> None:
    """Of a ramp it gives a ramp, which tells the box: its sides, its area and its proportions."""
    n, height, width, strength = 400, 64, 48, 0.5
    rows, columns = torch.arange(64.0)[:, None].expand(64, 48), torch.arange(48.0).expand(64, 48)
    u = torch.rand(n, 4, generator=torch.Generator().manual_seed(0))
    u[0], u[1] = 0, 1
    y = augment.resized_crop(torch.stack([rows, columns]).expand(n, 2, 64, 48), u, strength)
    # In the middle, which no edge cuts: what one pixel is worth there is the box's share of the side.
    tall = y[:, 0, 33, 20] - y[:, 0, 32, 20]
    wide = y[:, 1, 20, 25] - y[:, 1, 20, 24]
    torch.testing.assert_close(tall * wide, 1 - strength * u[:, 0], atol=1e-3, rtol=0)
    ratio = wide / tall
    assert (ratio >= 3 / 4 - 1e-3).all()
    assert (ratio <= 4 / 3 + 1e-3).all()
    assert (torch.maximum(tall, wide) <= 1 + 1e-4).all()
    assert ratio.max() > 1.2 and ratio.min() < 0.83  # noqa: PT018
    top = y[:, 0, 32, 20] - (32.5 - height / 2) * tall - (height / 2) * tall + 0.5  # where the box begins
    torch.testing.assert_close(top, height * (1 - tall) * u[:, 3], atol=0.05, rtol=0)
    left = y[:, 1, 20, 24] - (width / 2 + 0.5) * wide + 0.5
    torch.testing.assert_close(left, width * (1 - wide) * u[:, 2], atol=0.05, rtol=0)
    same = augment.resized_crop(torch.rand(3, 1, 9, 9), torch.tensor([[0, 0.5, 0.1, 0.9]] * 3), 0.5)
    assert same.shape == (3, 1, 9, 9)


# Signals.


@pytest.mark.parametrize(("u", "by"), [(0.0, -10), (0.5, 0), (1.0, 10), (0.6, 2)])
def test_time_shift_is_roll(u: float, by: int, windows: Tensor) -> None:
    y = augment.time_shift(windows, torch.full((N,), u), 0.2)
    assert torch.equal(y, windows.roll(by, 2))
    torch.testing.assert_close(torch.fft.rfft(y).abs(), torch.fft.rfft(windows).abs(), atol=1e-3, rtol=1e-4)


def test_jitter_has_its_deviation(windows: Tensor) -> None:
    normal = torch.randn(windows.shape, generator=torch.Generator().manual_seed(4))
    added = augment.jitter(windows.double(), normal, 0.05) - windows
    assert float(added.std()) == pytest.approx(0.05, rel=0.02)
    assert abs(float(added.mean())) < 0.001


def test_scaling_is_one_factor_per_window_and_channel(windows: Tensor) -> None:
    factors = augment.scaling(windows, drawn(2), 0.2) / windows
    torch.testing.assert_close(factors, factors[..., :1].expand_as(factors))
    assert torch.equal(augment.scaling(windows, of([0, 1], 2), 0.5)[0], windows[0] * torch.tensor([[0.5], [1.5]]))
    assert 0.8 <= factors.min() < 0.81
    assert 1.19 < factors.max() <= 1.2001


def test_masking_is_one_run_of_zeros_in_all_channels(windows: Tensor) -> None:
    y = augment.masking(windows, drawn(), 0.1)
    gone = y == 0
    assert (gone.sum(2) == 5).all()
    assert torch.equal(gone[:, 0], gone[:, 1])
    assert (gone[:, 0].int().diff(dim=1).abs().sum(1) <= 2).all()
    assert torch.equal(y[~gone], windows[~gone])
    assert gone.any(0).all()


EIGHT = torch.arange(8)


def builder(augmentation: Augmentation, seed: int = 5, split: BatchSplit | None = None) -> BatchBuilder:
    return BatchBuilder(split or BatchSplit(8), CPU, lambda x: x, seed, augmentation)


# All of them.


@pytest.mark.parametrize("name", OPERATIONS)
def test_strength_zero_is_the_identity_to_the_bit(name: str) -> None:
    spec = SPECS[OPERATIONS[name].kind]
    data, augmentation = Samples(spec), Augmentation({name: 0.0}, spec)
    assert augmentation.noise == {}
    assert augmentation(data.x, {}) is data.x
    assert builder(augmentation).augmentation_noise(0, EIGHT) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPERATIONS)
def test_shape_type_and_range_stay_and_samples_do_not_mix(name: str, dtype: torch.dtype) -> None:
    spec = SPECS[OPERATIONS[name].kind]
    x, augmentation = Samples(spec, dtype=dtype).x, Augmentation({name: 0.3}, spec)
    draws = {k: torch.randn(len(x), *shape) for k, shape in augmentation.noise.items()}
    before = x.clone()
    y = augmentation(x, draws)
    assert torch.equal(x, before)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    assert not torch.equal(x, y)
    if spec is IMAGE:
        assert y.min() >= -1e-6
        assert y.max() <= 1 + 1e-6
    half = augmentation(x[::2], {k: v[::2] for k, v in draws.items()})
    assert torch.equal(half, y[::2])


@pytest.mark.parametrize("name", OPERATIONS)
def test_extreme_draws_and_small_samples_are_harmless(name: str) -> None:
    """ndtr gives exactly 0 and 1 out there; a strength is never less than a pixel."""
    operation = OPERATIONS[name]
    spec = replace(SPECS[operation.kind], shape=(1, 1, 2) if operation.kind == "image" else (1, 2))
    for strength in (1e-3, 0.999):
        augmentation = Augmentation({name: strength}, spec)
        for draw in (-40.0, 40.0):
            draws = {k: torch.full((3, *shape), draw) for k, shape in augmentation.noise.items()}
            y = augmentation(torch.rand(3, *spec.shape), draws)
            assert y.shape == (3, *spec.shape)
            assert y.isfinite().all()


# In a run.


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (4, 1), (2, 2)])
def test_slices_are_the_global_batch(kind: str, ranks: int, accumulate: int) -> None:
    spec = SPECS[kind]
    data, augmentation, phase = Samples(spec), Augmentation(ALL[kind], spec), SAVAE().phases()[0]
    reference = builder(augmentation).batch(data.raw(16, 8, range(8)), 16).x
    assert not torch.equal(reference, data.raw(16, 8, range(8)).x)
    found = {}
    for rank in range(ranks):
        part = builder(augmentation, split=BatchSplit(8, rank, ranks, accumulate))
        for raw in data.stream(training_plan(phase, part.split, first=2, last=3, origin=0), 8):
            found |= dict(zip(raw.slot.tolist(), part.batch(raw, 16).x, strict=True))
    assert all(torch.equal(found[i], reference[i]) for i in range(8))


def test_draws_are_a_function_of_seed_position_and_name() -> None:
    augmentation = Augmentation(ALL["image"], IMAGE)
    one, other = builder(augmentation, seed=1), builder(augmentation, seed=2)
    a = one.augmentation_noise(16, EIGHT)
    assert {name: tuple(v.shape) for name, v in a.items()} == {
        "crop": (8, 3),
        "resized_crop": (8, 4),
        "flip": (8,),
        "shift": (8, 2),
        "blur": (8,),
        "noise": (8, 121),
        "cutout": (8, 2),
    }
    assert same(a, one.augmentation_noise(16, EIGHT))
    assert not torch.equal(a["shift"], a["cutout"])
    for different in (one.augmentation_noise(24, EIGHT), other.augmentation_noise(16, EIGHT)):
        assert not torch.equal(a["shift"], different["shift"])
    alone = Augmentation({"shift": 0.1}, IMAGE)  # nor does one operation depend on the others
    assert torch.equal(builder(alone, seed=1).augmentation_noise(16, EIGHT)["shift"], a["shift"])


@pytest.mark.parametrize("batches", ["shared", "fresh"])
def test_steps_on_one_batch_see_the_same_samples(batches: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Algorithm 2's critic and decoder are about the same X where they share it; fresh batches are varied afresh."""
    system = SAVAE(latent_dim=3, batches=batches)
    trainer = SmallRun(system)
    trainer.data.x[:] = trainer.data.x[0]  # so that samples differ by their variation alone
    trainer.builder = replace(trainer.builder, augment=Augmentation(ALL["image"], IMAGE))
    seen: dict[str, list[Tensor]] = {}
    for name in ("critic_real_loss", "critic_generated_loss", "decoder_loss"):
        loss = SAVAE.__dict__[name]
        monkeypatch.setattr(
            SAVAE, name, lambda *a, n=name, f=loss: seen.setdefault(n, []).append(a[2].x) or f(*a), raising=True
        )
    trainer.phases = {phase.name: phase for phase in system.phases()}
    trainer.run("decoder", 2)
    first, second, third = seen.values()
    assert all(len(x) == 2 and not torch.equal(*x) for x in seen.values())
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.equal(a, b) == torch.equal(b, c) == (batches == "shared")


@pytest.mark.parametrize("beta", [0.0, 0.01])
def test_an_inactive_update_keeps_its_place(beta: float) -> None:
    """The decoder's batches are varied in the same way whether or not the critic learns."""
    phase = SAVAE(beta=beta).phases()[1]
    plan = training_plan(phase, BatchSplit(8), first=3, last=4, origin=0)
    assert [planned.position for planned in plan if planned.step.update.name == "decoder"] == [88]


def test_surveys_and_validation_see_the_samples_as_they_are(tmp_path: Path) -> None:
    data = Shards.open(shards(tmp_path / "shards"))
    reader = Reader(data, Order(data.counts, 0, 8, 16), bad_budget=0)
    builders = [
        BatchBuilder(BatchSplit(16), CPU, lambda x: normalise(x, data.spec), 1, augmentation)
        for augmentation in (None, Augmentation(ALL["image"], data.spec))
    ]
    plan = SAVAE().phases()[0].recalibrate
    assert plan is not None
    measured = []
    for each in builders:
        training = TrainingData(reader, each)
        validation = Validation(data, training, None)
        torch.manual_seed(0)
        networks = SAVAE().build(data.spec, 4, "batch", 2)
        recalibrate(plan, networks, training.survey(), each)
        pipeline = Pipeline({name: networks[name].eval() for name in SAVAE().pipeline}, data.spec)
        measured.append((validation.measure(pipeline), validation.class_means, networks["classifier"].state_dict()))
    (plain, means, norms), (augmented, other_means, other_norms) = measured
    assert plain == augmented
    assert same(means.sums, other_means.sums)
    assert same(norms, other_norms)


ON = [f"data.augment.{name}={strength}" for name, strength in ALL["image"].items()]
STEPS = ["system.vec_steps=3", "system.decoder_steps=3", "checkpoint_every=2", "keep_checkpoints=9"]


def test_interrupted_equals_uninterrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, whole = shards(tmp_path / "shards"), tmp_path / "whole"
    arguments = [*SMALL, *STEPS, f"data.train={data}", f"data.validation={data}"]
    assert main([*arguments, *ON, f"output={whole}"]) == 0
    for kept in (2, 5):  # within each phase
        output = tmp_path / f"run{kept}"
        cut(whole, output, kept)
        assert main([*arguments, *ON, f"output={output}"]) == 0
        ours, theirs = weights(output), weights(whole)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)

    plain = tmp_path / "plain"
    assert main([*arguments, f"output={plain}"]) == 0
    assert any(not np.array_equal(value, weights(whole)[key]) for key, value in weights(plain).items())
    capsys.readouterr()
    for output, there, asked, change in ((whole, 0.3, None, []), (plain, None, 0.3, ON)):  # another run either way
        assert main([*arguments, *change, f"output={output}"]) == 76
        assert f"was trained with data.augment.blur={there}, not {asked}" in capsys.readouterr().err


def test_for_the_other_kind_of_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    pack(x, np.arange(40) % 2, tmp_path / "shards")
    data = [f"data.train={tmp_path / 'shards'}", f"output={tmp_path / 'run'}", *SMALL]
    assert main([*data, "--check", "data.augment.flip=0.5"]) == 2
    error = capsys.readouterr().err.strip()
    assert error == (
        "savae_dist: data.augment.flip is for images and data.train holds signals; "
        "those take time_shift, scaling, jitter, masking"
    )
    assert Shards.open(tmp_path / "shards").spec.kind == "signal"
    assert main([*data, "--check", "data.augment.jitter=0.5"]) == 0


# Configuration.


@pytest.mark.parametrize("preset", ["demo", "mnist_k2", "mnist_k100", "fashion", "caltech", "cwru"])
def test_presets_do_not_augment_and_keep_their_identity(preset: str) -> None:
    config = load([preset])
    assert config.data.augment == {}
    assert not [key for key in identity(config) if "augment" in key]  # so checkpoints from before it go on
    for off in ("data.augment=none", "data.augment.shift=0"):
        assert digest(load([preset, off])) == digest(config)
        assert load([preset, off]).output == config.output
    assert digest(load([preset, "data.augment.shift=0.1"])) != digest(config)


def test_none_in_yaml_and_over_it(tmp_path: Path) -> None:
    off, on = tmp_path / "off.yaml", tmp_path / "on.yaml"
    off.write_text("data: {augment: none}\n")
    on.write_text("data:\n  augment:\n    shift: 0.2\n    flip: 0.5\n")
    assert load([str(off), "seed=1"]).data.augment == {}
    assert load([str(off), "data.augment.crop=0.1"]).data.augment == {"crop": 0.1}
    assert load([str(on), "data.augment.flip=0"]).data.augment == {"shift": 0.2}
    assert load([str(on), "data.augment=none"]).data.augment == {}


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("data.augment.shfit=0.1", ["data.augment.shfit", "'shift'", "masking"]),
        ("data.augment.time_sift=0", ["data.augment.time_sift", "'time_shift'"]),
        ("data.augmnt.shift=0.1", ["data.augmnt", "'augment'"]),
        *[(f"data.augment.{name}=-0.1", [f"data.augment.{name}", "[0, ", "-0.1"]) for name in OPERATIONS],
        *[(f"data.augment.{name}=1", [f"data.augment.{name}", "[0, 1)"]) for name in OPERATIONS if name != "jitter"],
        ("data.augment.jitter=.inf", ["data.augment.jitter"]),
        ("data.augment.flip=.nan", ["data.augment.flip"]),
        ("data.augment.flip=often", ["data.augment.flip", "often"]),
        ("data.augment=off", ["data.augment", "`none`", "False"]),
        ("data.augment=flip", ["data.augment", "`none`", "flip"]),
        ("data.augment=[flip]", ["data.augment", "`none`"]),
        ("data.augment=null", ["data.augment", "`none`"]),
    ],
)
def test_what_cannot_work_is_one_line(argument: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load([argument])
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
