"""The order in which images lie in memory: channels last, in every run."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers.launching import SMALL, shards
from torch import nn

from savae_dist.load_config import load
from savae_dist.run.lifecycle import train
from savae_dist.run.run import Run


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
