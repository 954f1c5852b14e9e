"""The alarms of `anomaly.detect` as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from savae_dist.evaluation.bootstrap import with_interval
from savae_dist.evaluation.signals.anomaly import ALARMS, ON_FAULTY, ON_HEALTHY
from savae_dist.evaluation.signals.health import MEASURES

LIVES = ["alarms", "in the first half", "life at the alarm", "AUROC late/early", *MEASURES]
FAULTS = ["alarms on faulty machines", "on healthy machines", "AUROC faulty/healthy"]


def table(found: Mapping[str, Any]) -> str:
    """A line for each kind of score, and below them what the columns are of."""
    first = next(iter(found.values()))
    told, short = first.get("faults"), first["too_short"]
    rows = [["score", "threshold", *(FAULTS if told else LIVES)]]
    for kind, values in found.items():
        rows.append([kind, f"{values['threshold']:.4g}", *(of_faults if told else of_lives)(values)])
    lines = aligned(rows)
    if told:
        counts = f"{told['faulty']:,} faulty, of classes that --healthy has none of, and {told['healthy']:,} healthy"
        lines.append(f"AUROC over recordings, with 95 %: {counts}")
    else:
        lines.append("each machine is taken as a life until failure, its recordings in the order of their names")
    if short:
        lines.append(f"no alarm is possible, so not counted: {', '.join(short)}: fewer recordings than --in-a-row")
    return "\n".join(lines)


def of_lives(values: Mapping[str, Any]) -> list[str]:
    alarms = [at for at in values[ALARMS].values() if at is not None]
    late = [at for at in alarms if at > 0.5]
    areas = [values["auroc"], *(values["health"].get(name) for name in MEASURES)]
    return [
        counted(values[ALARMS]),
        str(len(alarms) - len(late)),
        f"{np.median(late):.3f}" if late else "-",
        *(with_interval(one, None) for one in areas),
    ]


def of_faults(values: Mapping[str, Any]) -> list[str]:
    told = values["faults"]
    area = with_interval(told["auroc"], told["intervals"]["auroc"])
    return [counted(values[ON_FAULTY]), counted(values[ON_HEALTHY]), area]


def counted(alarms: Mapping[str, float | None]) -> str:
    return f"{sum(at is not None for at in alarms.values())} of {len(alarms)}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, the first of them to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
