"""Terms that a configuration names are looked for in the losses before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from helpers.contract import OPTIONS, make
from helpers.launching import SMALL, cut, equal, scalars, status, weights

from savae_dist.config.effect import field_values
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.run.terms import check_terms as check_terms_named
from savae_dist.run.terms import terms_of
from savae_dist.systems import SYSTEMS
from savae_dist.systems.phases import Phase
from savae_dist.testing.contract import check_terms
from savae_dist.testing.small_run import IMAGE, SmallRun
from savae_dist.train import main


@pytest.mark.parametrize("name", OPTIONS)
def test_they_are_those_that_training_gives(name: str) -> None:
    run = SmallRun(make(name))
    before = run.tensors()
    found = [term for p in run.phases.values() for u in p.updates for term in terms_of(u, run.networks, IMAGE)]
    assert set(found) == set(check_terms(make(name)))
    after = run.tensors()
    assert all(value.equal(after[network][key]) for network in before for key, value in before[network].items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("schedules.avd.start=1", "schedules.avd: no loss of savae has such a term (did you mean 'adv'?)"),
        ("schedules.critic.adv.start=1", "schedules.critic.adv: no loss of savae has such a term"),
        ("schedules.adv.start=4 system.decoder_steps=4", "schedules.adv.start=4: its phase ends after 4 steps"),
        ("adaptive.avd.to=rec", "adaptive.avd: no loss of savae has such a term (did you mean 'adv'?)"),
        ("adaptive.adv.to=kl", "adaptive.adv.to=kl is no other term of decoder, which has rec, latent"),
        ("adaptive.adv.to=adv", "adaptive.adv.to=adv is no other term of decoder, which has rec, latent"),
        ("adaptive.kl.to=cat", "adaptive.kl: update vec does not train the decoder: name one that does, UPDATE.kl"),
        ("adaptive.kl.to=rec system.name=vae", "adaptive.kl.to=rec: the gradient of kl does not reach the decoder"),
    ],
)
def test_refused_at_the_start(
    arguments: str, message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, *arguments.split(), f"data.train={data}", f"output={tmp_path / 'run'}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_chance_of_a_term_that_is_not_there_is_refused() -> None:
    @dataclass(frozen=True)
    class Misspelt(type(SYSTEMS["dcgan"])):
        def phases(self) -> tuple[Phase, ...]:
            (phase,) = super().phases()
            wrong = [replace(one, chance={"reall": 0.69}) if one.chance else one for one in phase.updates]
            return (replace(phase, updates=tuple(wrong)),)

    config = load(["dcgan", "system.latent_dim=3"])
    system = Misspelt(**field_values(config.system))
    networks = system.build(IMAGE, 4, "group", 2)
    with pytest.raises(
        ConfigError, match=r"chance names 'reall', which none of its losses returns \(did you mean 'real'"
    ):
        check_terms_named(replace(config, system=system), networks, IMAGE)
    assert check_terms_named(config, networks, IMAGE) is None


def test_a_weight_of_zero_leaves_a_schedule_without_its_term(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    without = ["system.beta=0", "schedules.adv.start=1", "max_steps=2", f"data.train={data}", f"output={output}"]
    assert main([*SMALL, *without]) == 0
    assert status(output)["outcome"] == "done"


def test_a_run_follows_them_and_goes_on_exactly(data: Path, tmp_path: Path) -> None:
    """The curves show the factors, and an update its learning rate from its start on."""
    game = ["schedules.kl.ramp=4", "schedules.adv.start=2", "optimizers.decoder.start=1", "log_every=1"]
    steps = ["system.vec_steps=4", "system.decoder_steps=4", "checkpoint_every=3", "keep_checkpoints=9"]
    common = [*SMALL, *steps, *game, f"data.train={data}"]
    whole, again = tmp_path / "whole", tmp_path / "again"
    assert main([*common, f"output={whole}"]) == 0
    curves = scalars(whole)
    assert curves["vec/kl_factor"] == {1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0}
    assert curves["decoder/adv_factor"] == {6: 0.0, 7: 1.0, 8: 1.0}
    assert [curves["decoder/lr"][step] > 0 for step in (5, 6, 7, 8)] == [False, True, True, True]
    for step in (3, 7):
        cut(whole, again / str(step), step)
        assert main([*common, f"output={again / str(step)}"]) == 0
        assert equal(weights(again / str(step)), weights(whole))
