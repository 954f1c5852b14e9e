"""Weights of terms that follow from their gradients at the decoder's last layer (Esser 2021, VQGAN, eq 7).

The gradients are those of the global batch, summed over processes and accumulation steps before their norms are taken:
all ranks have the same weight, and one process has that of two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from savae_dist.config.terms import AdaptiveConfig
from savae_dist.systems.phases import Batch
from savae_dist.training.gradient_shares import Forward

DELTA = 1e-6  # the paper's, against a division by 0


def adaptive_factors(
    adaptive: Mapping[str, AdaptiveConfig],
    decoder: nn.Module,
    forward: Forward,
    slices: Sequence[Batch],
    norms_of_mean: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """TERM -> ratio ||grad to|| / (||grad TERM|| + DELTA), at most `most`; empty for a loss that has no such terms.

    forward: the weighted terms of a loss on one slice. The gradients are by the weights of the decoder's last layer;
    norms_of_mean: of such gradients `[terms, *shape]`, the norms `[terms]` of their means over the ranks.
    """
    if not adaptive:
        return {}
    names = sorted({*adaptive, *(config.to for config in adaptive.values())})
    sums = {name: torch.zeros(()) for name in names}
    for batch in slices:
        weight, terms = _last_weight(decoder, forward, batch)
        if not terms.keys() >= sums.keys():
            return {}
        for name in names:
            (gradient,) = torch.autograd.grad(terms[name], weight, retain_graph=True)
            sums[name] = sums[name].to(gradient) + gradient / len(slices)
    norms = dict(zip(names, norms_of_mean(torch.stack(list(sums.values()))), strict=True))
    return {
        name: (config.ratio * norms[config.to] / (norms[name] + DELTA)).clamp_max(config.most)
        for name, config in adaptive.items()
    }


def _last_weight(decoder: nn.Module, forward: Forward, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The weight of the layer that the decoder runs last, and the terms on this slice."""
    run: list[nn.Module] = []
    layers = [module for module in decoder.modules() if [*module.parameters(recurse=False)]]
    hooks = [layer.register_forward_hook(lambda module, _inputs, _output: run.append(module)) for layer in layers]
    try:
        terms = forward(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return next(run[-1].parameters(recurse=False)), terms
