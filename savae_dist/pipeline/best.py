"""The best validation of a run with `keep_best`: the folder of its networks, and its metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from savae_dist.errors import ConfigError
from savae_dist.pipeline.card.summary import read_summary
from savae_dist.pipeline.folder import CONFIG
from savae_dist.untrusted import check, number, read_object, record, table, text, whole

COUNT = whole(0, 1 << 62)  # no count comes near it, and sums of two still fit in 64 bits
BEST = record(
    {
        "by": text(100),
        "value": number(),
        "phase": text(100),
        "step": COUNT,
        "total": COUNT,
        "metrics": table(number()),
    }
)
AGAIN = "run it again, or leave --best out"


def best_of(run: Path) -> tuple[Path, dict[str, Any]]:
    """The folder that `Pipeline.from_pretrained` takes, and a summary with its metrics; ConfigError if none was kept.

    The last networks of a finished run are taken from its pipeline, which has what new codes are drawn from.
    """
    summary = read_summary(run)
    best = summary.get("best") or newest_state(run).get("best")
    if not best:
        raise ConfigError(f"{run} has kept no best: train it with keep_best=METRIC, or leave --best out")
    check({"best": best}, record({"best": BEST}), run, ConfigError, AGAIN)
    steps = summary.get("steps", {})
    last = sum(steps.values()) == best["total"] and (run / "pipeline").is_dir()
    folder = run if last else run / "checkpoints" / f"step-{best['total']:08d}"
    if not last and not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder}, the best by {best['by']}, is not there any more; {AGAIN}")
    made = {**steps, best["phase"]: best["step"]}
    kept = {name: summary[name] for name in ("seed", "training_data", "warnings") if name in summary}
    return folder, {**best["metrics"], **kept, "steps": made, "best": best}


def newest_state(run: Path) -> dict[str, Any]:
    """The `state.json` of a run's newest checkpoint; empty where there is none."""
    paths = sorted((run / "checkpoints").glob("step-*/state.json"))
    return read_object(paths[-1], ConfigError, AGAIN) if paths else {}
