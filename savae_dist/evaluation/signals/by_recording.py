"""A pipeline's classes on signals by recording and machine, beside the baselines, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from savae_dist.data import GROUP, RECORDING, Reader, on_both_sides, recordings, told_names
from savae_dist.evaluation.bootstrap import with_interval
from savae_dist.evaluation.report import raw_batches
from savae_dist.evaluation.signals import baselines
from savae_dist.evaluation.signals.recordings import balanced_accuracy, by_machine, intervals, macro_auroc, vote
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import normalise

MODEL = "model"
UNNAMED = "the shards name no recordings, so nothing is said by recording: pack them by make_shards recordings"


@dataclass(frozen=True)
class Windows:
    """All windows of a set: x normalised float32 `[n, channels, length]`, y `[n]` with -1 for unlabelled.

    recording, machine: hashes `[n]` of the names of what each belongs to, 0 where of none; names: those of machines;
    told: those of recordings. class_names: in the order of the labels, empty if they have none.
    """

    x: torch.Tensor
    y: np.ndarray
    recording: np.ndarray
    machine: np.ndarray
    names: Mapping[int, str]
    told: Mapping[int, str]
    class_names: tuple[str, ...] = ()

    @classmethod
    def of(cls, reader: Reader) -> Windows:
        raws = list(raw_batches(reader))
        ids = torch.cat([raw.id for raw in raws]).numpy()
        x = torch.cat([normalise(raw.x, reader.shards.spec) for raw in raws])
        own, groups = (recordings(reader.shards, key) for key in (RECORDING, GROUP))
        recording = own.rows(ids) if len(own) else np.zeros(len(ids), np.uint64)
        machine = groups.rows(ids) if len(groups) else recording
        names, told = (told_names(reader.shards, key) for key in (GROUP if len(groups) else RECORDING, RECORDING))
        y = torch.cat([raw.y for raw in raws]).numpy()
        return cls(x, y, recording, machine, names, told, reader.shards.spec.class_names)


def compare(pipeline: Pipeline, reader: Reader, training: Reader | None) -> dict[str, Any]:
    """What stands in metrics.json under `by_recording`: a row for the model and each baseline, and for each machine.

    training: what the baselines are fitted to, the samples that the model was trained on; None: chance alone.
    """
    tested = Windows.of(reader)
    if not tested.recording.any():
        return {"note": UNNAMED}
    classes = pipeline.spec.classes
    found = {}
    if {"encoder", "classifier"} <= pipeline.networks.keys():
        found[MODEL] = pipeline.logits(pipeline.posterior(tested.x).mean).softmax(1).double().cpu().numpy()
    found |= baselines.chance(len(tested.x), classes)
    note = ""
    if training is not None:
        seen = Windows.of(training)
        found |= baselines.classify(seen.x.double().numpy(), seen.y, tested.x.double().numpy(), classes)
        note = on_both_sides(training.shards, reader.shards)
    return {"note": note, **{name: row(scores, tested) for name, scores in found.items()}}


def row(probabilities: np.ndarray, tested: Windows) -> dict[str, Any]:
    """The measures of one classifier of windows; probabilities `[n, classes]`.

    Where recordings have no names each window counts for itself, and there is no interval.
    """
    named = bool(tested.recording.any())
    recording = tested.recording if named else np.arange(1, len(tested.x) + 1, dtype=np.uint64)
    votes = vote(probabilities, tested.y, recording, tested.machine)
    if not len(votes.label):
        return {}
    machines = {tested.names.get(one, str(one)): share for one, share in by_machine(votes).items()}
    return {
        "recordings": len(votes.label),
        "balanced_accuracy": balanced_accuracy(votes.probabilities, votes.label),
        "macro_auroc": macro_auroc(votes.probabilities, votes.label),
        "intervals": intervals(votes) if named else {},
        "machines": dict(sorted(machines.items())) if named else {},
    }


def table(found: Mapping[str, Any]) -> str:
    """The result of `compare` as lines of text."""
    rows = {name: values for name, values in found.items() if name != "note" and values}
    lines = [f"warning: {found['note']}"] if found["note"] else []
    if rows:
        count = next(iter(rows.values()))["recordings"]
        lines.append(f"{f'of {count:,} recordings, 95 % over recordings':40} balanced accuracy     macro AUROC")
    for name, values in rows.items():
        measures = measures_of(values)
        lines.append(f"{name:40} {measures[0]:21} {measures[1]}".rstrip())
    machines = sorted({machine for values in rows.values() for machine in values["machines"]})
    if rows:
        lines.append("share of recordings that are right, in the order of these rows, by machine:")
    for one in machines:
        shares = [f"{values['machines'][one]:.2f}" for values in rows.values()]
        lines.append(f"  {one:38} {'  '.join(shares)}")
    return "\n".join(lines)


def measures_of(values: Mapping[str, Any]) -> list[str]:
    """Balanced accuracy and macro AUROC of a `row`, each with its interval, as text."""
    names = ("balanced_accuracy", "macro_auroc")
    return [with_interval(values[name], values["intervals"].get(name)) for name in names]
