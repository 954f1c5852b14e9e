"""What is logged of an update's steps, summed on the device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Meter:
    """Sums of scalars on the device since the last `drain`; skipped steps do not count."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], counts: Tensor) -> None:
        for name, value in values.items():
            entry = torch.stack([torch.where(counts, value.float(), 0.0), counts.float()])
            self.sums[name] = self.sums[name] + entry if name in self.sums else entry

    def drain(self) -> dict[str, Tensor]:
        """Name -> (sum, count) `[2]`."""
        sums, self.sums = self.sums, {}
        return sums
