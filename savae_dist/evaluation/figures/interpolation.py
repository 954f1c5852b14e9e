"""Frames on the straight line between the codes of two samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.evaluation.figures.figures import choose, class_name, suffix
from savae_dist.evaluation.figures.frames import frames
from savae_dist.pipeline.pipeline import Pipeline

FRAMES = 11  # Hou 2019, figure 6: steps of a tenth
ROWS = {"image": 8, "signal": 5}


def interpolation(pipeline: Pipeline, z: Tensor, y: Tensor, of: str = "") -> Figure:
    """Decoded (1 - t) z_a + t z_b in `FRAMES` steps of t, a row for each of some pairs of samples of different classes.

    z: codes `[n, K]` as the decoder takes them, y: labels `[n]`; n at least 2.
    """
    spec = pipeline.spec
    chosen = choose(y, 2 * ROWS[spec.kind])
    half = len(chosen) // 2
    first, last = chosen[:half], chosen[half : 2 * half]  # `choose` sorts by class, so most pairs are of two classes
    names = [f"{class_name(int(y[a]), spec)} → {class_name(int(y[b]), spec)}" for a, b in zip(first, last, strict=True)]
    title = f"Interpolation between the codes of two samples in {FRAMES} frames{suffix(of)}"
    steps = torch.linspace(0, 1, FRAMES)
    return frames(pipeline.decoded(along(z[first], z[last], steps)), names, labelled(steps), title, spec)


def along(starts: Tensor, ends: Tensor, steps: Tensor) -> Tensor:
    """Codes `[rows * steps, K]`, row by row, on the way from starts `[rows, K]` to ends."""
    weight = steps.to(starts).view(1, -1, 1)
    codes: Tensor = torch.lerp(starts[:, None], ends[:, None], weight)
    return codes.flatten(0, 1)


def labelled(steps: Tensor) -> Sequence[str]:
    return [f"{step:.1f}" for step in steps.tolist()]
