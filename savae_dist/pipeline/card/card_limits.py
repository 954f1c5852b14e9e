"""What a model is not good at, as a run measured it on its validation set, in sentences for its card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from savae_dist.config.metric_names import CLASS_MEANS
from savae_dist.errors import printable
from savae_dist.pipeline.card.card_data import metrics_of

MANY = 0.05  # from this share of wrong samples on, the card says so
BLURRED, GRAINY = 0.5, 1.5  # limits of sharpness, relative to real samples
WRONG = {  # share of samples -> what is wrong with them
    "class_flip_rate": "of the reconstructions are of another class than their sample, to the model's own classifier",
    "judge_flip_rate": "of the reconstructions are of another class than their sample, to an independent judge",
}


def shortcomings(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each metric that is bad, with its value; then the warnings of the run itself."""
    metrics = metrics_of(summary)
    found = []
    for name, other in CLASS_MEANS.items():
        if name in metrics and other in metrics and metrics[name] >= metrics[other]:
            values = f"{metrics[name]:.4g} against {metrics[other]:.4g}"
            found.append(f"Its reconstructions are no nearer to their samples than class means: `{name}` {values}.")
    accuracy = metrics.get("accuracy", 1.0)
    if 1 - accuracy >= MANY:
        found.append(f"{1 - accuracy:.1%} of the labelled samples are put into a wrong class.")
    found += [f"{metrics[name]:.1%} {what}." for name, what in WRONG.items() if metrics.get(name, 0.0) >= MANY]
    sharpness = metrics.get("sharpness", 1.0)
    if not BLURRED <= sharpness <= GRAINY:
        how = "blurred" if sharpness < BLURRED else "grainy"
        found.append(f"Its reconstructions are {how}: {sharpness:.2g} times as sharp as real samples.")
    if not metrics.keys() - {"kl"}:
        found.append("Nothing was measured on samples that it was not trained on.")
    warnings = summary.get("warnings")
    told = [printable(str(one)) for one in warnings] if isinstance(warnings, list) else []
    return [*found, *(f"The run warned while it trained: {one}" for one in told)]
