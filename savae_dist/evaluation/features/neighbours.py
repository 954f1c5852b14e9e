"""Nearest neighbours: precision, recall, density and coverage of generated samples, and distances that tell copies."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

PRECISION_NEIGHBOURS = 3  # Kynkäänniemi 2019
DENSITY_NEIGHBOURS = 5  # Naeem 2020
ROWS = 512  # samples whose distances to all others are held at once


def radii(x: Tensor, neighbours: int) -> Tensor:
    """The distance of each of x `[n, units]` from its k-th nearest other, `[n]`."""
    parts = [torch.cdist(part, x).kthvalue(neighbours + 1, dim=1).values for part in x.split(ROWS)]  # the first: itself
    return torch.cat(parts)


def quality(real: np.ndarray, made: np.ndarray) -> dict[str, np.ndarray]:
    """Values whose means are the four metrics, of features `[n, units]` and `[m, units]`; n and m more than 5.

    A sphere stands around each sample, and reaches to its k-th nearest other of the same set.

    - precision `[m]`: whether a made sample lies in any real one's sphere; recall `[n]`: whether a real one lies in any
      made one's (Kynkäänniemi 2019, equation 1; k = 3).
    - density `[m]`: in how many real ones' spheres a made one lies, over k; coverage `[n]`: whether a real one's sphere
      holds any made one (Naeem 2020, equations 3 and 4; k = 5).
    """
    x, z = (torch.from_numpy(one).double() for one in (real, made))
    wide, reach = radii(x, DENSITY_NEIGHBOURS), radii(x, PRECISION_NEIGHBOURS)
    own = radii(z, PRECISION_NEIGHBOURS)
    precision, recall, density, coverage = [], [], [], []
    for part, near, broad in zip(x.split(ROWS), reach.split(ROWS), wide.split(ROWS), strict=True):
        distance = torch.cdist(part, z)  # [rows of real, m]
        precision.append((distance <= near[:, None]).any(0))
        recall.append((distance <= own).any(1))
        density.append((distance <= broad[:, None]).sum(0))
        coverage.append(distance.amin(1) <= broad)
    found = {
        "precision": torch.stack(precision).any(0),
        "recall": torch.cat(recall),
        "density": torch.stack(density).sum(0).double() / DENSITY_NEIGHBOURS,
        "coverage": torch.cat(coverage),
    }
    return {name: values.double().numpy() for name, values in found.items()}


def nearest_distances(
    x: np.ndarray, known: np.ndarray, group: np.ndarray | None = None, groups: np.ndarray | None = None
) -> np.ndarray:
    """Root mean square difference `[n]` of each of x `[n, units]` from the nearest of `known` `[m, units]`.

    group `[n]`, groups `[m]`: a sample is compared with other groups only; NaN where there is no other group.
    """
    found = np.full(len(x), np.nan)
    for first in range(0, len(x), ROWS):
        rows = slice(first, first + ROWS)
        distances = cdist(x[rows], known) / np.sqrt(known.shape[1])
        if group is not None and groups is not None:
            distances[group[rows][:, None] == groups[None]] = np.inf
        least = distances.min(1)
        found[rows] = np.where(np.isinf(least), np.nan, least)
    return found


class Nearest:
    """As `nearest_distances`, to a set that is too large for memory and passes by in batches."""

    def __init__(self, x: Tensor) -> None:
        self.x = x.flatten(1).float().cpu()
        self.distance = torch.full((len(x),), torch.inf, dtype=torch.float64)

    def pass_by(self, others: Tensor) -> None:
        """Take account of the next samples of the set, `[m, *shape]`."""
        others = others.flatten(1).float().cpu()
        # Only the place is taken from cdist, which rounds: the distance of a copy must be 0.
        found = others[torch.cdist(self.x, others).argmin(1)]
        distance = (self.x - found).double().square().mean(1).sqrt()
        self.distance = torch.minimum(self.distance, distance)
