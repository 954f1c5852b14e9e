"""Runs of two steps on 60 small images."""

from __future__ import annotations

from pathlib import Path

from savae_dist.train import main as train

SMALL = ["networks.width=4", "system.latent_dim=3", "data.batch_size=16", "max_steps=2"]


def trained(system: str, data: Path, output: Path) -> Path:
    """The folder of a run of this system on the shards in `data`."""
    assert train([f"system.name={system}", *SMALL, f"data.train={data}", f"output={output}"]) == 0
    return output
