"""Photographs through three libraries: the same pictures of the same form, however they are decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.stores import BUCKET, s3
from PIL import Image

from savae_dist.benchmarks import photos
from savae_dist.errors import ConfigError


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "set"
    photos.make(folder, 16, None)
    return folder


@pytest.mark.parametrize("name", photos.READERS)
def test_every_reader_gives_every_photograph_once_and_alike(name: str, tars: Path) -> None:
    """Two batches of eight are the set, in any order; the means of its pictures are Pillow's, within a few levels."""
    given = photos.READERS[name](tars, 64, 8, 0)
    x, y = (np.concatenate(part) for part in zip(*(next(given) for _ in range(2)), strict=True))
    assert x.shape == (16, 64, 64, 3)
    assert x.dtype == np.uint8
    assert sorted(y.tolist()) == sorted([number % 10 for number in range(4)] * 4)
    usual = photos.webdataset(tars, 64, 8, 0)
    reference = np.concatenate([next(usual)[0] for _ in range(2)]).astype(int)
    nearest = [np.abs(reference - one).mean((1, 2, 3)) for one in x.astype(int)]
    assert max(map(min, nearest)) <= 4
    assert sorted(int(one.argmin()) for one in nearest) == list(range(16))


def test_parts_of_the_pictures_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no pictures of 300 pixels or more"):
        photos.make(tmp_path / "none", 4, tmp_path)
    x = photos.smooth(320, 700, np.random.default_rng(1))
    Image.fromarray(x).save(tmp_path / "a.png")
    made = photos.parts(tmp_path, np.random.default_rng(0))
    for _ in range(20):
        height, width = next(made).shape[:2]
        assert 300 <= height <= 320
        assert 300 <= width <= 500


def test_a_set_is_read_from_a_store(tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every library that can reads the whole set from S3, each time anew."""
    (tmp_path / "none").mkdir()
    with s3(tmp_path / "none", tmp_path / "log") as served:
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        url = photos.copied(tars, f"s3://{BUCKET}/photos")
        for name in photos.READERS.keys() - {photos.NOT_FROM_STORES}:
            before = served.gets()
            assert photos.once(name, url, 32, 8, 2, 0) > 0
            assert served.gets() - before >= 4, name
