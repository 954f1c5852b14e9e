"""How what the decoder makes differs from the samples of its batch, by numbers that any critic should find."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from savae_dist.systems.phases import Batch


class Comparison:
    """Sums over the samples of a global batch and over what a decoder made, slice by slice, then over all ranks."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    @torch.no_grad()
    def add(self, batch: Batch, made: Sequence[Tensor]) -> None:
        """made: what the decoder gave on this slice, each `[n, *shape]`."""
        if made:
            sums = torch.cat([sums_of(batch.x), sums_of(torch.cat([x_hat.detach() for x_hat in made]))])
            self.sums = sums if self.sums is None else self.sums + sums

    @torch.no_grad()
    def compared(self) -> dict[str, Tensor]:
        """`variance`: over the batch, summed over elements, of what was made, as a share of the samples'.

        `roughness_gap`: between the means of both kinds' roughness, in units of their mean standard deviation: beyond 1
        this number alone tells the kinds apart. Empty if the decoder was not called; equal on all ranks.
        """
        if self.sums is None:
            return {}
        sums = self.sums
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        (variance, mean, square), (variance_hat, mean_hat, square_hat) = (moments(part) for part in sums.chunk(2))
        spread = (0.5 * (square - mean.square() + square_hat - mean_hat.square())).clamp_min(0).sqrt()
        return {"variance": variance_hat / variance, "roughness_gap": (mean - mean_hat).abs() / spread}


def sums_of(x: Tensor) -> Tensor:
    """Of samples `[n, *shape]`: n, their squares, roughness, its squares, and last the samples, `[4 + elements]`."""
    x = x.double()
    rough = roughness(x)
    parts = [x.new_tensor([len(x)]), x.square().sum()[None], rough.sum()[None], rough.square().sum()[None]]
    return torch.cat([*parts, x.flatten(1).sum(0)])


def moments(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The samples' variance summed over elements, and of their roughness the mean and the mean square."""
    count, squares, rough, rough_squares = sums[:4]
    variance = squares / count - (sums[4:] / count).square().sum()
    return variance, rough / count, rough_squares / count


def roughness(x: Tensor) -> Tensor:
    """Root mean square of the differences between neighbours along the last axis, `[n]`."""
    return x.diff(dim=-1).flatten(1).square().mean(1).sqrt()
