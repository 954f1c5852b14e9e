from __future__ import annotations

from pathlib import Path

import pytest
import torch

from savae_dist.benchmarks import loaders
from savae_dist.data import Shards


@pytest.fixture(scope="module")
def small_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(loaders.sets(tmp_path_factory.mktemp("sets"), 64, 8))


@pytest.mark.parametrize("title", ["images, samples", "images, packed", "windows, samples", "windows, packed"])
@pytest.mark.parametrize("library", loaders.LOADERS)
def test_every_loader_gives_every_sample_once_as_it_is_stored(library, title, small_sets):
    """Eight batches of eight are the set, in any order; the ninth begins again."""
    kind, layout = title.split(", ")
    x, y = {"images": loaders.digits, "windows": loaders.noise}[kind](64)
    assert Shards.open(small_sets[title]).packed == (layout == "packed")
    given = loaders.LOADERS[library](small_sets[title], 8, 0)
    batches = [next(given) for _ in range(9)]
    for values, labels in batches:
        assert values.shape == (8, *x.shape[1:])
        assert values.dtype == torch.from_numpy(x).dtype
        assert labels.shape == (8,)
    pairs = [(v.numpy().tobytes(), int(label)) for values, labels in batches[:8] for v, label in zip(values, labels)]
    assert sorted(pairs) == sorted((one.tobytes(), int(label)) for one, label in zip(x, y))
