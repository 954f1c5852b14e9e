"""The page of a run: what was trained and how, what came out, what is bad about it, what it cost, how to repeat it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from savae_dist.pages import drawings, metrics
from savae_dist.pages.folder import RunFolder
from savae_dist.pages.metrics import table_of
from savae_dist.pages.page import REPORT, Picture, figures, picture, write
from savae_dist.pages.settings import hyperparameters, settings

CARD, PREVIEW = "card.md", "preview.png"  # files that the packer writes beside a data set
LONGEST = 100_000  # most characters of a data card that are shown


def write_run(folder: Path, out: Path | None = None, outcome: str = "") -> Path:
    """Write a run's page to `out`, None for `report.html` in its folder; OSError where it cannot be.

    outcome: of a run that is about to end; "" for what its status.json says.
    """
    return write(out or folder / REPORT, "run.html", **content(RunFolder(folder, outcome)))


def content(run: RunFolder) -> dict[str, Any]:
    """The values of the template."""
    about = run.about
    validation = table_of(about.get("validation_data"))
    card, preview = data_card(run)
    return {
        "name": run.path.absolute().name,
        "run": run,
        "about": about,
        "system": table_of(about.get("system")),
        "hyperparameters": hyperparameters(run),
        "settings": settings(run),
        "rows": metrics.rows(run.measured, validation),
        "tables": metrics.tables({key: run.summary[key] for key in ("sampler",) if key in run.summary}),
        "losses": drawings.losses(run.curves),
        "validations": drawings.validations(run.curves),
        "gradients": drawings.group(run.curves, "gradient_share/", "share of the gradient", linear=True),
        "generated": drawings.group(run.curves, "generated/", "generated against real samples"),
        **figures(run.path),
        "sets": {
            name: about[key]
            for name, key in (("training", "training_data"), ("validation", "validation_data"))
            if table_of(about.get(key))
        },
        "card": card,
        "preview": preview,
        "yaml": run.yaml,
    }


def data_card(run: RunFolder) -> tuple[str, Picture | None]:
    """The card and the preview that the packer left beside a local training set; "" and None where there are none."""
    source = run.config.get("data.train")
    if not isinstance(source, str) or "://" in source:
        return "", None
    card, preview = Path(source) / CARD, Path(source) / PREVIEW
    text = card.read_text(errors="replace")[:LONGEST] if card.is_file() else ""
    return text, picture(preview) if preview.is_file() else None
