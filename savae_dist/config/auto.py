"""Keys whose value `auto` a run replaces when it knows the shape of its samples, and by what.

shape: (channels, height, width) of an image, (channels, length) of a signal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from savae_dist.config.counts import Auto
from savae_dist.config.effect import field_values
from savae_dist.config.schema import RunConfig

AUTO: Auto = "auto"

FEWEST_POOLS, MOST_POOLS = 2, 6
LARGEST_END = {3: 8, 2: 64}  # by the length of the shape: elements along an axis that the last pool may leave
PLANE, LARGE = 2, 128
PLANE_VALUES = 1024  # as many as a grey image of 32x32 has
MOST_STORED = 2**16  # dimensions; sizes that a damaged file gives are allocated before they are refused

# Names of run folders use these in place of `auto`: the former defaults, so that older runs keep their folders.
IN_NAMES = {"networks.pools": FEWEST_POOLS, "system.latent_dim": PLANE}


def pools_for(shape: Sequence[int]) -> int:
    """The fewest halvings, from two to six, after which an image is at most 8 a side and a signal 64 long."""
    end = LARGEST_END[len(shape)]
    needed = (pools for pools in range(FEWEST_POOLS, MOST_POOLS) if math.ceil(max(shape[1:]) / 2**pools) <= end)
    return next(needed, MOST_POOLS)


def latent_dim_for(shape: Sequence[int]) -> int:
    """2, a plane that can be drawn, for small grey images and short signals; 128 for colour and for larger samples."""
    return PLANE if shape[0] == 1 and math.prod(shape) <= PLANE_VALUES else LARGE


def _stored(values: Mapping[str, Any], key: str, most: int, otherwise: int) -> int:
    """What a checkpoint has stored; `otherwise` if it has nothing or no such number, and then it is refused later."""
    value = values.get(key)
    return value if type(value) is int and 0 <= value <= most else otherwise


def resolve(config: RunConfig, shape: Sequence[int], stored: Mapping[str, Any]) -> RunConfig:
    """The configuration with a number for each `auto`: what the run's checkpoint has `stored`, or what fits `shape`."""
    if config.networks.pools == AUTO:
        pools = _stored(stored, "networks.pools", MOST_POOLS, pools_for(shape))
        config = replace(config, networks=replace(config.networks, pools=pools))
    if field_values(config.system).get("latent_dim") == AUTO:
        latent_dim = _stored(stored, "system.latent_dim", MOST_STORED, latent_dim_for(shape))
        config = replace(config, system=replace(config.system, latent_dim=latent_dim))
    return config
