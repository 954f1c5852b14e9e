"""Runs with `networks.checkpoint_activations`: less memory told, the same weights, resumed with and without."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from helpers.launching import SMALL, cut, equal, shards, weights
from torch import nn

from savae_dist.load_config import load
from savae_dist.run.lifecycle import train
from savae_dist.run.planning import memory
from savae_dist.run.run import Run
from savae_dist.train import main

WITH = "networks.checkpoint_activations=true"
MANY = 64  # samples, whose activations are more than the weights and what optimisers keep


def test_less_memory_is_told_and_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The most that each step holds; what is told of it is within a quarter, as kernels depend on the batch's size."""
    words = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", "networks.width=8", f"output={tmp_path / 'run'}"]
    found: list[list[tuple[str, int]]] = []

    def measure(run: Run) -> str:
        for phase in run.phases:
            cost, held = memory.phase_cost(run, phase), memory.HeldBytes()
            with held:
                updates = run.updates_of(phase, compile="none")
                steps = [step for step in phase.optimizer_steps() if step.update.active]
                for step in steps:
                    memory.take(run, phase, updates, step, MANY)
                for step, told in zip(steps, cost.steps, strict=True):
                    held.after.clear()
                    memory.take(run, phase, updates, step, MANY)
                    print(f"{told.name} {' '.join(more)}: {max(held.after):,} bytes held, {told.bytes(MANY):,} told")
                    assert told.bytes(MANY) == pytest.approx(max(held.after), rel=0.25), told.name
                    found[-1].append((told.name, max(held.after)))
            for update in updates.values():
                update.close()
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


def test_images_are_computed_in_channels_last_order(tmp_path: Path) -> None:
    """Every run has it, without a key: weights, and what comes out of convolutions."""
    seen: list[bool] = []

    def look(run: Run) -> str:
        for network in run.networks.values():
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    assert module.weight.is_contiguous(memory_format=torch.channels_last)
        encoder = run.networks["encoder"]
        x = torch.rand(2, *run.data.shards.spec.shape)
        hooks = [
            module.register_forward_hook(
                lambda _module, _inputs, out: seen.append(out.is_contiguous(memory_format=torch.channels_last))
            )
            for module in encoder.modules()
            if isinstance(module, nn.Conv2d)
        ]
        in_order = encoder(x)[0].mean
        for hook in hooks:
            hook.remove()
        channels_first = encoder.to(memory_format=torch.contiguous_format)(x)[0].mean  # type: ignore[call-overload]
        torch.testing.assert_close(in_order, channels_first, rtol=1e-4, atol=1e-5)
        return ""

    words = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", f"output={tmp_path / 'run'}"]
    assert train(load(words), look) == 0
    assert seen
    assert all(seen)
