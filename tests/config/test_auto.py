"""What `auto` becomes, and that runs of before it was there keep their folders."""

from __future__ import annotations

import pytest

from savae_dist.config import auto
from savae_dist.load_config import load
from savae_dist.networks import ConvEncoder
from savae_dist.systems import SYSTEMS
from savae_dist.testing import IMAGE


@pytest.mark.parametrize(
    ("shape", "pools"),
    [
        *(((1, 8, 8), 2), ((1, 28, 28), 2), ((3, 32, 32), 2), ((3, 64, 64), 3), ((1, 105, 105), 4)),
        *(((3, 128, 128), 4), ((3, 256, 256), 5), ((3, 20, 256), 5), ((3, 512, 512), 6), ((1, 4096, 4096), 6)),
        *(((2, 37), 2), ((1, 256), 2), ((1, 1024), 4), ((1, 2048), 5), ((1, 100_000), 6)),
    ],
)
def test_pools(shape: tuple[int, ...], pools: int) -> None:
    assert auto.pools_for(shape) == pools


@pytest.mark.parametrize(
    ("shape", "latent_dim"),
    [((1, 28, 28), 2), ((1, 32, 32), 2), ((3, 8, 8), 128), ((1, 33, 33), 128), ((1, 1024), 2), ((1, 2048), 128)],
)
def test_latent_dim(shape: tuple[int, ...], latent_dim: int) -> None:
    assert auto.latent_dim_for(shape) == latent_dim


@pytest.mark.parametrize("side", [128, 256])
def test_the_dense_layers_stay_small(side: int) -> None:
    """With two pools the encoder had 17 million parameters at 128, 134 million at 256."""
    shape = (3, side, side)
    encoder = ConvEncoder(shape, 100, 16, auto.pools_for(shape))
    assert sum(p.numel() for p in encoder.parameters()) < 3e6


def test_what_is_chosen_stays() -> None:
    shape = (3, 64, 64)
    asked = load(["system.name=vae"])
    chosen = auto.resolve(asked, shape, {})
    assert (chosen.networks.pools, chosen.system.latent_dim) == (3, 128)
    assert auto.resolve(chosen, (1, 8, 8), {"networks.pools": 6, "system.latent_dim": 6}) == chosen
    stored = auto.resolve(asked, shape, {"networks.pools": 2, "system.latent_dim": 2})
    assert (stored.networks.pools, stored.system.latent_dim) == (2, 2)
    for damaged in (10**9, -1, "2", None, True):
        values = {"networks.pools": damaged, "system.latent_dim": damaged}
        assert auto.resolve(asked, shape, values) == chosen


@pytest.mark.parametrize("name", ["vae", "dcgan"])
def test_runs_of_before_keep_their_folders(name: str) -> None:
    """Their defaults were two pools and, where it is `auto` now, two dimensions."""
    before = ["networks.pools=2", *["system.latent_dim=2"] * (name != "dcgan")]
    arguments = [f"system.name={name}", "data.train=shards"]
    assert load(arguments).output == load([*arguments, *before]).output
    assert load(arguments).output != load([*arguments, "networks.pools=3"]).output


def test_a_system_by_itself_has_no_samples_to_go_by() -> None:
    with pytest.raises(ValueError, match=r"system.latent_dim=auto .* give a number"):
        SYSTEMS["savae"].build(IMAGE, 4, "group", 2)
