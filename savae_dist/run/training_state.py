"""Where a run stands: what a checkpoint's `state.json` holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FORMAT_VERSION = 2  # raised when older checkpoints can no longer be continued


@dataclass
class TrainingState:
    """Where a run stands.

    phase, step: finished iterations of that phase; total: finished iterations of all phases, the checkpoint's number.
    origin: position in the data where the phase began. phase_end: whether the phase is finished; such a checkpoint is
        never removed.
    rates: samples per second of each finished phase.
    gradient_shares: of each term, its part of the gradient at the decoder's output, as last measured.
    good: whether all weights were finite and no update was being skipped when it was saved.
    warnings: the signs that the run is sick which were told (`watch`).
    best: of the validations that were compared, by `keep_best` (`run.best`); empty before there is one. judged: `total`
        at the last of them. unimproved: how many in a row, up to it, were no better.
    retries, lr_scale: how often the run went back after a divergence, and the factor of its learning rates since.
    lanes: parallel streams through the shards. data: digest of the index. features: sha256 of each frozen feature
        network. config: the keys that identify a run (`config.identity`).
    """

    phase: str
    step: int
    total: int
    origin: int
    phase_end: bool = False
    rates: dict[str, float] = field(default_factory=dict)
    gradient_shares: dict[str, float] = field(default_factory=dict)
    lanes: int = 0
    data: str = ""
    features: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    good: bool = True
    warnings: dict[str, str] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)
    judged: int = 0
    unimproved: int = 0
    retries: int = 0
    lr_scale: float = 1.0
    format_version: int = FORMAT_VERSION

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with this state, by the names that a user knows."""
        features = {f"sha256 of {name}": digest for name, digest in self.features.items()}
        return {"lanes": self.lanes, "data": self.data, **features, **self.config}
