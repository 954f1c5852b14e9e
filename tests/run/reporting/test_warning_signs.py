"""Each sign that a run is sick, on numbers where it stands and where it does not."""

from __future__ import annotations

import pytest

from savae_dist.run.reporting.warning_signs import (
    all_alike,
    critic_cannot_tell,
    critic_too_strong,
    flips_rise,
    one_term_drives,
    posterior_collapsed,
    scores_diverge,
)

CHANCE = {"real": 1.0, "generated": 4.0}


@pytest.mark.parametrize(
    ("real", "generated", "expected"),
    [
        (0.01, 0.04, True),
        (0.011, 0.04, False),  # one kind of sample is still to be learnt
        (0.01, 0.041, False),
        (1.0, 4.0, False),
        (float("nan"), 0.0, False),
    ],
)
def test_a_critic_that_has_won(real: float, generated: float, expected: bool) -> None:
    terms = {"real": real, "generated": generated, "penalty": 9.0}
    found = critic_too_strong("critic", terms, CHANCE)
    assert (found is not None) is expected
    assert critic_too_strong("critic", terms, {}) is None  # nothing is known of its floor
    if found is not None:
        assert str(found).startswith("critic too strong: ")
        assert "real 0.01 of 1, generated 0.04 of 4" in found.seen
        assert "optimizers.critic.lr" in found.turn


@pytest.mark.parametrize(
    ("real", "generated", "gap", "expected"),
    [
        (1.0, 4.0, 1.5, True),
        (1.2, 3.7, 1.5, True),  # swinging about chance
        (1.0, 4.0, 0.9, False),  # samples that are alike: then chance is where the game ends
        (0.7, 3.9, 1.5, False),
        (1.0, 4.0, float("nan"), False),
    ],
)
def test_a_critic_that_cannot_tell(real: float, generated: float, gap: float, expected: bool) -> None:
    found = critic_cannot_tell("critic", {"real": real, "generated": generated}, CHANCE, gap)
    assert (found is not None) is expected
    assert critic_cannot_tell("critic", {"real": real, "generated": generated}, {}, gap) is None
    assert found is None or "5 at chance" in found.seen


@pytest.mark.parametrize(
    ("shares", "least", "term"),
    [
        ({"rec": 0.03, "adv": 0.96, "latent": 0.01}, 0.9, "adv"),
        ({"rec": 0.03, "adv": 0.96, "latent": 0.01}, 0.91, None),  # so from the start: the choice of weights
        ({"rec": 0.05, "adv": 0.95}, 0.1, None),
        ({}, 0.1, None),
    ],
)
def test_one_term_that_drives(shares: dict[str, float], least: float, term: str | None) -> None:
    found = one_term_drives(shares, dict.fromkeys(shares, least))
    assert (found is None) if term is None else (found is not None and found.seen.startswith("96.0%"))
    assert found is None or found.turn.startswith(f"lower the weight of {term}")


@pytest.mark.parametrize(
    ("variances", "expected"),
    [
        ([0.049, 0.02, 0.01], True),
        ([0.001, 0.001, 0.001], True),
        ([0.001, 0.003, 0.009], False),  # it has just begun to learn
        ([0.02, 0.051, 0.01], False),
        ([0.5, 0.4, 0.3], False),
    ],
)
def test_samples_that_are_all_alike(variances: list[float], expected: bool) -> None:
    for adversary, advice in ((True, "critic's rate"), (False, "lower the weight of the KL")):
        finding = all_alike(variances, adversary)
        assert (finding is not None) is expected
        assert finding is None or advice in finding.turn


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([-20, -40, -80, -160, -320, -640], True),
        ([1, 3, 9, 27, 81, 243], True),
        ([0.1, 0.3, 0.9, 2.7, 8.1, 24.3], False),  # large against its start alone
        ([200, 210, 220, 230, 240, 250], False),  # large alone
        ([1, 3, 9, 27, 500, 400], False),  # falls again
        ([1], False),
    ],
)
def test_scores_without_bound(values: list[float], expected: bool) -> None:
    found = scores_diverge("critic", "real", values)
    assert (found is not None) is expected
    assert found is None or f"critic/real has grown from {values[0]} to {values[-1]} over 6 logs" in found.seen


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([(0.05, 2.0), (0.20, 1.0)], True),
        ([(0.30, 2.0), (0.05, 1.5), (0.20, 1.0)], True),  # against the best, not the first
        ([(0.05, 2.0), (0.20, 2.5)], False),  # the loss says it too
        ([(0.05, 2.0), (0.14, 1.0)], False),
        ([(0.30, 2.0), (0.05, 1.0)], False),
        ([(0.30, 2.0)], False),
    ],
)
def test_flips_that_rise_while_the_loss_falls(history: list[tuple[float, float]], expected: bool) -> None:
    found = flips_rise(history, judged=False)
    assert (found is not None) is expected
    assert found is None or found.seen.startswith("class_flip_rate has risen from 0.050 to 0.200")
    judged = flips_rise(history, judged=True)
    assert judged is None or judged.seen.startswith("judge_flip_rate")


@pytest.mark.parametrize(
    ("kl", "accuracy", "expected"),
    [
        (0.0, 0.1, True),
        (0.049, 0.149, True),
        (0.05, 0.1, False),  # some information
        (0.0, 0.15, False),  # better than chance
        (3.0, 0.1, False),  # untrained, not collapsed
        (3.0, 0.9, False),
        (0.0, None, True),  # without a classifier there is no accuracy
        (None, 0.1, False),
        (float("nan"), 0.1, False),
    ],
)
def test_a_collapse_is_seen(kl: float | None, accuracy: float | None, expected: bool) -> None:
    assert bool(posterior_collapsed({"kl": kl, "accuracy": accuracy}, classes=10)) is expected
