"""What is said of networks that do not fit their system, before anything is trained."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from savae_dist.errors import ConfigError
from savae_dist.networks import ConvCritic, Network
from savae_dist.systems import SYSTEMS, VAE
from savae_dist.systems.fit import check_fit
from savae_dist.systems.own import enter
from savae_dist.systems.phases import Phase, Update
from savae_dist.testing import IMAGE


def built() -> dict[str, Network]:
    return VAE().build(IMAGE, 4, "group", 2)


def test_ours_fit() -> None:
    for name in ("vae", "savae", "aae_unsupervised", "wgan"):
        system = replace(SYSTEMS[name], latent_dim=3)
        check_fit(system, system.build(IMAGE, 4, "group", 2))
    assert check_fit(VAE(), built()) is None


def test_a_pipeline_s_roles_are_kept() -> None:
    with pytest.raises(ConfigError, match=r"the decoder of a pipeline is a Decoder, and ConvCritic is none: subclass"):
        check_fit(VAE(), {**built(), "decoder": ConvCritic(IMAGE.shape, 4)})


@pytest.mark.parametrize("name", ["dcgan", "vae_gan", "ava1"])
def test_r1_takes_no_batch_norm(name: str) -> None:
    system = replace(SYSTEMS[name], latent_dim=3, r1_weight=1.0, backbone="dcgan")
    with pytest.raises(ConfigError, match=r"system\.r1_weight=1\.0: batch norm mixes the samples"):
        system.build(IMAGE, 4, "batch", 2)
    assert "critic" in system.build(IMAGE, 4, "group", 2)
    assert "critic" in replace(system, r1_weight=0.0).build(IMAGE, 4, "batch", 2)


def test_posteriors_are_kept_of_a_frozen_encoder_only() -> None:
    system = replace(SYSTEMS["savae"], latent_dim=3)
    networks = system.build(IMAGE, 4, "group", 2)

    @dataclass(frozen=True)
    class Wrong(type(system)):
        of: str = "encoder"

        def phases(self) -> tuple[Phase, ...]:
            return tuple(replace(phase, posteriors=self.of) for phase in super().phases())

    for of in ("encoder", "classifier", "none"):
        with pytest.raises(
            ConfigError, match=rf"phase 'vec' keeps the posteriors of '{of}', which is no frozen Encoder"
        ):
            check_fit(Wrong(latent_dim=3, of=of), networks)


def test_what_is_trained_must_be_built() -> None:
    networks = built()
    del networks["decoder"]
    with pytest.raises(ConfigError, match=r"system.name=vae: update 'vae' trains 'decoder', and build makes encoder"):
        check_fit(replace(VAE(), latent_dim=3), networks)


def test_a_misspelt_name_of_the_pipeline_is_refused() -> None:
    @dataclass(frozen=True)
    class Misspelt(VAE):
        pipeline = ("encoder", "decodr")

    expected = r"pipeline is to hold 'decodr', which build does not make \(did you mean 'decoder'\?\)"
    with pytest.raises(ConfigError, match=expected):
        check_fit(Misspelt(latent_dim=3), built())


@dataclass(frozen=True)
class Idle:
    """One phase, of which nothing is active."""

    name: str = "idle"
    pipeline = ("decoder",)

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("nothing", 3, (Update("vae", ("decoder",), (), active=False),)),)


def test_a_phase_in_which_nothing_is_active_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"system.name=idle: phase 'nothing' has no active update: leave it out"):
        check_fit(Idle(), built())


def test_a_file_that_trains_when_it_is_imported_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "unguarded.py"
    file.write_text("import sys\nsys.exit(3)\n")
    for _ in range(2):  # the second time too: nothing of the first is left
        with pytest.raises(ConfigError, match=r"exits when it is imported: put what it starts under `if __name__"):
            enter(file)
    assert str(file) not in sys.modules
