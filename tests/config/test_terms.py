"""Keys by the name of a term: `schedules.TERM` and `schedules.UPDATE.TERM`, and the starts of updates."""

from __future__ import annotations

from pathlib import Path

import pytest

from savae_dist.config.identity import digest, identity, to_yaml
from savae_dist.config.terms import AdaptiveConfig, ScheduleConfig
from savae_dist.errors import ConfigError
from savae_dist.load_config import load

SCHEDULES = ["schedules.kl.ramp=500", "schedules.decoder.adv.start=300", "schedules.decoder.adv.ramp=20"]


def test_by_term_and_by_update(tmp_path: Path) -> None:
    expected = {"kl": ScheduleConfig(ramp=500), "decoder.adv": ScheduleConfig(300, 20)}
    config = load(["mnist_k2", *SCHEDULES])
    assert config.schedules == expected
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load([str(tmp_path / "again.yaml")]).schedules == expected
    changed = load([str(tmp_path / "again.yaml"), "schedules.decoder.adv.ramp=5", "schedules.kl.ramp=0"])
    assert changed.schedules == {"decoder.adv": ScheduleConfig(300, 5)}  # one that does nothing is none


def test_adaptive_weights_likewise(tmp_path: Path) -> None:
    config = load(["mnist_k2", "adaptive.decoder.adv.to=rec", "adaptive.decoder.adv.ratio=0.8"])
    assert config.adaptive == {"decoder.adv": AdaptiveConfig("rec", 0.8)}
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load([str(tmp_path / "again.yaml")]).adaptive == config.adaptive
    assert load([str(tmp_path / "again.yaml"), "system.name=vae"]).adaptive == {}  # another paper's terms


def test_they_belong_to_the_run_and_to_its_paper() -> None:
    plain, scheduled = load(["mnist_k2"]), load(["mnist_k2", *SCHEDULES])
    added = {key: value for key, value in identity(scheduled).items() if key not in identity(plain)}
    assert added == {
        **{"schedules.kl.start": 0, "schedules.kl.ramp": 500},
        **{"schedules.decoder.adv.start": 300, "schedules.decoder.adv.ramp": 20},
    }
    assert digest(load(["mnist_k2", "schedules.adv.start=0"])) == digest(plain)
    assert digest(load(["mnist_k2", "optimizers.decoder.start=7"])) != digest(plain)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("schedules=3", "schedules: holds the names of terms, schedules.TERM.start=..., not 3"),
        ("schedules.adv=3", "schedules.adv: holds keys, schedules.adv.start=..., not 3"),
        ("schedules.adv.begin=3", "schedules.adv.begin: no such key; known: start, ramp"),
        ("schedules.decoder.adv.rampe=3", "schedules.decoder.adv.rampe: no such key (did you mean 'ramp'?)"),
        ("schedules.adv.start=-1", "schedules.adv.start must not be negative, not -1"),
        ("schedules.adv.start=soon", "Value 'soon' of type 'str' could not be converted to Integer"),
        ("adaptive.adv.ratio=2", "adaptive.adv.to names the term whose gradient it is measured against"),
        ("adaptive={adv: {to: rec, most: 0}}", "adaptive.adv.most must be positive, not 0"),
        ("optimizers.decoder.start=-1", "optimizers.decoder.warmup, optimizers.decoder.start and"),
        ("optimizers.decoder.start=900", "optimizers.decoder.start=900: phase decoder ends after 900 steps"),
        (
            "optimizers.default.start=5",
            "nothing is trained before step 5 of phase vec: leave out the start of one of vec",
        ),
    ],
)
def test_refused_in_one_line(argument: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(["system.name=savae", argument])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_phase_without_steps_refuses_no_start() -> None:
    config = load(["system.name=savae", "system.decoder_steps=0", "optimizers.decoder.start=5"])
    assert config.optimizers["decoder"].start == 5
