"""What a run gives out, while it trains and at its end: a pipeline of the networks that are trained by then."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from savae_dist.config.identity import plain
from savae_dist.files import finite_or_null, write_json
from savae_dist.networks import Encoder, LabelPart, Network
from savae_dist.pipeline import Pipeline
from savae_dist.pipeline.posteriors import collect_posteriors, name_clusters
from savae_dist.preprocess import DataSpec
from savae_dist.run.training_data import TrainingData
from savae_dist.systems.phases import Phase, System


def trained_by(phases: Iterable[Phase]) -> set[str]:
    """The networks that these phases train."""
    return {name for phase in phases for update in phase.updates for name in update.trains}


def make_pipeline(
    system: System, spec: DataSpec, networks: Mapping[str, Network], begun: Collection[Phase], given: Collection[str]
) -> Pipeline:
    """The system's pipeline of those `networks` that are not still as they were initialised.

    begun: the phases that have trained. given: the networks whose weights the run was given to start from.
    """
    trained, ever = trained_by(begun), trained_by(system.phases())
    ready = {
        name: networks[name]
        for name in system.pipeline
        if name in networks and (name in trained or name not in ever or name in given)
    }
    return Pipeline(ready, spec, system=plain(system))


def name_the_clusters(pipeline: Pipeline, data: TrainingData) -> None:
    """Give the clusters of a label part the classes of training samples; without labels there is no classifier.

    Every rank gets the same, since all look at the same samples. The run's own network stays as it is.
    """
    encoder, classifier = pipeline.networks.get("encoder"), pipeline.networks.get("classifier")
    if isinstance(encoder, Encoder) and isinstance(classifier, LabelPart) and classifier.clusters:
        if data.labelled:
            pipeline.networks["classifier"] = name_clusters(encoder, classifier, data.labelled_samples())
        else:
            del pipeline.networks["classifier"]


def export(folder: Path, pipeline: Pipeline, data: TrainingData, summary: Mapping[str, Any]) -> None:
    """Write the pipeline, with training posteriors to generate classes from where it has no prior, and summary.json."""
    encoder = pipeline.networks.get("encoder")
    if data.labelled and isinstance(encoder, Encoder) and pipeline.prior is None:
        pipeline.posteriors = collect_posteriors(encoder, data.labelled_samples())
    pipeline.save_pretrained(folder / "pipeline")
    write_json(folder / "summary.json", finite_or_null(summary))
