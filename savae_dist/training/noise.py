"""Standard normal draws as a pure function of key, slot and name: ranks draw their own slots and keep no random state.

The bits are those of SplitMix64 (Steele, Lea and Flood 2014): its k-th output is a hash of seed + k * GAMMA, and needs
none of the outputs before it. Integers are the same on every device; the normal values differ between devices by the
rounding of logarithm and cosine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


def seed_of(*key: int | str) -> int:
    """A 64-bit seed that depends on every part of the key."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")


def signed(value: int) -> int:
    """The lower 64 bits of `value` read as a signed number, since torch computes modulo 2^64 in int64."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


GAMMA = signed(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: its multiples run through all 64-bit numbers
FACTORS = signed(0xBF58476D1CE4E5B9), signed(0x94D049BB133111EB)
WORD = 0xFFFFFFFF  # the lower 32 bits


def scramble(state: Tensor) -> Tensor:
    """SplitMix64's output for a state int64 `[...]`, overwritten: every bit depends on all bits of the state."""
    for shift, factor in zip((30, 27), FACTORS):
        state = state.bitwise_xor_(logical_shift(state, shift)).mul_(factor)
    return state.bitwise_xor_(logical_shift(state, 31))


def logical_shift(bits: Tensor, shift: int) -> Tensor:
    """Shift to the right and fill with zeros; torch's own shift fills with the sign bit."""
    return (bits >> shift).bitwise_and_((1 << (64 - shift)) - 1)


def standard_normal(seed: int, slots: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """`standard_normals` of one seed: name -> float32 `[len(slots), *shape]`."""
    return {name: draws[0] for name, draws in standard_normals([seed], slots, shapes).items()}


def standard_normals(seeds: Sequence[int], slots: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """Name -> float32 `[len(seeds), len(slots), *shape]` on the device of slots int64 `[n]`.

    Many seeds at once cost a device as few launches as one. An element is a function of the seed, its slot, its name
    and its place, and of nothing else. Each 64 bits make two uniform numbers, of which the transform of Box and Muller
    makes two normal ones.
    """
    if not shapes:
        return {}
    sizes = tuple((name, math.prod(shape)) for name, shape in shapes.items())
    keys = torch.tensor([signed(seed) for seed in seeds]).to(slots.device, non_blocking=True)
    streams = scramble(slots * GAMMA + keys.unsqueeze(1)).unsqueeze(2)
    bits = scramble(streams + _steps(sizes, slots.device))  # [seeds, n, pairs]
    radius = (bits >> 32).bitwise_and_(WORD).float().add_(0.5).mul_(2**-32).log_().mul_(-2).sqrt_()
    angle = bits.bitwise_and_(WORD).float().mul_(2 * math.pi * 2**-32)
    values = torch.stack([radius * angle.cos(), radius * angle.sin()], 3).flatten(2)
    draws, start = {}, 0
    for name, size in sizes:
        draws[name] = values[..., start : start + size].reshape(len(seeds), len(slots), *shapes[name])
        start += size + size % 2
    return draws


@cache
def _steps(sizes: tuple[tuple[str, int], ...], device: torch.device) -> Tensor:
    """int64 `[pairs]`: the offset of each pair of elements in its slot's stream; each name has its own part."""
    parts = [(torch.arange((size + 1) // 2) + signed(seed_of(name))) * GAMMA for name, size in sizes]
    return torch.cat(parts).to(device)
