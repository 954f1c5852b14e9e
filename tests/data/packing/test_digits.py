from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from savae_dist.data import Order, Reader, Request, Shards, demo_shards
from savae_dist.data.packing.digits import stratified
from savae_dist.data.remote.cache import cache_folder
from savae_dist.files import draft_of
from savae_dist.preprocess import DataSpec

DEMO = """
import sys
from savae_dist.data import Shards, demo_shards
train, validation = demo_shards(sys.argv[1])
print(Shards.open(train).digest, Shards.open(validation).digest, (train / "index.json").stat().st_mtime_ns)
"""
LIGHT = """
import sys
import savae_dist.data
print([name for name in ("webdataset", "datasets", "sklearn", "cv2", "torchvision", "PIL") if name in sys.modules])
"""


def read(folder) -> tuple[np.ndarray, np.ndarray]:
    shards = Shards.open(folder)
    batch = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, shards.size, range(shards.size))]
    return batch.x.numpy(), batch.y.numpy()


def rows(x: np.ndarray, y: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() + bytes([label]) for image, label in zip(x, y, strict=True))


def test_every_digit_is_in_one_of_the_two(tmp_path):
    train, validation = demo_shards(tmp_path)
    parts = [read(train), read(validation)]
    assert [len(x) for x, _ in parts] == [1500, 297]
    digits = load_digits()
    x = np.concatenate([x for x, _ in parts])
    y = np.concatenate([y for _, y in parts])
    assert rows(np.round(x * (16 / 255)), y) == rows(digits.images, digits.target)
    assert (x.min(), x.max()) == (0, 255)
    share = np.bincount(parts[1][1], minlength=10) / np.bincount(digits.target, minlength=10)
    assert abs(share - 297 / 1797).max() < 1 / 170  # at most one digit of some 180 off
    spec = Shards.open(train).spec
    assert spec == DataSpec("image", (1, 8, 8), 10, "unit", class_names=tuple("0123456789"))
    assert Shards.open(validation).spec == spec
    assert len(Shards.open(train).counts) > 1


@pytest.mark.distributed
def test_it_is_made_once_for_processes_that_start_at_once(tmp_path):
    command = [sys.executable, "-c", DEMO, str(tmp_path / "cache")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {run.communicate()[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(printed) == 1
    assert len(printed.pop().split()) == 3
    stamp = (tmp_path / "cache" / "train" / "index.json").stat().st_mtime_ns
    assert demo_shards(tmp_path / "cache") == (tmp_path / "cache" / "train", tmp_path / "cache" / "validation")
    assert (tmp_path / "cache" / "train" / "index.json").stat().st_mtime_ns == stamp


def test_it_lies_in_the_cache_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo_shards()[0] == cache_folder() / "demo" / "train"


def test_one_that_was_cut_off_is_made_again(tmp_path):
    train, validation = demo_shards(tmp_path)
    expected = rows(*read(train))
    (validation / "index.json").unlink()
    killed = draft_of(train)
    (killed / "inside").mkdir(parents=True)
    assert demo_shards(tmp_path) == (train, validation)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "train", "validation"]
    assert rows(*read(train)) == expected
    assert len(read(validation)[0]) == 297


def test_stratified_takes_each_class_in_proportion():
    y = np.array([0] * 50 + [1] * 30 + [2] * 20)
    chosen = stratified(y, 10)
    assert np.bincount(y[chosen]).tolist() == [5, 3, 2]
    assert (stratified(y, 10) == chosen).all()
    assert (stratified(y, 10, seed=1) != chosen).any()


def test_importing_the_package_is_light():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
