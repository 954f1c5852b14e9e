"""Batch norms over all processes: where they come from, where they may not run, and what is saved of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.networks import Network
from savae_dist.run.setup import build_networks
from savae_dist.testing.small_run import IMAGE
from savae_dist.training.batches import BatchSplit


def build(norm: str, device: str) -> dict[str, Network]:
    config = load(["demo", "networks.width=4", "system.latent_dim=3"])
    config.networks = replace(config.networks, norm=norm, pools=2)
    return build_networks(config, IMAGE, BatchSplit(8), torch.device(device))[0]


def test_the_key_is_known() -> None:
    assert load(["demo", "networks.norm=sync_batch"]).networks.norm == "sync_batch"


def test_cpus_refuse_them() -> None:
    with pytest.raises(ConfigError, match=r"networks\.norm=sync_batch needs GPUs.*networks\.norm=group"):
        build("sync_batch", "cpu")


def test_every_batch_norm_is_one(tmp_path: Path) -> None:
    """And a checkpoint or a pipeline is that of plain batch norms."""
    together, plain = build("sync_batch", "meta"), build("batch", "meta")
    kinds = {type(m) for network in together.values() for m in network.modules() if isinstance(m, nn.SyncBatchNorm)}
    assert kinds == {nn.SyncBatchNorm}
    for name, network in together.items():
        assert not any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in network.modules())
        assert network.state_dict().keys() == plain[name].state_dict().keys()
        assert network.init_arguments == plain[name].init_arguments
