"""The forms of a set's pictures, counted: of which size, colours and bits they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

LISTED = 20  # sizes that the index names, the most common ones
Form = tuple[int, int, int, int]  # height, width, channels, bits


def count_forms(tables: Iterable[np.ndarray]) -> Counter[Form]:
    """How many pictures have each form, from tables of `scan.FORM`; those of which it is not known are left out."""
    counts: Counter[Form] = Counter()
    for table in tables:
        forms, numbers = np.unique(table[table["height"] > 0], return_counts=True)
        counts.update(dict(zip((tuple(form) for form in forms.tolist()), numbers.tolist(), strict=True)))
    return counts


def common_shape(forms: Counter[Form]) -> tuple[int, ...]:
    """The most common size, the smaller one of equals, and the most common number of channels, the larger one."""
    sizes = by_size(forms)
    height, width = min(sizes, key=lambda size: (-sizes[size], size))
    colours: Counter[int] = Counter()
    for form, count in forms.items():
        colours[form[2]] += count
    channels = max(colours, key=lambda channels: (colours[channels], channels))
    return (height, width) if channels == 1 else (height, width, channels)


def by_size(forms: Counter[Form]) -> Counter[tuple[int, int]]:
    sizes: Counter[tuple[int, int]] = Counter()
    for (height, width, _, _), count in forms.items():
        sizes[height, width] += count
    return sizes


def as_json(forms: Counter[Form], top: int) -> dict[str, Any]:
    """What the index says of them. top: the highest value in pictures of 16 bits."""
    sizes = by_size(forms)
    return {
        "known": sum(forms.values()),
        "sizes": _most([[*size, count] for size, count in sizes.items()]),
        "distinct": len(sizes),
        "gray": sum(count for form, count in forms.items() if form[2] == 1),
        "deep": sum(count for form, count in forms.items() if form[3] == 16),
        "top": top,
    }


def join_forms(several: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The same of several sets together; sizes that a set has too few of to name them are not told apart."""
    parts = list(several)
    sizes: Counter[tuple[int, int]] = Counter()
    for part in parts:
        sizes.update({(height, width): count for height, width, count in part["sizes"]})
    sums = {key: sum(part[key] for part in parts) for key in ("known", "gray", "deep")}
    distinct = max(len(sizes), *(part["distinct"] for part in parts))
    most = _most([[*size, count] for size, count in sizes.items()])
    return {**sums, "sizes": most, "distinct": distinct, "top": max(part["top"] for part in parts)}


def _most(sizes: list[list[int]]) -> list[list[int]]:
    return sorted(sizes, key=lambda one: (-one[2], one))[:LISTED]
