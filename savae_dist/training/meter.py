"""What is logged of an update's steps, summed on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Meter:
    """Sums of scalars on the device since the last `drain`; skipped steps do not count."""

    def __init__(self, device: torch.device) -> None:
        self.one = torch.ones((), device=device)
        # The names that one step gives -> their sums and the count, `[names + 1]`: three launches a step for all.
        self.sums: dict[tuple[str, ...], Tensor] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], skipped: Tensor) -> None:
        """values: scalars. skipped: bool scalar, whether this step does not count."""
        entry = torch.stack([*(value.float() for value in values.values()), self.one]).masked_fill_(skipped, 0.0)
        names = tuple(values)
        self.sums[names] = self.sums[names] + entry if names in self.sums else entry

    def drain(self) -> dict[str, Tensor]:
        """Name -> (sum, count) `[2]`."""
        found: dict[str, Tensor] = {}
        for names, sums in self.sums.items():
            for number, name in enumerate(names):
                pair = torch.stack([sums[number], sums[-1]])
                found[name] = found[name] + pair if name in found else pair
        self.sums = {}
        return found
