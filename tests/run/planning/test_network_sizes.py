"""Networks beyond this machine's memory are refused before any is taken."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from savae_dist.config import auto
from savae_dist.config.schema import RunConfig
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.networks import VGG19, DenseClassifier
from savae_dist.preprocess import DataSpec
from savae_dist.run.planning import network_sizes
from savae_dist.run.planning.memory import resident, tensor_bytes
from savae_dist.run.planning.network_sizes import check_sizes, outlines
from savae_dist.systems import SYSTEMS
from savae_dist.train import main

SPEC = DataSpec("image", (1, 8, 8), 10, "unit")
CPU = torch.device("cpu")


def resolved(*arguments: str) -> RunConfig:
    return auto.resolve(load([*arguments, "data.train=null"]), SPEC.shape, {})


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_outline_of_a_system_is_as_large_as_its_networks(system: str, tmp_path: Path) -> None:
    arguments = [f"system.name={system}", "networks.width=4"]
    if system in ("dfc_vae", "vae_wgan"):
        save_file(VGG19(2).state_dict(), tmp_path / "vgg19.safetensors")
        arguments.append(f"system.feature_network={tmp_path / 'vgg19.safetensors'}")
    config = resolved(*arguments)
    sizes = config.networks
    built = config.system.build(SPEC, sizes.width, sizes.norm, sizes.pools)
    found = outlines(config, SPEC)
    assert {n: tensor_bytes([one]) for n, one in found.items()} == {n: tensor_bytes([one]) for n, one in built.items()}
    assert all(parameter.is_meta for network in found.values() for parameter in network.parameters())


@pytest.mark.parametrize(
    "arguments",
    [
        ["networks.width=3000"],
        ["networks.width=4096", "system.latent_dim=65536"],
        ["system.name=vae", "system.backbone=hou", "networks.width=4096", "max_steps=1"],
        ["system.name=aae_unsupervised", "networks.width=4096"],
    ],
)
def test_networks_beyond_the_memory_are_refused_untouched(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_sizes, "memory_of", lambda device: 8_000_000_000)
    before, start = resident(), time.perf_counter()
    assert main([*arguments, f"output={tmp_path / 'run'}"]) == 2
    assert time.perf_counter() - start < 10
    assert resident() - before < 300_000_000
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert told.startswith(f"savae_dist: {next(one for one in arguments if one.startswith('networks.width'))} ")
    assert "GB, and each process has 8.00 GB of memory: lower networks.width" in told


def test_what_training_keeps_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, their gradients and Adam's two moments for what a phase trains; ZeRO shares all but the weights."""
    config = resolved("system.name=vae", "networks.width=4")
    weights = sum(tensor_bytes([network]) for network in outlines(config, SPEC).values())
    averaged = replace(config, ema=0.9)
    sgd = replace(config, optimizers={"vae": replace(config.optimizers["vae"], name="sgd")})
    for one, sharded, needed in ((config, 1, 4), (averaged, 1, 5), (sgd, 1, 2), (config, 3, 2)):
        monkeypatch.setattr(network_sizes, "memory_of", lambda device, needed=needed: needed * weights)
        check_sizes(one, SPEC, CPU, sharded)
        monkeypatch.setattr(network_sizes, "memory_of", lambda device, needed=needed: needed * weights - 1)
        with pytest.raises(
            ConfigError, match=r"^networks\.width=4 networks\.pools=2 system\.latent_dim=2: networks of"
        ):
            check_sizes(one, SPEC, CPU, sharded)


def test_a_system_that_reads_its_values_is_built_unmeasured() -> None:
    config = resolved()

    @dataclass(frozen=True)
    class Reads(type(config.system)):
        def build(self, spec: DataSpec, width: int, norm: str, pools: int) -> dict[str, torch.nn.Module]:
            float(torch.ones(1))
            return {"classifier": DenseClassifier(2, 3)}

    check_sizes(replace(config, system=Reads()), SPEC, CPU)
