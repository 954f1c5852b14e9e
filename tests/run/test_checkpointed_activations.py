"""Runs with `networks.checkpoint_activations`: less memory told, the same weights, resumed with and without."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.held_memory import steps_told_and_held
from helpers.launching import SMALL, cut, equal, shards, weights

from savae_dist.load_config import load
from savae_dist.run.lifecycle import train
from savae_dist.run.run import Run
from savae_dist.train import main

WITH = "networks.checkpoint_activations=true"
MANY = 64  # samples, whose activations are more than the weights and what optimisers keep


def test_less_memory_is_told_and_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The most that each step holds; what is told of it is within a quarter, as kernels depend on the batch's size."""
    words = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", "networks.width=8", f"output={tmp_path / 'run'}"]
    found: list[list[tuple[str, int]]] = []

    def measure(run: Run) -> str:
        for name, told, held in steps_told_and_held(run, MANY):
            print(f"{name} {' '.join(more)}: {held:,} bytes held, {told:,} told")
            assert told == pytest.approx(held, rel=0.25), name
            found[-1].append((name, held))
        return ""

    for more in ([], [WITH]):
        found.append([])
        assert train(load([*words, *more]), measure) == 0
    kept, again = found
    assert [name for name, _ in again] == ["vec/vec", "decoder/critic", "decoder/critic", "decoder/decoder"]
    assert all(less <= more for (_, more), (_, less) in zip(kept, again, strict=True))
    assert again[0][1] < 0.85 * kept[0][1]
    assert again[-1][1] < 0.7 * kept[-1][1]


def test_check_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", f"output={tmp_path / 'run'}", "--check"]
    each = []
    for more in ([], [WITH]):
        assert main([*words, *more]) == 0
        told = capsys.readouterr().out
        assert ("memory:     activations within stages are computed again" in told) == bool(more)
        each.append(float(re.findall(r"any batch, ([\d.]+) MB a sample", told)[0]))
    assert each[1] < each[0]


def test_a_run_goes_on_without_what_it_began_with(tmp_path: Path) -> None:
    """It is no part of what a run is: to the bit the same weights, begun with and ended without, and the other way."""
    words = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", "max_steps=4", "checkpoint_every=2", "ema=0.5"]
    words += ["keep_checkpoints=9", "system.critic_regulariser=spectral_norm"]
    kept, computed = tmp_path / "kept", tmp_path / "computed"
    assert main([*words, f"output={kept}"]) == 0
    assert main([*words, WITH, f"output={computed}"]) == 0
    assert equal(weights(kept), weights(computed))
    for step, begun, more in ((2, kept, [WITH]), (6, computed, [])):
        again = tmp_path / f"from {step}"
        cut(begun, again, step)
        assert main([*words, *more, f"output={again}"]) == 0
        assert equal(weights(again), weights(kept))
