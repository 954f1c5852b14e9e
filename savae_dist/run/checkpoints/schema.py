"""What the JSON files of a checkpoint may hold; see `checkpoint` for what they mean."""

from __future__ import annotations

from typing import Any

from savae_dist.config.schema import MAX_LANES
from savae_dist.pipeline.best import BEST, COUNT
from savae_dist.untrusted import (
    Misfit,
    anything,
    flag,
    listed,
    nullable,
    number,
    path_text,
    record,
    shown,
    table,
    text,
    whole,
)

RESTORE = "restore it, or remove it so that the one before it is used"


def _inside(name: str) -> None:
    path_text(name)
    if name.startswith("/") or ".." in name.split("/"):
        raise Misfit(f"is {shown(name)}, which lies elsewhere")


SHA256 = text(64, "[0-9a-f]{64}", "a sha256")
MANIFEST = table(record({"size": whole(), "sha256": SHA256}), _inside)


def _none_or_best(value: Any) -> None:
    if value != {}:
        BEST(value)


STATE = record(
    {
        "phase": text(100),
        "step": COUNT,
        "total": COUNT,
        "origin": COUNT,
        "phase_end": flag,
        "rates": table(number(0)),
        "lanes": whole(1, MAX_LANES),
        "data": text(64),
        "features": table(SHA256),
        "config": table(anything),
    },
    optional={  # not in older ones
        "good": flag,
        "best": _none_or_best,
        "judged": COUNT,
        "unimproved": COUNT,
        "retries": COUNT,
        "lr_scale": number(0, 1),
        "gradient_shares": table(number(0, 1)),
        "warnings": table(text(1000)),
    },
)
SCALER = {"scale": number(0), "growth_factor": number(0), "backoff_factor": number(0), "growth_interval": COUNT}
VALUES = {
    "optimizer": text(100),
    "skipped": listed(COUNT, 2, 2),
    "scaler": nullable(record({**SCALER, "_growth_tracker": COUNT})),
}
OPTIONAL_VALUES = {"stateless": nullable(listed(text()))}  # not in older ones
