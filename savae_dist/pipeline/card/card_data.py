"""What a model card says besides the pipeline, and its head, which the Hub reads: task, metrics, licence, data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from savae_dist.config.metric_names import CLASS_MEANS
from savae_dist.preprocess import DataSpec

# Keys of a run's summary that tell of its training, not of its validation set.
TRAINING = ("steps", "training_hours", "trained_on", "samples_per_second", "seed", "sampler", "gradient_shares")
NO_METRICS = (*TRAINING, "training_data", "warnings", "best", "checkpoints")


@dataclass(frozen=True)
class CardFacts:
    """What a card says that a pipeline does not know itself.

    summary: the run's, may be empty. license: of the weights, as the Hub names it; without one none is stated, since
    that is the owner's choice. datasets: names on the Hub of what was trained on. citation: BibTeX of what the system
    was published in. pictures: of validation samples, which the card of the whole pipeline shows.
    """

    summary: Mapping[str, Any] = field(default_factory=dict)
    license: str | None = None
    datasets: Sequence[str] = ()
    citation: str = ""
    pictures: Sequence[Path] = ()

    @property
    def all_datasets(self) -> list[str]:
        """The data sets that were named, then those that the run read from the Hub."""
        data = self.summary.get("training_data")
        known = data.get("datasets", []) if isinstance(data, dict) else []
        read = [one for one in known if isinstance(one, str)] if isinstance(known, list) else []
        return list(dict.fromkeys([*self.datasets, *read]))


def metrics_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a summary that are numbers; nested names are joined by dots."""
    return flat({name: value for name, value in summary.items() if name not in NO_METRICS})


def with_baselines(summary: Mapping[str, Any], classes: int) -> dict[str, tuple[float, str]]:
    """Metric -> its value, and its baseline in words; baselines are not listed as metrics."""
    metrics = metrics_of(summary)
    beside = {name: f"class mean {metrics[other]:.6g}" for name, other in CLASS_MEANS.items() if other in metrics}
    if classes:
        beside["accuracy"] = f"chance {1 / classes:.6g}"
    beside["sharpness"] = "real samples 1"
    return {name: (value, beside.get(name, "")) for name, value in metrics.items() if name not in CLASS_MEANS.values()}


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


def head(name: str, spec: DataSpec, encodes: bool, tags: list[str], facts: CardFacts) -> str:
    """The YAML of a card, with the metrics of the validation set, their baselines and the seed that they are of."""
    summary, tag = facts.summary, task(name, spec, encodes)
    data = summary.get("training_data")
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
            metric_args={"baseline": beside} if beside else None,
        )
        for metric, (value, beside) in with_baselines(summary, spec.classes).items()
    ]
    card = ModelCardData(
        library_name="savae_dist",
        license=facts.license,
        datasets=facts.all_datasets or None,
        tags=tags,
        pipeline_tag=tag,
        model_name=f"{name} of {tags[1]}" if results else None,
        eval_results=results or None,
    )
    text: str = card.to_yaml()
    return text
