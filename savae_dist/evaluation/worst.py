"""The samples that a pipeline reconstructs worst, since a mean over all samples hides them."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.evaluation.figures import figures
from savae_dist.pipeline.pipeline import Pipeline

SHOWN = {"image": 2 * figures.COLUMNS, "signal": 5}
AT_ONCE = 256


def worst_reconstructions(pipeline: Pipeline, x: Tensor, codes: Tensor, y: Tensor, of: str = "") -> Figure:
    """The samples of largest mean squared error, the worst first, beside their reconstructions.

    x: normalised samples `[n, *shape]`. codes: their posterior means `[n, K]`. y: their labels `[n]`. of: what samples
    these are.
    """
    spec = pipeline.spec
    error = squared_errors(pipeline, x, codes, y)
    rows = error.argsort(descending=True, stable=True)[: SHOWN[spec.kind]]
    x_hat = pipeline.decoded(pipeline.completed(codes[rows], y[rows]))
    which = f"the worst of {len(x):,}{' of ' * bool(of)}{of}, error {error[rows[0]]:.3g} to {error[rows[-1]]:.3g}"
    return figures.reconstructions(x[rows], x_hat, y[rows], spec, which)


def squared_errors(pipeline: Pipeline, x: Tensor, codes: Tensor, y: Tensor) -> Tensor:
    """The mean squared error of each reconstruction, `[n]` on the CPU."""
    parts = zip(x.split(AT_ONCE), codes.split(AT_ONCE), y.split(AT_ONCE), strict=True)
    errors = [
        (pipeline.decoded(pipeline.completed(z, label)).cpu() - part.cpu()).square().flatten(1).mean(1)
        for part, z, label in parts
    ]
    return torch.cat(errors)
