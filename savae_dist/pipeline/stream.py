"""A pipeline along a recording of any length, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from savae_dist.pipeline.anomaly import scores
from savae_dist.preprocess import normalise

if TYPE_CHECKING:
    from savae_dist.pipeline.pipeline import Pipeline


class Signal(Protocol):
    """Something that is read piece by piece, such as a file of `data.packing.readers`."""

    @property
    def length(self) -> int:
        """Samples."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """[channels, stop - start]."""


@dataclass(frozen=True)
class InMemory:
    """A recording `[length]` or `[channels, length]` as a signal; a mapped file stays one."""

    values: np.ndarray

    @property
    def length(self) -> int:
        return int(self.values.shape[-1])

    def read(self, start: int, stop: int) -> np.ndarray:
        return np.atleast_2d(self.values[..., start:stop])


@dataclass(frozen=True)
class Piece:
    """Windows one after the other. start int64 `[n]`: their first samples. scores: kind -> `[n]`, see `anomaly`.

    code float32 `[n, K]`: posterior means. probabilities float32 `[n, classes]`, None without a classifier.
    """

    start: np.ndarray
    scores: dict[str, np.ndarray]
    code: np.ndarray
    probabilities: np.ndarray | None


def pieces(pipeline: Pipeline, recording: Signal | np.ndarray, hop: int) -> Iterator[Piece]:
    """Every window of a recording at the pipeline's rate, in its order; ValueError if it is shorter than one."""
    signal = InMemory(recording) if isinstance(recording, np.ndarray) else recording
    channels, length = pipeline.spec.shape
    if hop < 1 or signal.length < length:
        raise ValueError(f"a window has {length:,} samples, the recording {signal.length:,}, and the hop is {hop}")
    count = (signal.length - length) // hop + 1
    for first in range(0, count, pipeline.batch_size):
        start = hop * np.arange(first, min(first + pipeline.batch_size, count))
        values = signal.read(int(start[0]), int(start[-1]) + length)
        if len(values) != channels:
            raise ValueError(f"the recording has {len(values)} channels, and the pipeline takes {channels}")
        windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=-1)[:, ::hop].transpose(1, 0, 2)
        x = normalise(torch.from_numpy(windows.astype(np.float32)), pipeline.spec).to(pipeline.device)
        code = pipeline.posterior(x).mean
        known = pipeline.logits(code).softmax(1).cpu().numpy() if "classifier" in pipeline.networks else None
        yield Piece(start, scores(pipeline, x), code.cpu().numpy(), known)
