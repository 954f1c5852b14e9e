"""How well a score serves as a health index over lives that end in failure (Coble and Hines 2009), each from 0 to 1.

lives: the index of each machine over time, `[recordings]`, two recordings or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

Lives = Sequence[np.ndarray]


def smoothed(values: np.ndarray, count: int) -> np.ndarray:
    """The mean of each and the `count` - 1 before it, of fewer at the start; it looks at nothing that comes later."""
    sums = np.concatenate([[0.0], values.cumsum()])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - count, 0)
    mean: np.ndarray = (sums[last] - sums[first]) / (last - first)
    return mean


def monotonicity(lives: Lives) -> float:
    """The mean over lives of |steps up - steps down| / steps: 1 if each only rises or only falls."""
    return float(np.mean([abs(np.sign(np.diff(life)).mean()) for life in lives]))


def prognosability(lives: Lives) -> float:
    """exp(-deviation of the last values / mean of |first - last|): 1 if all machines fail at the same value."""
    change = np.mean([abs(life[0] - life[-1]) for life in lives])
    if not change:
        return 0.0
    return float(np.exp(-np.std([life[-1] for life in lives], ddof=1) / change))


def trendability(lives: Lives) -> float:
    """The least |correlation| of two lives, each brought to the length of the longest: 1 if all have one shape."""
    longest = np.linspace(0, 1, max(len(life) for life in lives))
    alike = [np.interp(longest, np.linspace(0, 1, len(life)), life) for life in lives]
    with np.errstate(invalid="ignore"):
        found = [abs(np.corrcoef(a, b)[0, 1]) for a, b in combinations(alike, 2)]
    return float(np.min(np.nan_to_num(found)))  # one that never changes has no correlation


MEASURES = {"monotonicity": monotonicity, "trendability": trendability, "prognosability": prognosability}


def measures(lives: Lives) -> dict[str, float]:
    """All three by name; empty of fewer than two lives, or where one has a single recording."""
    if len(lives) < 2 or min(len(life) for life in lives) < 2:
        return {}
    return {name: measure(lives) for name, measure in MEASURES.items()}
