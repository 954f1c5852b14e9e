"""`keep_best` and `patience`: which validation's checkpoint stays, and when the last phase ends for want of a better.

Only validations of the last phase count, since before it not all networks are trained. A run that was killed repeats
the same validations at the same steps, so it keeps the same best as an undisturbed run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from savae_dist.config.metric_names import Direction, kept_by
from savae_dist.config.schema import RunConfig
from savae_dist.distributed.ranks import Peers
from savae_dist.errors import ConfigError
from savae_dist.run.checkpoints.checkpoint import folder_of
from savae_dist.run.training_state import TrainingState
from savae_dist.systems.phases import Phase


@dataclass(frozen=True)
class KeepBest:
    """by: the value of `keep_best`. metric: its metric; "" where no best is kept. last_phase: whose validations count.

    patience: after so many validations in a row without a better one the last phase ends; 0: never.
    checkpoints: the folder of the run's checkpoints.
    """

    by: str
    metric: str
    direction: Direction
    last_phase: str
    patience: int
    checkpoints: Path

    @classmethod
    def of(cls, config: RunConfig, last: Phase, validated: bool) -> KeepBest:
        """ConfigError where a best is asked for and there is no validation set."""
        checkpoints = Path(config.output or ".") / "checkpoints"
        if config.keep_best is None:
            return cls("", "", "lower", last.name, 0, checkpoints)
        if not validated:
            raise ConfigError(
                f"keep_best={config.keep_best} needs a validation set: set data.hold_out=0.1 or data.validation"
            )
        return cls(config.keep_best, *kept_by(config.keep_best), last.name, config.patience, checkpoints)

    def with_checkpoints(self, state: TrainingState, peers: Peers) -> KeepBest:
        """Forget the best of `state` if rank 0 does not find its checkpoint, and return itself.

        A run that goes on from an older checkpoint may have deleted the best of that time, in favour of a later best
        that is gone, too.
        """
        if state.best:
            place = folder_of(self.checkpoints, state.best["total"])
            if not peers.each(lambda: {"there": place.is_dir()})[0]["there"]:
                state.best = {}
        return self

    def judged(self, metrics: Mapping[str, Any], at: TrainingState) -> bool:
        """Enter a validation into `at`, and return whether it is the best so far.

        Of equal values the first stays. A metric that is not finite, or not measured, never counts as better.
        """
        if not self.metric or at.phase != self.last_phase:
            return False
        if at.best and at.best["by"] != self.by:
            at.best, at.unimproved = {}, 0
        at.judged = at.total
        value = metrics.get(self.metric)
        if value is None or not math.isfinite(value) or (at.best and not self._better(value, at.best["value"])):
            at.unimproved += 1
            return False
        numbers = {name: one for name, one in metrics.items() if isinstance(one, float) and math.isfinite(one)}
        place = {"phase": at.phase, "step": at.step, "total": at.total}
        at.best, at.unimproved = {"by": self.by, "value": value, **place, "metrics": numbers}, 0
        return True

    def overdue(self, at: TrainingState, every: int, last: int) -> bool:
        """Whether a validation was due at this step and a stop came before it; `every`: steps between validations."""
        due = at.step > 0 and at.step % every == 0 and at.step < last
        return due and bool(self.metric) and at.phase == self.last_phase and at.judged < at.total

    def tired(self, at: TrainingState) -> bool:
        """Whether patience is used up, so that the last phase ends here."""
        return 0 < self.patience <= at.unimproved

    def _better(self, value: float, than: float) -> bool:
        return value > than if self.direction == "higher" else value < than
