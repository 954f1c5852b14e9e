"""Random bits and permutations as pure functions of a key, the same on every machine."""

from __future__ import annotations

import numpy as np

# Purposes of draws. All keys have one length, since SeedSequence((1,)) equals SeedSequence((1, 0)).
SHARDS, WINDOW, REDRAW, PACK, MIX, LABELS, HOLD_OUT = range(7)


def raw_bits(n: int, seed: int, purpose: int, first: int, second: int) -> np.ndarray:
    """uint64[n]. numpy fixes the bits of PCG64 for all its versions, but not the methods of Generator."""
    return np.random.PCG64(np.random.SeedSequence((seed, purpose, first, second))).random_raw(n)


def permutation(n: int, seed: int, purpose: int, first: int = 0, second: int = 0) -> np.ndarray:
    """int64[n], the same on every machine and with every numpy."""
    return np.argsort(raw_bits(n, seed, purpose, first, second), kind="stable")
