"""The rule by which figure 9 is read, on the held-out part of the training set alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from savae_dist.sweeps.figure9.measured import Point

LOST = 0.1  # by how much more than at the smallest beta the judge flips where the class counts as lost
FAITHFUL = 0.05  # and how much more than at the best place of the grid a recommended place may have
MOST = 0.5  # beta* is the smallest beta at which the judge flips more than this share


@dataclass(frozen=True)
class Decision:
    """For one K; None where no beta of the grid is such.

    epsilon_1: the smallest beta at which reconstructions are sharp: at least midway between the sharpness at the
        smallest beta and that of real images.
    epsilon_2: the smallest beta at which the class is lost.
    beta_star: the smallest beta at which the judge flips more than half of the images; there gamma is judged.
    recommended: (beta, gamma), of the faithful places the one nearest to the sharpness of real images.

    The first three are without gamma, that is at the smallest gamma of the grid.
    """

    epsilon_1: str | None
    epsilon_2: str | None
    beta_star: str | None
    recommended: tuple[str, str]


def decide(points: Sequence[Point]) -> Decision:
    """The decision from the points of one K, which include the smallest beta and gamma of the grid."""
    smallest = min(points, key=lambda point: float(point.gamma)).gamma
    without = sorted((p for p in points if p.gamma == smallest), key=lambda point: float(point.beta))
    start = without[0]
    midway = (start.mean("sharpness") + 1) / 2
    least = min(point.mean("judge_flip_rate") for point in points)
    faithful = [point for point in points if point.mean("judge_flip_rate") <= least + FAITHFUL]
    best = min(faithful, key=lambda point: abs(point.mean("sharpness") - 1))

    def first(measure: str, above: float) -> str | None:
        return next((point.beta for point in without if point.mean(measure) > above), None)

    return Decision(
        epsilon_1=first("sharpness", midway),
        epsilon_2=first("judge_flip_rate", start.mean("judge_flip_rate") + LOST),
        beta_star=first("judge_flip_rate", MOST),
        recommended=(best.beta, best.gamma),
    )
