"""The metrics that a run leaves, as cards show them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from savae_dist.errors import ConfigError
from savae_dist.untrusted import check, number, read_object, table


def read_summary(run: Path) -> dict[str, Any]:
    """The metrics of a run's `summary.json`; empty if there are none."""
    path = run / "summary.json"
    if not path.is_file():
        return {}
    advice = "remove it or run the evaluation again"
    summary = read_object(path, ConfigError, advice)
    check(summary, _metrics, path, ConfigError, advice)
    return summary


def _metrics(value: Any) -> None:
    """Misfit where a number is none that the card can show."""
    if isinstance(value, dict):
        table(_metrics)(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number()(value)
