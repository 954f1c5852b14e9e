"""From a run's networks to its pipeline, which is measured while the run trains and written at its end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from savae_dist.config.identity import plain
from savae_dist.files import finite_or_null, write_json
from savae_dist.latents import Posterior
from savae_dist.networks import Encoder, LabelPart, Network
from savae_dist.pipeline import Pipeline
from savae_dist.pipeline.sampling.posteriors import collect_posteriors, name_clusters
from savae_dist.pipeline.sampling.sampler import fit
from savae_dist.preprocess import DataSpec
from savae_dist.run.checkpoints.checkpoint import not_saved
from savae_dist.run.reporting.side_outputs import SideOutputs
from savae_dist.run.training_data import TrainingData
from savae_dist.systems.phases import Phase, System

FITTED = 10_000  # samples of the training order to whose codes a mixture is fitted


def trained_by(phases: Iterable[Phase]) -> set[str]:
    """The networks that these phases train."""
    return {name for phase in phases for update in phase.updates for name in update.trains}


def make_pipeline(
    system: System, spec: DataSpec, networks: Mapping[str, Network], begun: Collection[Phase], given: Collection[str]
) -> Pipeline:
    """The system's pipeline of `networks`, without those that still have their random initial weights.

    begun: the phases that have trained. given: the networks that started from `networks.initial`.
    """
    trained, ever = trained_by(begun), trained_by(system.phases())
    ready = {
        name: networks[name]
        for name in system.pipeline
        if name in networks and (name in trained or name not in ever or name in given)
    }
    return Pipeline(ready, spec, system=plain(system))


def name_the_clusters(pipeline: Pipeline, data: TrainingData) -> None:
    """Name the clusters of a label part by the classes of labelled training samples.

    Without labelled samples the pipeline gets no classifier. The result is equal on all ranks, since all look at the
    same samples. The run's own classifier is not changed.
    """
    encoder, classifier = pipeline.networks.get("encoder"), pipeline.networks.get("classifier")
    if isinstance(encoder, Encoder) and isinstance(classifier, LabelPart) and classifier.clusters:
        if data.labelled:
            pipeline.networks["classifier"] = name_clusters(encoder, classifier, data.labelled_samples())
        else:
            del pipeline.networks["classifier"]


def add_samplers(pipeline: Pipeline, data: TrainingData) -> dict[str, Any]:
    """Add what new codes are drawn from, and tell of it: a mixture fitted to those of training samples.

    Where the encoder gives a label part, or the prior has modes for the classes, the prior says all, and there is no
    mixture; nor where the decoder is told the class, and no class has two labelled samples. Where there is no prior but
    N(0, I), posteriors of training samples are kept too, for comparison.
    """
    encoder, prior = pipeline.networks.get("encoder"), pipeline.prior
    if not isinstance(encoder, Encoder) or "decoder" not in pipeline.networks:
        return {}
    if prior is not None and prior.labels in ("mode", "inferred"):
        return {}
    by_class: dict[int, Tensor] = {}
    random = torch.Generator().manual_seed(0)
    if data.labelled:
        bank = collect_posteriors(encoder, data.labelled_samples())
        z = Posterior(bank.mean, bank.log_variance).sample(torch.randn(bank.mean.shape, generator=random))
        by_class = {label: z[bank.label == label] for label in bank.label.unique().tolist()}
        pipeline.posteriors = bank if prior is None else None
    if prior is not None and prior.labels == "told" and all(len(codes) < 2 for codes in by_class.values()):
        return {}
    found = [pipeline.posterior(x) for x in data.first(FITTED)]
    mean, log_variance = (torch.cat(parts).cpu()[:FITTED] for parts in zip(*found, strict=True))
    fitted = fit(Posterior(mean, log_variance).sample(torch.randn(mean.shape, generator=random)), by_class)
    pipeline.mixture = fitted.sampler
    return {"sampler": fitted.told()}


def export(folder: Path, pipeline: Pipeline, summary: Mapping[str, Any], side: SideOutputs) -> None:
    """Write the pipeline, and summary.json; SaveError if the pipeline cannot be written."""
    target = folder / "pipeline"
    try:
        target.mkdir(exist_ok=True)  # not its parents: see `checkpoint.write`
        pipeline.save_pretrained(target)
    except (OSError, SafetensorError) as error:
        raise not_saved(target, "the pipeline", folder, error) from error
    with side.spared("summary.json"):
        write_json(folder / "summary.json", finite_or_null(summary))
