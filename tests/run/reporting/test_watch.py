"""What a run is warned of, and when; on logs that are made up, and on small runs that are sick on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.launching import SMALL, shards, status
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from savae_dist.run.checkpoints.checkpoint import checkpoints, read_state
from savae_dist.run.reporting.watch import IN_A_ROW, RISES, SLOW, Watch, terms_of
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import IMAGE
from savae_dist.train import main

SYSTEM = SAVAE(latent_dim=2)
_, DECODER = SYSTEM.phases()
WON = {"critic/real": 0.0, "critic/generated": 0.0, "critic/gradient_norm": 1.0}
OPEN = {**WON, "critic/real": 0.5}


@pytest.fixture(scope="module")
def networks() -> dict[str, object]:
    return dict(SYSTEM.build(IMAGE, 4, "batch", 2))


def watch(networks: dict[str, object], told: dict[str, str] | None = None) -> Watch:
    return Watch(networks, 4, {} if told is None else told)


def test_a_sign_is_told_once_it_has_stood_in_several_logs(networks: dict[str, object]) -> None:
    told: dict[str, str] = {}
    one = watch(networks, told)
    for step in range(IN_A_ROW - 1):
        assert one.logged(DECODER, step, WON) == {}
    assert one.logged(DECODER, 7, OPEN) == {}  # it begins anew
    for step in range(IN_A_ROW - 1):
        assert one.logged(DECODER, step, WON) == {}
    found = one.logged(DECODER, 40, WON)
    assert list(found) == ["critic too strong (decoder)"]
    assert found["critic too strong (decoder)"].startswith("decoder step 40: critic too strong: ")
    assert told == found


def test_a_sign_is_told_once_per_phase(networks: dict[str, object]) -> None:
    told: dict[str, str] = {}
    one = watch(networks, told)
    assert len([found for step in range(9) if (found := one.logged(DECODER, step, WON))]) == 1
    later = watch(networks, told)  # after a resumption
    assert not any(later.logged(DECODER, step, WON) for step in range(9))


def test_what_is_seen_of_the_decoders_output(networks: dict[str, object]) -> None:
    """Its gradient, its variance, and that the critic does not see what is plain."""
    at_chance = {"critic/real": 1.0, "critic/generated": 1.0}
    sick = {"shares": {"rec": 0.99, "adv": 0.01}, "pictures": {"variance": 0.0, "roughness_gap": 2.0}}
    one = watch(networks)
    one.logged(DECODER, 0, at_chance, {"rec": 0.5, "adv": 0.5})
    found = [one.logged(DECODER, step, at_chance, **sick) for step in (50, 100, 150, 200)]
    names = {"one term drives", "generated samples are all alike", "critic cannot tell"}
    assert [{sign.partition(" (")[0] for sign in each} for each in found] == [set(), set(), names, set()]
    early = watch(networks)  # every network begins so
    assert not any(early.logged(DECODER, step, at_chance, **sick) for step in range(SLOW))
    always = watch(networks)
    assert not any("one term" in str(always.logged(DECODER, step, at_chance, **sick)) for step in range(9))
    well = {"shares": {"rec": 0.6, "adv": 0.4}, "pictures": {"variance": 0.5, "roughness_gap": 0.2}}
    other = watch(networks)
    assert not any(other.logged(DECODER, step, at_chance, **well) for step in range(9))


def test_scores_of_critics_alone_diverge(networks: dict[str, object]) -> None:
    one = watch(networks)
    for step in range(RISES):
        rising = 4.0**step
        assert one.logged(DECODER, step, {"decoder/rec": rising, "critic/gradient_norm": rising}) == {}
    other = watch(networks)
    found = [other.logged(DECODER, step, {"critic/real": -(5.0**step)}) for step in range(RISES)]
    assert [list(one) for one in found] == [[]] * (RISES - 1) + [["scores diverge (decoder)"]]


def test_factors_of_terms_are_no_terms() -> None:
    critic = DECODER.updates[0]
    logged = {"critic/real": 2.0, "critic/real_factor": 0.5, "critic/gradient_norm": 1.0, "decoder/rec": 3.0}
    assert terms_of(critic, logged) == {"real": 2.0}


def test_a_class_that_is_lost(networks: dict[str, object]) -> None:
    """Against the decoder's loss alone: the critic's says nothing of it."""
    one = watch(networks)
    one.logged(DECODER, 10, {"critic/real": 1.0, "decoder/rec": 2.0, "decoder/adv": 1.0, "decoder/gradient_norm": 0.0})
    assert one.validated(DECODER, 10, {"class_flip_rate": 0.05}) == {}
    one.logged(DECODER, 20, {"critic/real": 9.0, "decoder/rec": 1.0, "decoder/adv": 1.0, "decoder/gradient_norm": 9.0})
    assert list(one.validated(DECODER, 20, {"class_flip_rate": 0.3})) == ["class lost (decoder)"]
    assert one.validated(DECODER, 30, {"class_flip_rate": 0.3}) == {}


def test_a_run_whose_critic_wins_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A decoder that hardly learns: on the terminal once, and kept in status, summary, checkpoint and curves."""
    sick = ["system.vec_steps=1", "system.decoder_steps=100", "log_every=4", "system.adversarial=hinge"]
    sick += ["system.critic_label=0.1", "optimizers.critic.lr=1e-3", "optimizers.decoder.lr=1e-6"]
    folder = shards(tmp_path / "shards")
    assert main([*SMALL, *sick, f"data.train={folder}", f"output={tmp_path / 'run'}"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "critic too strong" in line]
    assert len(lines) == 2  # while it trains, and among the closing lines
    told = json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"]
    assert lines == [f"savae_dist: {told[0]}", f"  warning   {told[0]}"]
    assert status(tmp_path / "run")["warnings"] == told
    assert list(read_state(checkpoints(tmp_path / "run" / "checkpoints")[0]).warnings.values()) == told
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert events.Tags()["tensors"] == ["warnings/critic too strong (decoder)/text_summary"]


def test_a_collapse_must_stand_twice_or_at_the_end(networks: dict[str, object]) -> None:
    nothing, something = {"kl": 0.0, "accuracy": 0.2}, {"kl": 1.0, "accuracy": 0.2}
    one = watch(networks)
    found = [one.validated(DECODER, step, kl) for step, kl in enumerate([nothing, something, nothing, nothing])]
    assert [list(each) for each in found] == [[], [], [], ["the posterior has collapsed (decoder)"]]
    assert list(watch(networks).finished(DECODER, 9, nothing)) == ["the posterior has collapsed (decoder)"]
