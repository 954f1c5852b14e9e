"""Images laid out by their codes: neighbours in the code are neighbours in the picture (Hou 2019, figure 10)."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment
from sklearn.manifold import TSNE
from torch import Tensor

from savae_dist.evaluation.figures.figures import bare, latent_space, mosaic, suffix
from savae_dist.preprocess import DataSpec

SIDE = 28  # images in a row; as many rows
PERPLEXITY = 30.0


def plane(z: Tensor, seed: int = 0) -> np.ndarray:
    """Places `[n, 2]` of codes `[n, K]` by t-SNE (van der Maaten and Hinton 2008); codes of two numbers are places."""
    codes = z.detach().double().cpu().numpy()
    if codes.shape[1] == 2:
        return codes
    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
    places: np.ndarray = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(codes)
    return places


def on_grid(places: np.ndarray, side: int) -> np.ndarray:
    """A cell of its own for each of side^2 places, int `[n]`; the sum of squared distances is the least possible."""
    unit = (places - places.min(0)) / np.maximum(np.ptp(places, axis=0), 1e-12)
    row, column = np.divmod(np.arange(side**2), side)
    cells = np.stack([column, side - 1 - row], 1) / max(side - 1, 1)  # the highest is the top row
    cost = np.square(unit[:, None] - cells).sum(2)
    found: np.ndarray = linear_sum_assignment(cost)[1]
    return found


def code_mosaic(z: Tensor, x: Tensor, y: Tensor, spec: DataSpec, of: str = "") -> Figure:
    """Images in a square of at most SIDE x SIDE cells, each near its place; of signals the places alone, by class.

    z: codes `[n, K]` of normalised samples x `[n, *shape]` with labels y `[n]`; n at least 4.
    """
    side = min(SIDE, int(len(x) ** 0.5))
    how = "the codes' two numbers" if z.shape[1] == 2 else f"t-SNE of the codes (K = {z.shape[1]})"
    z, x, y = z[: side**2], x[: side**2], y[: side**2]
    places = plane(z)
    if spec.kind == "signal":
        figure = latent_space(torch.from_numpy(places), y, spec, of)
        figure.axes[0].set(title=f"Places by {how}{suffix(of)}", xlabel="", ylabel="")
        return figure
    order = np.argsort(on_grid(places, side))
    ratio = spec.shape[1] / spec.shape[2]
    figure = Figure(figsize=(9, 9 * ratio + 0.6), layout="constrained")
    figure.suptitle(f"Images by {how}, each in the cell next to its place{suffix(of)}", fontsize=11)
    axes = figure.subplots()
    axes.imshow(mosaic(x[torch.from_numpy(order).to(x.device)], side), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    bare(axes)
    return figure
