"""A network out of files that may be damaged or hostile: its weights are seen to fit before room is made for them."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from savae_dist.errors import CheckpointError
from savae_dist.untrusted import (
    Check,
    Misfit,
    anything,
    check,
    flag,
    listed,
    nullable,
    number,
    one_of,
    reason,
    record,
    regular,
    shown,
    table,
    text,
    whole,
)

LARGEST = 2**31 - 1  # the largest whole number that an argument of a network may be
AGAIN = "save it again"
CONFIG = record({"model_type": text(100), "format_version": whole()})
# Errors of constructors whose arguments have the right types but do not fit together.
CONSTRUCTION = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)


def check_stored(kind: type[nn.Module], arguments: Mapping[str, Any], weights: Path) -> None:
    """CheckpointError unless a network of this kind and these arguments has the tensors that the file holds."""
    config = weights.with_name("config.json")
    check(arguments, lambda values: check_arguments(kind, values), config, CheckpointError, AGAIN)
    try:
        expected = outline(kind, arguments)
    except CONSTRUCTION as error:
        raise CheckpointError(f"{config}: no {kind.__name__} can be made of it ({reason(error)}); {AGAIN}") from error
    try:
        fit(weights, expected, "config.json")
    except Misfit as fault:
        raise CheckpointError(f"{weights.parent}: {fault}; {AGAIN}") from fault


def check_arguments(kind: type[nn.Module], arguments: Mapping[str, Any]) -> None:
    """Misfit unless all arguments are there that must be, each of the type that its annotation names."""
    try:
        signature = inspect.signature(kind.__init__, eval_str=True)
    except NameError:  # an annotation names what only type checkers import
        signature = inspect.signature(kind.__init__)
    for name, parameter in list(signature.parameters.items())[1:]:
        if name in arguments:
            try:
                rule_of(parameter.annotation)(arguments[name])
            except Misfit as fault:
                raise fault.inside(f".{name}") from fault
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise Misfit(f"has no {name}")


def rule_of(hint: Any) -> Check:
    """The check of an argument with this annotation, as far as JSON can hold such."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return one_of(*parts)
    if origin in (Union, types.UnionType):
        rest = [part for part in parts if part is not type(None)]
        rule = rule_of(rest[0]) if len(rest) == 1 else anything
        return nullable(rule) if len(rest) < len(parts) else rule
    if origin in (Sequence, Iterable, list, tuple):
        return listed(rule_of(parts[0]) if len({*parts} - {...}) == 1 else anything)
    if origin in (Mapping, dict) or hint is dict:
        return table(anything)
    return {int: whole(-LARGEST, LARGEST), float: number(), bool: flag, str: text()}.get(hint, anything)


class _Unfilled(TorchFunctionMode):
    """Draws and norms are left out: the meta device has no values, and torch loads for seconds to find that out."""

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.mv, torch.vdot):  # used by spectral norms
            return args[0].new_empty(args[0].shape[: args[0].ndim - 1])
        if func is nn.init.normal_:  # it is called with keywords only
            return kwargs["tensor"]
        if func in (Tensor.normal_, Tensor.div, Tensor.remainder, nn.functional.normalize):
            return args[0]
        if func is torch.arange and not kwargs and all(isinstance(one, int) for one in args):
            return torch.empty(len(range(*args)), dtype=torch.int64)
        return func(*args, **(kwargs or {}))


@contextmanager
def without_values() -> Iterator[None]:
    """Networks that are made inside take no memory for their values, and have none."""
    with torch.device("meta"), _Unfilled():
        yield


def outline(kind: type[nn.Module], arguments: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state that such a network would have, without memory for its values."""
    with without_values():
        return kind(**arguments).state_dict(keep_vars=True)


def fit(path: Path, expected: Mapping[str, Tensor], what: str) -> None:
    """Misfit unless a safetensors file holds these tensors, which `what` asks for; one that shares memory may lack.

    Floating-point tensors may have another precision.
    """
    found = tensor_forms(path)
    for name, (shape, floating) in found.items():
        if name not in expected:
            raise Misfit(f"{path.name} holds {shown(name)}, which {what} does not ask for")
        wanted = expected[name]
        if shape != tuple(wanted.shape) or floating != wanted.is_floating_point():
            asked = f"{list(wanted.shape)} of {wanted.dtype}"
            raise Misfit(f"{path.name} holds {name} of shape {list(shape)}, and {what} asks for {asked}")
    there = {id(expected[name]) for name in found}
    for name, value in expected.items():
        if id(value) not in there:
            raise Misfit(f"{path.name} has no {name}, which {what} asks for")


def tensor_forms(path: Path) -> dict[str, tuple[tuple[int, ...], bool]]:
    """The shape of each tensor in a safetensors file, and whether it is floating-point; its values are not read."""
    try:
        regular(path)
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
            return {
                name: (tuple(one.get_shape()), one.get_dtype().startswith(("F", "BF"))) for name, one in slices.items()
            }
    except (OSError, Misfit, SafetensorError) as error:
        raise Misfit(f"{path.name} is no whole safetensors file ({reason(error)})") from error
