"""The head of a model card, which the Hub reads: its task, its metrics, and its licence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from savae_dist.preprocess import DataSpec

# What a run's summary holds besides metrics of the validation set.
NO_METRICS = ("samples_per_second", "steps", "seed", "training_data", "warnings", "sampler", "gradient_shares")


def metrics_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a summary, nested names joined by dots; what is no number is left out."""
    return flat({name: value for name, value in summary.items() if name not in NO_METRICS})


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested dictionaries as one, keys joined by dots; what is not a number is left out."""
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{prefix}{key}."))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix + key] = value
    return found


def task(name: str, spec: DataSpec, encodes: bool) -> str | None:
    """The Hub's `pipeline_tag` of a network, or of the whole pipeline (`name` "pipeline"); None where it has none."""
    if name == "encoder":
        return "feature-extraction"
    if name == "decoder" or (name == "pipeline" and not encodes):
        return "unconditional-image-generation" if spec.kind == "image" else None
    return "image-feature-extraction" if name == "pipeline" and spec.kind == "image" else None


def head(
    name: str, spec: DataSpec, encodes: bool, tags: list[str], summary: Mapping[str, Any], license: str | None
) -> str:
    """The YAML of a card, with the metrics of the validation set and the seed that they are of."""
    tag, data = task(name, spec, encodes), summary.get("training_data")
    about = data.get("samples", "") if isinstance(data, dict) else ""
    seed = {"seed": summary["seed"]} if "seed" in summary else None
    results = [
        EvalResult(
            task_type=tag or "other",
            dataset_type="own",
            dataset_name=f"validation set beside {about}" if about else "validation set",
            dataset_args=seed,
            metric_type=metric,
            metric_value=float(f"{value:.6g}"),
        )
        for metric, value in metrics_of(summary).items()
    ]
    card = ModelCardData(
        library_name="savae_dist",
        license=license,
        tags=tags,
        pipeline_tag=tag,
        model_name=f"{name} of {tags[1]}" if results else None,
        eval_results=results or None,
    )
    text: str = card.to_yaml()
    return text
