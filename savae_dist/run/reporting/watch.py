"""Looks at what a run logs and validates, and names signs that it is sick."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from savae_dist.networks.base import Critic, Decoder, Discriminator, Network
from savae_dist.run.reporting import warning_signs as signs
from savae_dist.run.reporting.warning_signs import Finding
from savae_dist.systems.phases import Phase, Update
from savae_dist.training.schedules import FACTOR

IN_A_ROW = 3  # logs in which a sign of training must stand before it is told: single batches swing
SLOW = 100  # iterations over which signs must stand that every network shows before it has learnt anything
NOTHING: Mapping[str, float] = MappingProxyType({})
RISES = 4  # logs in which a score that diverges has risen each time


@dataclass
class Seen:
    """What is kept of a phase.

    since: sign -> the steps of the logs in which it has stood. least: term -> its least share of the gradient.
    variances: of what the decoder made, in the last logs. values: `UPDATE/TERM` -> its last means. decoder_loss: of the
    last log; None before there is one. flips: (share, decoder's loss) of each validation.
    """

    phase: str
    since: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    least: dict[str, float] = field(default_factory=dict)
    variances: deque[float] = field(default_factory=lambda: deque(maxlen=IN_A_ROW))
    values: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=RISES)))
    decoder_loss: float | None = None
    flips: list[tuple[float, float]] = field(default_factory=list)


class Watch:
    """Each sign is given once per phase, and on all ranks alike, since what it is read from is.

    classes: of the data. told: the warnings of this run by sign and phase, also those of earlier launches. Every method
    adds what is new to it, and returns that.
    """

    def __init__(self, networks: Mapping[str, Network], classes: int, told: dict[str, str]) -> None:
        self.networks, self.classes, self.told = networks, classes, told
        self.seen = Seen("")
        self.collapsed = 0

    def logged(
        self,
        phase: Phase,
        step: int,
        losses: Mapping[str, float],
        shares: Mapping[str, float] = NOTHING,
        pictures: Mapping[str, float] = NOTHING,
    ) -> dict[str, str]:
        """losses: `UPDATE/TERM` -> its mean since the last log. shares: `gradient_shares`. pictures: `Comparison`."""
        self._enter(phase)
        least = self.seen.least
        least.update({term: min(share, least.get(term, 1.0)) for term, share in shares.items()})
        drives = signs.one_term_drives(shares, least)
        found = [self._stands("drives", drives, step), self._alike(pictures.get("variance"), step)]
        gap = pictures.get("roughness_gap", 0.0)
        for update in phase.updates:
            terms = terms_of(update, losses)
            if update.chance.keys() <= terms.keys():
                won = signs.critic_too_strong(update.name, terms, update.chance)
                found.append(self._stands(f"{update.name} won", won, step))
                if self._trains(update, (Critic,)):
                    blind = signs.critic_cannot_tell(update.name, terms, update.chance, gap)
                    found.append(self._stands(f"{update.name} blind", blind, step, SLOW))
            if self._trains(update, (Critic, Discriminator)):
                found += self._diverging(update, terms)
            if self._trains(update, (Decoder,)):
                self.seen.decoder_loss = sum(terms.values())
        return self._new(phase, step, found)

    def validated(self, phase: Phase, step: int, metrics: Mapping[str, Any]) -> dict[str, str]:
        """metrics: of a validation within a phase or at its end."""
        self._enter(phase)
        judged = metrics.get("judge_flip_rate") is not None
        flips = metrics.get("judge_flip_rate" if judged else "class_flip_rate")
        found = [self._collapsed(metrics)]
        if flips is not None and self.seen.decoder_loss is not None:
            self.seen.flips.append((flips, self.seen.decoder_loss))
            found.append(signs.flips_rise(self.seen.flips, judged))
        return self._new(phase, step, found)

    def finished(self, phase: Phase, step: int, metrics: Mapping[str, Any]) -> dict[str, str]:
        """metrics: of the run's end."""
        # Only the collapse is told where both are found: it is why the error is large.
        end = signs.posterior_collapsed(metrics, self.classes) or signs.worse_than_class_means(metrics)
        return self.validated(phase, step, metrics) | self._new(phase, step, [end])

    def _enter(self, phase: Phase) -> None:
        """Forget what belongs to the phase before."""
        if phase.name != self.seen.phase:
            self.seen = Seen(phase.name)

    def _trains(self, update: Update, roles: tuple[type[Network], ...]) -> bool:
        return any(isinstance(self.networks[name], roles) for name in update.trains)

    def _stands(self, what: str, finding: Finding | None, step: int, steps: int = 0) -> Finding | None:
        """The finding once it has stood in IN_A_ROW logs, and over so many iterations."""
        since = self.seen.since[what] = [*self.seen.since[what], step] if finding else []
        return finding if len(since) >= IN_A_ROW and step - since[0] >= steps else None

    def _alike(self, variance: float | None, step: int) -> Finding | None:
        if variance is None:
            return None
        self.seen.variances.append(variance)
        adversary = any(isinstance(network, Critic | Discriminator) for network in self.networks.values())
        return self._stands("alike", signs.all_alike(list(self.seen.variances), adversary), step, SLOW)

    def _collapsed(self, metrics: Mapping[str, Any]) -> Finding | None:
        """A collapse at the second validation that shows it: before it has trained a posterior says nothing either."""
        finding = signs.posterior_collapsed(metrics, self.classes)
        self.collapsed = self.collapsed + 1 if finding else 0
        return finding if self.collapsed > 1 else None

    def _diverging(self, update: Update, terms: Mapping[str, float]) -> list[Finding | None]:
        found = []
        for term, value in terms.items():
            values = self.seen.values[f"{update.name}/{term}"]
            values.append(value)
            if len(values) == RISES:
                found.append(signs.scores_diverge(update.name, term, list(values)))
        return found

    def _new(self, phase: Phase, step: int, found: Iterable[Finding | None]) -> dict[str, str]:
        lines = {f"{one.name} ({phase.name})": f"{phase.name} step {step}: {one}" for one in found if one is not None}
        new = {sign: line for sign, line in lines.items() if sign not in self.told}
        self.told.update(new)
        return new


def terms_of(update: Update, losses: Mapping[str, float]) -> dict[str, float]:
    """Of `UPDATE/TERM` -> mean, the terms of one update."""
    of = f"{update.name}/"
    found = {key.removeprefix(of): value for key, value in losses.items() if key.startswith(of)}
    return {term: value for term, value in found.items() if term != "gradient_norm" and not term.endswith(FACTOR)}
