"""Attributes of samples as yes or no, and the directions of the code that go with them (Hou 2019, section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

MOST_VALUES = 12  # columns with more distinct values are split at their median
LEAST = 5  # fewest samples with an attribute, and without it, that give a direction or a classifier
Attributes = dict[str, np.ndarray]  # name -> float64 `[n]`: 1 with it, 0 without, NaN unknown


def binary(values: np.ndarray, names: Sequence[str]) -> Attributes:
    """Columns of numbers `[n, names]`, NaN where missing, as attributes.

    A column of two values becomes one attribute: having the larger. Up to `MOST_VALUES` values become one each,
    `load=2`. A column of more values is divided at its median, `size > 0.014`.
    """
    found: Attributes = {}
    for name, column in zip(names, np.asarray(values, np.float64).T, strict=True):
        known = np.unique(column[~np.isnan(column)])
        if len(known) == 2:
            parts = {name if tuple(known) in ((0, 1), (-1, 1)) else f"{name}={known[1]:g}": column == known[1]}
        elif len(known) > MOST_VALUES:
            middle = np.nanmedian(column)
            parts = {f"{name} > {middle:.4g}": column > middle}
        else:
            parts = {f"{name}={value:g}": column == value for value in known if len(known) > 1}
        found |= {key: np.where(np.isnan(column), np.nan, part) for key, part in parts.items()}
    return found


def of_classes(y: np.ndarray, names: Sequence[str]) -> Attributes:
    """Each class that occurs among labels y `[n]`, -1 = unlabelled, as an attribute; names: of the classes."""
    told = {int(one): names[one] if one < len(names) else str(one) for one in np.unique(y[y >= 0])}
    return {f"class {name}": np.where(y < 0, np.nan, y == one) for one, name in told.items()}


def usable(attributes: Mapping[str, np.ndarray]) -> Attributes:
    """The attributes that at least `LEAST` samples have and as many lack."""
    return {name: one for name, one in attributes.items() if min((one == 1).sum(), (one == 0).sum()) >= LEAST}


def direction(z: Tensor, attribute: np.ndarray) -> Tensor:
    """The mean of codes z `[n, K]` with the attribute minus the mean of those without it, `[K]`."""
    with_it, without = means(z, attribute)
    return with_it - without


def means(z: Tensor, attribute: np.ndarray) -> tuple[Tensor, Tensor]:
    """The mean code of samples with the attribute, and of those without it, both `[K]`."""
    has = torch.from_numpy(attribute).to(z.device)
    return z[has == 1].mean(0), z[has == 0].mean(0)
