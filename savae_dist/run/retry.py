"""How a run goes on after it has diverged."""

from __future__ import annotations

from dataclasses import dataclass

from savae_dist.config.schema import DivergenceConfig
from savae_dist.errors import DivergedError
from savae_dist.run.training_state import TrainingState


@dataclass(frozen=True)
class Retry:
    """number: how often the run has diverged by now. lr_scale: the factor of its learning rates from now on."""

    number: int
    lr_scale: float

    @classmethod
    def after(cls, error: DivergedError, training: TrainingState, allowed: DivergenceConfig) -> Retry:
        """The next retry; raises the error itself if no more are allowed."""
        if training.retries >= allowed.retries:
            raise error
        return cls(training.retries + 1, training.lr_scale * allowed.lr_factor)

    def told(self, error: DivergedError, allowed: DivergenceConfig) -> str:
        return (
            f"{error}; back to the last good checkpoint, retry {self.number} of {allowed.retries}, "
            f"at {self.lr_scale:g} times the learning rates"
        )
