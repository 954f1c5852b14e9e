"""The launches of a training step, counted by torch's profiler: kernels, copies, and waits of the host for the device.

A CPU launches no kernels. There an operator counts as one launch if a GPU would need one, that is, if it computes
something: views and allocations do not count, and of a composite operator its parts are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from savae_dist.benchmarks.setting import Step

WAIT = "_local_scalar_dense"  # `.item()`, `.tolist()`, `bool(tensor)`: the host waits for the device
STREAM_WAIT = "cudaStreamSynchronize"  # recorded on a GPU for `.item()` and for copies that do not use pinned memory
TRANSFERS = ("Memcpy HtoD", "Memcpy DtoH")  # copies between host and GPU, as the profiler names them
COPIES = frozenset({"copy_", "_to_copy", "clone"})
# Operators that compute nothing although their schema does not say so.
NOTHING = frozenset({"resize_", "set_", "result_type", "is_same_size", "_reshape_alias", "_unsafe_view", "detach_"})
ALLOCATIONS = ("empty", "new_empty")  # `empty_like`, `new_empty_strided` and others begin with them
COMPOSITE = "CompositeImplicitAutograd"


class Launches(NamedTuple):
    """Per iteration: kernels, how many of them only copy, and waits of the host."""

    kernels: float
    copies: float
    waits: float


class Given(NamedTuple):
    """Per iteration on a GPU: kernels, copies between host and GPU, and waits of the host."""

    kernels: float
    transfers: float
    waits: float


def given(step: Step, iterations: int) -> Given:
    """Kernels, transfers and waits on a GPU, averaged over `iterations`; copies within the GPU count as kernels."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        for _ in range(iterations):
            step()
        torch.cuda.synchronize()
    events = profiler.events() or ()
    done = [one.name for one in events if one.device_type == DeviceType.CUDA and not one.is_user_annotation]
    transfers = sum(name.startswith(TRANSFERS) for name in done)
    waits = sum(one.name == STREAM_WAIT for one in events)
    return Given((len(done) - transfers) / iterations, transfers / iterations, waits / iterations)


def launches(step: Step, iterations: int) -> Launches:
    """The mean launches per iteration over `iterations`; warm the loop up before."""
    counts = operators(step, iterations)
    copies = sum(count for name, count in counts.items() if name in COPIES)
    return Launches(counts.total() / iterations, copies / iterations, counts[WAIT] / iterations)


def operators(step: Step, iterations: int) -> Counter[str]:
    """The operators that a device would be given in these iterations, by their names without `aten::`."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(iterations):
            step()
    outermost = [event for event in profiler.events() or () if event.cpu_parent is None]
    return Counter(name for event in outermost for name in computed(event))


def computed(event: FunctionEvent) -> Iterator[str]:
    """The operators in an event that a device would be given."""
    name = event.name.removeprefix("aten::")
    if name == event.name or kind(name) == "composite":
        for child in event.cpu_children:
            yield from computed(child)
    elif kind(name) == "kernel":
        yield name


@cache
def kind(name: str) -> str:
    """`composite`: torch makes it of other operators, as `linear`. `free`: it launches nothing. Else `kernel`."""
    if name in NOTHING or name.startswith(ALLOCATIONS):
        return "free"
    schemas = all_schemas()[f"aten::{name}"]
    registered = [str(schema).partition("(")[0] for schema in schemas]
    if any(torch._C._dispatch_has_kernel_for_dispatch_key(each, COMPOSITE) for each in registered if known(each)):
        return "composite"
    aliases = [given.alias_info for schema in schemas for given in schema.returns]
    return "free" if any(alias is not None and not alias.is_write for alias in aliases) else "kernel"


@cache
def all_schemas() -> dict[str, list[torch._C.FunctionSchema]]:
    """Each operator's schemas, one per overload, by its name."""
    found: dict[str, list[torch._C.FunctionSchema]] = {}
    for schema in torch._C._jit_get_all_schemas():
        found.setdefault(schema.name, []).append(schema)
    return found


def known(operator: str) -> bool:
    """Whether the dispatcher has it; some overloads are those of scripts alone."""
    return bool(torch._C._dispatch_has_kernel(operator))
