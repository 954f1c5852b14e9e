"""The experiment trackers that may get a run's curves, beside TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from savae_dist.config.nearest import nearest
from savae_dist.errors import ConfigError

TRACKERS = ("wandb", "mlflow", "trackio")  # also the names of their packages and of our extras


def check_trackers(names: Sequence[str]) -> None:
    """ConfigError for a tracker that is not known, is named twice, or is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"trackers: {name!r} is none of {', '.join(TRACKERS)}{nearest(name, TRACKERS)}")
        if find_spec(name) is None:
            raise ConfigError(f"trackers: {name} is not installed: pip install 'savae-dist[{name}]'")
    if len(set(names)) < len(names):
        raise ConfigError(f"trackers={list(names)} names one twice")
