"""FSDP: of each parameter every rank keeps one slice, and the whole is there only while it is used.

A layer that reads its weight gets the whole one, which the ranks put together; the gradient of the whole is summed over
the ranks into the slices. What the backward pass needs of whole weights is not kept for it, but put together once more
(`freed_weights`). Each read is an ordinary differentiable operation, so losses may call any part of a network, and
penalties may differentiate its gradients (Zhang 2024, SimpleFSDP).
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Newer torch renames the two collectives; older torch knows only these names.
warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+_tensor` is deprecated", FutureWarning)


@dataclass(frozen=True)
class Layout:
    """How a whole parameter lies in memory, and that it is cut there into slices of equal size, one for each rank.

    half: whether gradients are rounded to bf16 while they are summed.
    """

    shape: torch.Size
    stride: tuple[int, ...]
    half: bool = False

    @property
    def size(self) -> int:
        """Elements of a slice; what the last ones have too many is zero."""
        return ceil(self.shape.numel() / torch.distributed.get_world_size())

    def cut(self, whole: Tensor) -> Tensor:
        """This rank's slice `[size]` of a tensor of this shape."""
        return self._flat(whole)[torch.distributed.get_rank() * self.size :][: self.size].clone()

    def joined(self, part: Tensor) -> Tensor:
        """The whole of the slices of all ranks; every rank must call it."""
        flat = part.new_empty(self.size * torch.distributed.get_world_size())
        torch.distributed.all_gather_into_tensor(flat, part.detach())
        return flat.as_strided(self.shape, self.stride)

    def mean(self, whole: Tensor) -> Tensor:
        """This rank's slice of the mean of the tensors of all ranks; every rank must call it."""
        flat = self._flat(whole)
        summed = flat.bfloat16() if self.half else flat
        part = summed.new_empty(self.size)
        torch.distributed.reduce_scatter_tensor(part, summed)
        return part.to(whole.dtype) / torch.distributed.get_world_size()

    def _flat(self, whole: Tensor) -> Tensor:
        flat = whole.new_zeros(self.size * torch.distributed.get_world_size())
        flat.as_strided(self.shape, self.stride).copy_(whole)
        return flat


@dataclass
class Slice:
    """This rank's slice of a parameter, itself a parameter `[layout.size]`, which an optimiser steps."""

    parameter: nn.Parameter
    layout: Layout


class Join(torch.autograd.Function):
    """A slice -> the whole parameter; the gradient is that of the mean of all ranks' losses, as DDP's is."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return layout.joined(part)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.layout.mean(gradient), None


class Sharded(nn.Module):
    """What the class of a module becomes when its own parameters are cut: those are slices, reading one joins them."""

    slices: dict[str, Slice]
    whole_class: type[nn.Module]


# Address of a whole weight that is alive -> its slice.
_alive: dict[int, Slice] = {}


def _read(one: Slice) -> Tensor:
    return _remembered(Join.apply(one.parameter, one.layout), one)


def _remembered(whole: Tensor, one: Slice) -> Tensor:
    """The whole weight of a slice, by whose memory graphs recognise it while it is alive."""
    memory = whole.untyped_storage()
    _alive[memory.data_ptr()] = one
    weakref.finalize(memory, _alive.pop, memory.data_ptr(), None).atexit = False
    return whole


@cache
def _sharded_class(kind: type[nn.Module], names: tuple[str, ...]) -> type[Sharded]:
    """The subclass of `kind` whose parameters of these names are joined when they are read."""

    def reading(name: str) -> property:
        return property(lambda module: _read(module.slices[name]))

    return type(kind.__name__, (Sharded, kind), {"whole_class": kind, **{name: reading(name) for name in names}})


def shard(network: nn.Module, half: bool = False) -> None:
    """Cut the parameters of a network, which are equal on all ranks; one that is cut stays as it is.

    half: whether their gradients are rounded to bf16 while they are summed. Memory of whole parameters is freed.
    """
    known: dict[nn.Parameter, Slice] = {}  # modules may share a parameter
    for module in network.modules():
        own = {name: p for name, p in module._parameters.items() if p is not None}
        if own and not isinstance(module, Sharded):
            for p in own.values():
                if p not in known:
                    layout = Layout(p.shape, p.stride(), half)
                    known[p] = Slice(nn.Parameter(layout.cut(p.detach()), p.requires_grad), layout)
            module.slices = {name: known[p] for name, p in own.items()}  # type: ignore[assignment]
            _show_slices(module)


def join(network: nn.Module) -> None:
    """Make a network whole for good; every rank must call it."""
    _show_whole([network])


@contextmanager
def whole(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the networks are whole on every rank, and what is loaded into them stays; every rank must enter."""
    modules = _show_whole(networks)
    try:
        yield
    finally:
        with torch.no_grad():
            for module in modules:
                for name, one in module.slices.items():  # type: ignore[union-attr, operator]
                    one.parameter.copy_(one.layout.cut(module._parameters[name]))
                _show_slices(module)


def _show_slices(module: nn.Module) -> None:
    slices: dict[str, Slice] = module.slices  # type: ignore[assignment]
    module._parameters.update({name: one.parameter for name, one in slices.items()})
    kind: Any = type(module)
    module.__class__ = _sharded_class(kind, tuple(slices))


def _show_whole(networks: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules that were cut, which are whole now."""
    modules = [m for network in networks for m in network.modules() if isinstance(m, Sharded)]
    known: dict[nn.Parameter, nn.Parameter] = {}
    for module in modules:
        for name, one in module.slices.items():
            if one.parameter not in known:
                # Cloned into memory of its size: safetensors loads into no other.
                joined = one.layout.joined(one.parameter).clone()
                known[one.parameter] = nn.Parameter(joined, one.parameter.requires_grad)
            module._parameters[name] = known[one.parameter]
        whole_class: Any = module.whole_class
        module.__class__ = whole_class
    return list(modules)


@dataclass
class _Freed:
    """A whole weight, or a view of it, that is joined anew when the backward pass asks for it."""

    slice: Slice
    shape: torch.Size
    stride: tuple[int, ...]
    offset: int


def freed_weights() -> AbstractContextManager[None]:
    """Inside, graphs keep no whole weight between the forward and the backward pass."""

    def pack(kept: Tensor) -> Tensor | _Freed:
        one = _alive.get(kept.untyped_storage().data_ptr())
        return kept if one is None else _Freed(one, kept.shape, kept.stride(), int(kept.storage_offset()))

    def unpack(kept: Tensor | _Freed) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        # Remembered, too: the graph of a gradient, of which a penalty is made, keeps it in turn.
        joined = _remembered(kept.slice.layout.joined(kept.slice.parameter), kept.slice)
        return joined.as_strided(kept.shape, kept.stride, kept.offset)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def layouts(network: nn.Module) -> dict[str, Layout]:
    """Of a network's parameters that are cut, by their names."""
    return {
        f"{path}.{name}".removeprefix("."): one.layout
        for path, module in network.named_modules()
        if isinstance(module, Sharded)
        for name, one in module.slices.items()
    }
