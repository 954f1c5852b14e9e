"""Arrays as others name and shape them: Keras, MedMNIST, one-hot labels, sets by group."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from savae_dist.data.packing.packer import Options, pack_source
from savae_dist.data.packing.sources import Bad, Note, Sample, Source
from savae_dist.data.packing.sources.arrays import Meant, arrays
from savae_dist.data.packing.splits import Splits
from savae_dist.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (30, 8, 8), dtype=np.uint8)
Y = np.arange(30) % 3


def read(source: Source) -> dict[str, list[Sample]]:
    """The samples of each set; there are no others."""
    found: dict[str, list[Sample]] = {}
    for part, split in enumerate(source.splits):
        for item in source.read(part):
            assert isinstance(item, Sample), item
            found.setdefault(split, []).append(item)
    return found


def notes(source: Source) -> list[str]:
    return [f"{note.topic}: {note.text}" for note in source.notes]


@pytest.mark.parametrize(
    "names",
    [
        {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")},
        {"train": ("train_images", "train_labels"), "validation": ("val_images", "val_labels")},
    ],
)
def test_sets_by_the_names_of_keras_and_medmnist(tmp_path: Path, names: dict[str, tuple[str, str]]) -> None:
    held = {}
    for i, (x, y) in enumerate(names.values()):
        held |= {x: IMAGES[i * 10 : i * 10 + 10], y: Y[i * 10 : i * 10 + 10][:, None]}
    np.savez(tmp_path / "a.npz", **held, other=Y)
    source = arrays(tmp_path / "a.npz")
    found = read(source)
    assert list(found) == list(names)
    for i, samples in enumerate(found.values()):
        assert np.stack([one.x for one in samples]).tobytes() == IMAGES[i * 10 : i * 10 + 10].tobytes()
        assert [one.label for one in samples] == Y[i * 10 : i * 10 + 10].tolist()
    assert "passed over: arrays other of a.npz" in notes(source)
    with pytest.raises(ConfigError, match="names its sets itself"):
        arrays(tmp_path / "a.npz", splits=Splits({"test": 0.1}))


def test_arrays_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pictures=IMAGES, digits=Y)
    found = read(arrays(tmp_path / "a.npz", meant=Meant("pictures", "digits")))
    assert [one.label for one in found[""]] == Y.tolist()
    with pytest.raises(DataError, match="holds no array x, but pictures, digits; name one with --x"):
        arrays(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"holds no array z, .* name one with --y"):
        arrays(tmp_path / "a.npz", meant=Meant("pictures", "z"))


def test_labels_that_are_one_hot(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES, y=np.eye(3)[Y])
    source = arrays(tmp_path / "a.npz")
    assert [one.label for one in read(source)[""]] == Y.tolist()
    assert notes(source) == ["understood: labels are one-hot, 3 classes", "labels from: the array y"]
    np.savez(tmp_path / "b.npz", x=IMAGES, y=np.ones((30, 3)))
    with pytest.raises(DataError, match="not one-hot; several labels a sample are no classes"):
        arrays(tmp_path / "b.npz")


def test_turned_axes_are_told_and_stored_as_if_they_had_been_right(tmp_path: Path) -> None:
    colour = RNG.integers(0, 256, (30, 8, 9, 3), dtype=np.uint8)
    np.savez(tmp_path / "last.npz", x=colour, y=Y)
    np.savez(tmp_path / "first.npz", x=colour.transpose(0, 3, 1, 2), y=Y)
    (one,) = pack_source(arrays(tmp_path / "last.npz"), tmp_path / "a")
    (other,) = pack_source(arrays(tmp_path / "first.npz"), tmp_path / "b")
    assert other["understood"] == "channels stand first (3x8x9) and were put last"
    assert "understood" not in one
    for path in (tmp_path / "a").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    np.savez(tmp_path / "float.npz", x=RNG.random((8, 28, 28)).astype(np.float32))
    with pytest.raises(DataError, match=r"float\.npz, x: samples are 28x28 floats: images, or windows"):
        arrays(tmp_path / "float.npz")


def test_a_value_out_of_range_is_a_bad_sample(tmp_path: Path) -> None:
    x = IMAGES.astype(np.int64)
    x[3, 0, 0] = 256
    np.savez(tmp_path / "a.npz", x=x)
    source = arrays(tmp_path / "a.npz")
    (bad,) = [item for item in source.read(0) if isinstance(item, Bad)]
    found = f"from {x[3].min()} to 256"
    assert bad == Bad("range", f"{tmp_path / 'a.npz'} row 3: {found}; --range LOW,HIGH")
    (made,) = pack_source(source, tmp_path / "s", Options(bad_budget=1))
    assert made["samples"] == 29


@pytest.mark.parametrize("compressed", [True, False])
def test_sets_by_group(tmp_path: Path, compressed: bool) -> None:
    patients = np.repeat(np.arange(10), 3)
    if compressed:
        np.savez(tmp_path / "a.npz", x=IMAGES, y=Y, patient=patients)
        source = arrays(
            tmp_path / "a.npz", meant=Meant(group="patient"), splits=Splits({"validation": 0.2, "test": 0.1})
        )
        assert "divided: by patient: 7 in train, 2 in validation, 1 in test" in notes(source)
    else:
        np.save(tmp_path / "a.npy", IMAGES)
        source = arrays(tmp_path / "a.npy", splits=Splits({"validation": 0.2, "test": 0.1}))
    found = read(source)
    row_of = {x.tobytes(): row for row, x in enumerate(IMAGES)}
    rows = {split: [row_of[one.x.tobytes()] for one in samples] for split, samples in found.items()}
    assert sorted(row for some in rows.values() for row in some) == list(range(30))
    assert Counter({split: len(some) for split, some in rows.items()}) == {"train": 21, "validation": 6, "test": 3}
    if compressed:
        sets = {
            patient: {s for s, some in rows.items() for row in some if patients[row] == patient}
            for patient in range(10)
        }
        assert all(len(some) == 1 for some in sets.values())
    assert not any(isinstance(item, Note) for part in range(len(source.splits)) for item in source.read(part))
