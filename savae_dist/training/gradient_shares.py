"""Which term of a loss drives the decoder: the shares of the terms in the gradient at x^, measured beside the training.

The graph of a step is built once more for this, so the training itself is the same to the bit, measured or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from savae_dist.systems.phases import Batch

DECODER = "decoder"  # its name in every system

Forward = Callable[[Batch], Mapping[str, Tensor]]
Look = Callable[[Batch, Sequence[Tensor]], None]


def gradient_shares(
    decoder: nn.Module, forward: Forward, slices: Sequence[Batch], look: Look | None = None
) -> dict[str, Tensor]:
    """Term -> ||d term / d x^|| over the sum of these norms, of the global batch; equal on all ranks.

    forward: the weighted terms of a loss on one slice. Terms that x^ does not reach have no share; where it reaches
    fewer than two there is nothing to share, and the answer is empty. look: shown each slice and what the decoder made.
    """
    squares: dict[str, Tensor] = {}
    for batch in slices:
        for name, square in _squared_norms(decoder, forward, batch, look).items():
            squares[name] = squares.get(name, 0) + square
    if len(squares) < 2:
        return {}
    # A sample is on one rank and in one slice, so the squares add up to those of the whole gradient.
    total = torch.stack(list(squares.values()))
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(total)
    norms = total.sqrt()
    return dict(zip(squares, norms / norms.sum(), strict=True))


def read_out(measured: Iterable[dict[str, Tensor]]) -> dict[str, float]:
    """Empty what updates have measured; term -> share, without those that were not finite."""
    found: dict[str, float] = {}
    for shares in measured:
        found |= {term: float(share) for term, share in shares.items()}
        shares.clear()
    return {term: share for term, share in found.items() if math.isfinite(share)}


def _squared_norms(decoder: nn.Module, forward: Forward, batch: Batch, look: Look | None) -> dict[str, Tensor]:
    """Term -> ||d term / d x^||^2 on one slice."""
    made: list[Tensor] = []
    hook = decoder.register_forward_hook(lambda _module, _inputs, x_hat: made.append(x_hat))
    try:
        terms = forward(batch)
    finally:
        hook.remove()
    if look is not None:
        look(batch, made)
    found = {}
    for name, term in terms.items() if made else ():
        if term.requires_grad:
            gradients = torch.autograd.grad(term, made, retain_graph=True, allow_unused=True)
            reached = [gradient for gradient in gradients if gradient is not None]
            if reached:
                found[name] = torch.stack([gradient.float().square().sum() for gradient in reached]).sum()
    return found
