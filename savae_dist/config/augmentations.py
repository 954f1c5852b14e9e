"""The names of `data.augment` and the strengths that each takes; `training.augment` says what each does."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from savae_dist.config.nearest import nearest
from savae_dist.errors import ConfigError

# In the order in which they are applied; a strength lies in [0, limit). Noise comes after the blur, which would smooth
# it away, and cutting out and masking after both, so that what is masked stays 0.
AUGMENTATIONS: dict[str, float] = {
    **dict.fromkeys(("crop", "resized_crop", "flip", "shift", "blur", "noise", "cutout", "time_shift", "scaling"), 1.0),
    "jitter": math.inf,
    "masking": 1.0,
}


def check_augmentations(names: Iterable[str]) -> None:
    """ConfigError for a name that is no augmentation's."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise ConfigError(
                f"data.augment.{name}: no such augmentation{nearest(name, AUGMENTATIONS)}; "
                f"known: {', '.join(AUGMENTATIONS)}"
            )


def check_strengths(strengths: Mapping[str, Any]) -> None:
    """ConfigError for a name that is no augmentation's, or a strength that it cannot have."""
    check_augmentations(strengths)
    for name, strength in strengths.items():
        if not isinstance(strength, int | float):
            raise ConfigError(f"data.augment.{name} must be a number, not {strength}")
        if not 0 <= strength < AUGMENTATIONS[name]:
            raise ConfigError(f"data.augment.{name} must lie in [0, {AUGMENTATIONS[name]:g}), not {strength}")
