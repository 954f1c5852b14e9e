"""A recording piece by piece: the same as all its windows at once, in memory that does not grow with it."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
import torch

from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

SPEC = DataSpec("signal", (2, 64), 3, "dataset", mean=(0.5, 0.0), std=(2.0, 1.0))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    torch.manual_seed(0)
    networks = {
        "encoder": ConvEncoder(SPEC.shape, 2, 2),
        "decoder": ConvDecoder(SPEC.shape, 2, 2, output="linear"),
        "classifier": DenseClassifier(2, 3),
    }
    return Pipeline(networks, SPEC, batch_size=5)


def test_pieces_are_the_windows_of_the_recording(pipeline: Pipeline) -> None:
    x = np.random.default_rng(0).normal(size=(2, 500)).astype(np.float32)
    found = list(pipeline.stream(x, 30))
    windows = np.stack([x[:, start : start + 64] for start in range(0, 500 - 64 + 1, 30)])
    assert np.concatenate([piece.start for piece in found]).tolist() == list(range(0, 437, 30))
    np.testing.assert_allclose(np.concatenate([p.code for p in found]), pipeline.encode(windows).mean, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([p.probabilities for p in found]), pipeline.classify(windows), atol=1e-5)
    for kind, values in pipeline.score(windows).items():
        np.testing.assert_allclose(np.concatenate([piece.scores[kind] for piece in found]), values, rtol=1e-4)


class Endless:
    """A recording of a million windows that notes the longest part that was asked for."""

    length, longest = 64_000_000, 0

    def read(self, start: int, stop: int) -> np.ndarray:
        self.longest = max(self.longest, stop - start)
        return np.zeros((2, stop - start))


def test_the_parts_that_are_read_do_not_grow_with_the_recording(pipeline: Pipeline) -> None:
    endless = Endless()
    stream = pipeline.stream(endless, 64)
    assert [next(stream).start[0] for _ in range(3)] == [0, 320, 640]
    assert endless.longest == 5 * 64


def test_nothing_is_left_of_pieces_that_are_over(pipeline: Pipeline) -> None:
    stream, held = pipeline.stream(Endless(), 64), []
    tracemalloc.start()
    try:
        for count in (5, 40):
            for _ in range(count):
                next(stream)
            gc.collect()
            tensors = sum(type(one) is torch.Tensor for one in gc.get_objects())
            held.append((tracemalloc.get_traced_memory()[0], tensors))
    finally:
        tracemalloc.stop()
    (before, few), (after, many) = held
    assert many <= few
    assert after - before < 35_000  # 40 pieces that were kept would be 70,000 bytes of scores and codes


def test_what_does_not_fit_is_refused(pipeline: Pipeline) -> None:
    for values, hop, told in (
        (np.zeros((2, 63)), 1, "a window has 64 samples, the recording 63"),
        (np.zeros((2, 100)), 0, "the hop is 0"),
        (np.zeros(100), 1, "has 1 channels, and the pipeline takes 2"),
    ):
        with pytest.raises(ValueError, match=told):
            next(pipeline.stream(values, hop))
