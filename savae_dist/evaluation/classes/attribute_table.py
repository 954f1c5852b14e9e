"""Attributes of sets of samples, and how well linear SVMs predict them from codes of one or several pipelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from savae_dist.data import Reader, attributes_of
from savae_dist.evaluation.bootstrap import Resampling
from savae_dist.evaluation.classes.attribute_svm import Accuracy, Views, attribute_accuracies
from savae_dist.evaluation.classes.attributes import Attributes, binary, of_classes, usable
from savae_dist.evaluation.gathered import codes_of, units_of
from savae_dist.pipeline.pipeline import Pipeline

CLASS = "class"  # in place of a rule: take the classes as attributes
CODES = 10_000  # about the most codes that are taken of each set
Opened = Callable[[Pipeline], Reader]  # opens one set with the preprocessing of a given pipeline


def attributes(reader: Reader, ids: np.ndarray, y: np.ndarray, by_class: bool) -> Attributes:
    """Attributes of samples with these ids and labels `[n]`: their classes, or what the shards were opened with."""
    if by_class:
        return of_classes(y, reader.shards.spec.class_names)
    stored = attributes_of(reader.shards)
    return {} if stored is None else binary(stored.of(ids), stored.names)


def measure(
    pipelines: Mapping[str, Pipeline], training: Opened, tested: Opened, by_class: bool, seed: int = 0
) -> dict[str, dict[str, Accuracy]]:
    """Attribute -> view -> accuracy of SVMs that are fitted to `training` and tested on `tested`.

    Attributes are named by the training set; those that too few of its samples have, or have not, are left out.
    """
    seen, _ = _views(pipelines, training, by_class)
    other, unit = _views(pipelines, tested, by_class)
    known = Views(seen.codes, usable(seen.attributes))
    return attribute_accuracies(known, other, Resampling.of(unit, seed))


def _views(pipelines: Mapping[str, Pipeline], opened: Opened, by_class: bool) -> tuple[Views, np.ndarray]:
    codes, found, unit = {}, Attributes(), np.empty(0, np.int64)
    for name, pipeline in pipelines.items():
        reader = opened(pipeline)
        here = codes_of(pipeline, reader, CODES)
        codes[name] = here.z
        found, unit = attributes(reader, here.id, here.y, by_class), units_of(reader, here.id)
    return Views(codes, found), unit


def as_dict(found: Mapping[str, Mapping[str, Accuracy]]) -> dict[str, Any]:
    """As it stands in metrics.json: a row for each view, a column for each attribute."""
    views = dict.fromkeys(view for row in found.values() for view in row)
    return {
        view: {
            **{name: row[view].share for name, row in found.items()},
            "intervals": {name: row[view].interval for name, row in found.items() if row[view].interval},
        }
        for view in views
    }
