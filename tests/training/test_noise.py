"""Draws by key, slot and name: bits against SplitMix64 written in whole numbers, values against the normal law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from savae_dist.training.noise import GAMMA, scramble, seed_of, signed, standard_normal

MASK = 2**64 - 1
SLOTS = torch.arange(8)


def split_mix(state: int) -> int:
    """The reference implementation's output function, on whole numbers."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
    return state ^ (state >> 31)


def test_the_bits_are_those_of_the_published_generator() -> None:
    """The first outputs of SplitMix64 for the seed 1234567, as its authors' code prints them."""
    states = torch.tensor([signed(1234567 + k * GAMMA) for k in (1, 2, 3)])
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [value & MASK for value in scramble(states).tolist()] == published


def test_scrambling_is_exact_at_the_ends_of_the_range() -> None:
    states = [0, 1, 2**63 - 1, 2**63, MASK, 0x123456789ABCDEF0]
    found = scramble(torch.tensor([signed(state) for state in states])).tolist()
    assert [value & MASK for value in found] == [split_mix(state) for state in states]


def test_values_are_box_and_muller_s_of_these_bits() -> None:
    seed, slot = 99, 5
    found = standard_normal(seed, torch.tensor([slot]), {"z": (4,)})["z"][0]
    stream = split_mix((slot * GAMMA + seed) & MASK)
    expected = []
    for pair in range(2):
        bits = split_mix((stream + (pair + seed_of("z")) * GAMMA) & MASK)
        radius = math.sqrt(-2 * math.log(((bits >> 32) + 0.5) / 2**32))
        angle = 2 * math.pi * (bits & 0xFFFFFFFF) / 2**32
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5), (1, 7, 3)])
def test_shapes(shape: tuple[int, ...]) -> None:
    draws = standard_normal(1, SLOTS, {"first": (3,), "second": shape})
    assert draws["second"].shape == (8, *shape)
    assert draws["second"].dtype == torch.float32
    assert standard_normal(1, SLOTS, {}) == {}


def test_a_draw_depends_on_its_own_seed_slot_and_name_alone() -> None:
    whole = standard_normal(1, SLOTS, {"a": (3,), "b": (5,)})
    alone = standard_normal(1, torch.tensor([6, 2]), {"b": (5,)})["b"]
    assert torch.equal(alone, whole["b"][[6, 2]])
    longer = standard_normal(1, SLOTS, {"b": (50,)})["b"]
    assert torch.equal(longer[:, :4], whole["b"][:, :4])
    assert not torch.equal(standard_normal(2, SLOTS, {"b": (5,)})["b"], whole["b"])
    assert len({round(float(value), 5) for value in torch.cat([whole["a"], whole["b"]], 1).flatten()}) == 8 * 8


def test_the_law_is_normal_and_nothing_is_correlated() -> None:
    z = standard_normal(7, torch.arange(2000), {"z": (1001,)})["z"].numpy()
    assert stats.kstest(z[:, :200].ravel(), "norm").pvalue > 1e-3
    assert np.isfinite(z).all()
    for table in (z[:, :60].T, z[:60], np.stack([z[:-1].ravel(), z[1:].ravel()])):
        correlation = np.corrcoef(table) - np.eye(len(table))
        assert np.abs(correlation).max() < 6 / math.sqrt(table.shape[1])
    others = [standard_normal(seed, torch.arange(2000), {"z": (10,)})["z"].numpy().ravel() for seed in range(20)]
    assert np.abs(np.corrcoef(others) - np.eye(20)).max() < 6 / math.sqrt(20_000)
