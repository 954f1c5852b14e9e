"""Attributes added to samples, and the sums that this is (Hou 2019, figures 7 and 8)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.evaluation.classes.attributes import direction, means
from savae_dist.evaluation.figures.figures import spread
from savae_dist.evaluation.figures.frames import frames
from savae_dist.evaluation.figures.interpolation import FRAMES, labelled
from savae_dist.pipeline.pipeline import Pipeline

ROWS = {"image": 10, "signal": 6}
TERMS = ("sample", "+ mean with", "− mean without", "= sum")


def _chosen(attributes: Mapping[str, np.ndarray], rows: int) -> list[str]:
    names = list(attributes)
    return [names[place] for place in spread(range(len(names)), rows)]


def attribute_vectors(pipeline: Pipeline, z: Tensor, attributes: Mapping[str, np.ndarray]) -> Figure:
    """Decoded z + w v, where v is an attribute's direction and w goes from 0 to 1, of a sample without it.

    z: codes `[n, K]` as the decoder takes them; attributes: as `attributes.usable`.
    """
    names = _chosen(attributes, ROWS[pipeline.spec.kind])
    steps = torch.linspace(0, 1, FRAMES)
    rows = [
        z[np.flatnonzero(attributes[name] == 0)[0]] + steps[:, None].to(z) * direction(z, attributes[name])
        for name in names
    ]
    title = "An attribute's vector added to the code of a sample without it, times 0 to 1"
    return frames(pipeline.decoded(torch.cat(rows)), names, labelled(steps), title, pipeline.spec)


def attribute_arithmetic(pipeline: Pipeline, z: Tensor, attributes: Mapping[str, np.ndarray]) -> Figure:
    """A sample without an attribute, the mean codes with and without it, and the sum, all decoded; a row for each."""
    names, rows = _chosen(attributes, ROWS[pipeline.spec.kind]), []
    for name in names:
        with_it, without = means(z, attributes[name])
        sample = z[np.flatnonzero(attributes[name] == 0)[0]]
        rows.append(torch.stack([sample, with_it, without, sample + with_it - without]))
    title = "Arithmetic of codes, decoded"
    return frames(pipeline.decoded(torch.cat(rows)), names, TERMS, title, pipeline.spec)
