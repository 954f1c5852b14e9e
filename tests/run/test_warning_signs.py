"""Each sign that a run is sick, on numbers where it stands and where it does not."""

from __future__ import annotations

import pytest

from savae_dist.run.warning_signs import (
    critic_too_strong,
    flips_rise,
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
        (0.0, None, True),  # a system without a classifier
        (None, 0.1, False),
        (float("nan"), 0.1, False),
    ],
)
def test_a_collapse_is_seen(kl: float | None, accuracy: float | None, expected: bool) -> None:
    assert bool(posterior_collapsed({"kl": kl, "accuracy": accuracy}, classes=10)) is expected
