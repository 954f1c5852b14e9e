"""What is said of networks that do not fit their system, before anything is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from savae_dist.errors import ConfigError
from savae_dist.networks import ConvCritic, Network
from savae_dist.systems import SYSTEMS, VAE
from savae_dist.systems.fit import check_fit
from savae_dist.testing import IMAGE


def built() -> dict[str, Network]:
    return VAE().build(IMAGE, 4, "group", 2)


def test_ours_fit() -> None:
    for name in ("vae", "savae", "aae_unsupervised", "wgan"):
        system = SYSTEMS[name]
        check_fit(system, system.build(IMAGE, 4, "group", 2))
    assert check_fit(VAE(), built()) is None


def test_a_pipeline_s_roles_are_kept() -> None:
    with pytest.raises(ConfigError, match=r"the decoder of a pipeline is a Decoder, and ConvCritic is none: subclass"):
        check_fit(VAE(), {**built(), "decoder": ConvCritic(IMAGE.shape, 4)})


def test_what_is_trained_must_be_built() -> None:
    networks = built()
    del networks["decoder"]
    with pytest.raises(ConfigError, match=r"system.name=vae: update 'vae' trains 'decoder', and build makes encoder"):
        check_fit(replace(VAE(), latent_dim=3), networks)
