"""The best validation of a run, whose checkpoint stays beside the last ones, and when none better is waited for.

Only validations of the last phase count: before it not all networks are trained. Where the same steps are made again
after a kill the same validations follow, so that the best is that of an undisturbed run.
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
from savae_dist.run.checkpoint import folder_of
from savae_dist.run.training_state import TrainingState
from savae_dist.systems.phases import Phase


@dataclass(frozen=True)
class KeepBest:
    """by: `keep_best`, as it is set. metric: that it names; "" where no best is kept. last_phase: in which it is.

    patience: validations in a row without a better one after which the last phase ends; 0: it does not.
    checkpoints: the folder in which those of the run lie.
    """

    by: str
    metric: str
    direction: Direction
    last_phase: str
    patience: int
    checkpoints: Path

    @classmethod
    def of(cls, config: RunConfig, last: Phase, validated: bool) -> KeepBest:
        """ConfigError where nothing is validated that could be the best."""
        checkpoints = Path(config.output or ".") / "checkpoints"
        if config.keep_best is None:
            return cls("", "", "lower", last.name, 0, checkpoints)
        if not validated:
            raise ConfigError(
                f"keep_best={config.keep_best} needs a validation set: set data.hold_out=0.1 or data.validation"
            )
        return cls(config.keep_best, *kept_by(config.keep_best), last.name, config.patience, checkpoints)

    def with_checkpoints(self, state: TrainingState, peers: Peers) -> KeepBest:
        """Itself, once the best of `state` is forgotten where its checkpoint is gone, as rank 0 sees it.

        That happens where a run goes on from an older checkpoint than its newest: the best of then gave way to a later
        one, which is not there either.
        """
        if state.best:
            place = folder_of(self.checkpoints, state.best["total"])
            if not peers.each(lambda: {"there": place.is_dir()})[0]["there"]:
                state.best = {}
        return self

    def judged(self, metrics: Mapping[str, Any], at: TrainingState) -> bool:
        """Note in `at` what a validation there says; whether it is the best so far.

        Of equals the first stays. A metric that is not finite, or not measured, is no better than any.
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
        """Whether the run was stopped before a validation that was due there, `every` so many steps but at the last."""
        due = at.step > 0 and at.step % every == 0 and at.step < last
        return due and bool(self.metric) and at.phase == self.last_phase and at.judged < at.total

    def tired(self, at: TrainingState) -> bool:
        """Whether the last phase ends here, before its last step."""
        return 0 < self.patience <= at.unimproved

    def _better(self, value: float, than: float) -> bool:
        return value > than if self.direction == "higher" else value < than
