"""Signs that a run is sick, as pure functions of what is logged and validated: a finding, or None.

docs/game.md shows each of them on a run, and what to turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

WON = 0.01  # share of the loss at chance below which a critic has won
NO_BETTER = 0.95  # share of the loss at chance above which a critic cannot tell
PLAIN = 1.0  # gap of roughness, in standard deviations, that is plain to see
ALL, SOME = 0.95, 0.9  # shares of the gradient: of a term that drives alone, and of one that others hold in check
ALIKE = 0.05  # share of the real samples' variance
RISEN, LARGE = 10.0, 100.0  # scores that have grown by this factor, to more than this, grow without bound
FLIPS = 0.1  # by how much more samples are flipped than at the best validation


class Finding(NamedTuple):
    """name: of the sign. seen: what was measured. turn: the keys that help."""

    name: str
    seen: str
    turn: str

    def __str__(self) -> str:
        return f"{self.name}: {self.seen}; {self.turn}"


def critic_too_strong(update: str, terms: Mapping[str, float], chance: Mapping[str, float]) -> Finding | None:
    """A critic's loss on every kind of sample is below 1 % of that at chance: it has nothing left to learn.

    terms: of its update. chance: `Update.chance`.
    """
    if not chance or not all(terms[name] <= WON * level for name, level in chance.items()):
        return None
    shown = ", ".join(f"{name} {terms[name]:.2g} of {level:.2g}" for name, level in chance.items())
    return Finding(
        "critic too strong",
        f"the losses of {update} are within 1 % of their floor ({shown} at chance)",
        f"lower optimizers.{update}.lr, or raise the rate of what it judges",
    )


def critic_cannot_tell(
    update: str, terms: Mapping[str, float], chance: Mapping[str, float], gap: float
) -> Finding | None:
    """A critic's loss is that at chance, though one number tells generated samples from real ones.

    gap: between the roughness of both, in standard deviations (`training.pictures`).
    """
    loss, level = sum(terms[name] for name in chance), sum(chance.values())
    if not level or loss < NO_BETTER * level or not gap > PLAIN:
        return None
    return Finding(
        "critic cannot tell",
        f"the loss of {update} is {loss:.3g}, {level:.3g} at chance, though generated and real samples differ in "
        f"roughness by {gap:.1f} standard deviations",
        f"raise optimizers.{update}.lr, or give the critic more steps",
    )


def one_term_drives(shares: Mapping[str, float], least: Mapping[str, float]) -> Finding | None:
    """Nearly all of the gradient at the decoder's output has become that of one term; the others have no say any more.

    least: each term's least share so far. A term that has it all from the start is a choice of weights: AVA's squared
    error in nats is one.
    """
    term = max(shares, key=lambda name: shares[name], default="")
    if not term or shares[term] <= ALL or least[term] > SOME:
        return None
    return Finding(
        "one term drives",
        f"{shares[term]:.1%} of the gradient at the decoder's output is {term}'s, once {least[term]:.1%}",
        f"lower the weight of {term}, or raise the others'",
    )


def all_alike(variances: Sequence[float], adversary: bool) -> Finding | None:
    """What the decoder makes is nearly the same for every code, and is not about to change.

    variances: of the last logs, as shares of the real samples'. adversary: whether the decoder meets a critic.
    """
    if max(variances) >= ALIKE or variances[-1] > 1.5 * variances[0]:
        return None
    return Finding(
        "generated samples are all alike",
        f"their variance is {variances[-1]:.2g} of that of the real samples",
        "lower the critic's rate or the adversarial weight" if adversary else "lower the weight of the KL",
    )


def scores_diverge(update: str, term: str, values: Sequence[float]) -> Finding | None:
    """A term of a critic's update rises in size from log to log, far beyond where it was."""
    sizes = [abs(value) for value in values]
    rising = all(later > earlier for earlier, later in pairwise(sizes))
    if len(sizes) < 2 or not rising or sizes[-1] < max(LARGE, RISEN * sizes[0]):
        return None
    return Finding(
        "scores diverge",
        f"{update}/{term} has grown from {values[0]:.3g} to {values[-1]:.3g} over {len(values)} logs",
        f"bound the critic: optimizers.{update}.clip_weights, a gradient penalty, or a lower optimizers.{update}.lr",
    )


def flips_rise(history: Sequence[tuple[float, float]], judged: bool) -> Finding | None:
    """More samples change their class in the reconstruction than before, while the decoder's loss is lower.

    history: (share of flips, the decoder's loss) of each validation of the phase. judged: whether a judge tells them.
    """
    flips, loss = history[-1]
    least, loss_then = min(history)
    if flips < least + FLIPS or not loss < loss_then:
        return None
    whose = "judge_flip_rate" if judged else "class_flip_rate"
    return Finding(
        "class lost",
        f"{whose} has risen from {least:.3f} to {flips:.3f} while the decoder's loss fell from {loss_then:.4g} "
        f"to {loss:.4g}",
        "lower the adversarial weight (system.beta) or the critic's rate, raise system.gamma",
    )


def posterior_collapsed(metrics: Mapping[str, Any], classes: int) -> Finding | None:
    """The KL is near 0, as happens with Zemouri's KL weight of 1, and the accuracy is near chance."""
    kl, accuracy = metrics.get("kl"), metrics.get("accuracy")
    if kl is None or not kl < 0.05 or (accuracy is not None and accuracy >= 1.5 / classes):
        return None
    chance = "" if accuracy is None else f", accuracy {accuracy:.3f}, no better than chance"
    return Finding("the posterior has collapsed", f"KL {kl:.4f} nats{chance}", "lower the weight of the KL")


def worse_than_class_means(metrics: Mapping[str, Any]) -> Finding | None:
    """The reconstructions' error is twice that of the classes' means, which know nothing of a sample but its label."""
    error, means = metrics.get("reconstruction_mse"), metrics.get("class_mean_mse")
    if error is None or means is None or error <= 2 * means:
        return None
    return Finding(
        "nothing useful was learnt",
        f"reconstruction error {error:.3g}, and {means:.3g} for the mean of each class",
        "more steps, or a larger system.latent_dim",
    )
