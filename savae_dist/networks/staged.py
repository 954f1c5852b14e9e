"""Activation checkpointing: the activations of a stage are computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")


class Staged(nn.Module):
    """A module that computes in stages, of which only the inputs are kept for the gradient where it is asked to."""

    checkpointed = False  # `networks.checkpoint_activations`

    def through(self, stage: Callable[..., T], x: Tensor, *parts: nn.Module) -> T:
        """stage(x, *parts), the same either way. A stage does not write into x.

        Of the modules that it uses only `parts` may have buffers that a pass changes: theirs alone are put back.

        A penalty's inner gradient (`torch.func.grad`) keeps its activations: torch can compute nothing again in there.
        """
        if not (self.checkpointed and torch.is_grad_enabled()) or not hooks_allowed():
            return stage(x, *parts)
        found: T = checkpoint(stage, x, *parts, use_reentrant=False, context_fn=lambda: (nullcontext(), Buffers(parts)))
        return found


def hooks_allowed() -> bool:
    """Whether torch lets the tensors that are kept be replaced: not within `torch.func.grad`."""
    allowed: bool = torch._C._autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]
    return allowed


def checkpoint_activations(network: nn.Module) -> None:
    """Have all stages of a network, and of the networks in it, keep their inputs only."""
    for module in network.modules():
        if isinstance(module, Staged):
            module.checkpointed = True


class Buffers:
    """The buffers of some modules as they are now; inside, whenever it is entered, the modules work on copies of them.

    Without that a pass that is repeated would leave traces: batch norms would count a batch twice in their running
    statistics, and spectral norm, which improves its estimate in every pass, would divide by another number.
    """

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        owners = [module for part in parts for module in part.modules() if module._buffers]
        self.then = [(module, copied(module._buffers)) for module in owners]
        self.own: list[dict[str, Tensor | None]] = []

    def __enter__(self) -> None:
        self.own = [dict(module._buffers) for module, _ in self.then]
        for module, buffers in self.then:
            module._buffers.update(copied(buffers))

    def __exit__(self, *error: object) -> None:
        for (module, _), buffers in zip(self.then, self.own, strict=True):
            module._buffers.update(buffers)


def copied(buffers: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if one is None else one.clone() for name, one in buffers.items()}
