"""The figures that an evaluation adds to those of a run: interpolation, classes, attributes, spectra, curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.evaluation.classes.attributes import usable
from savae_dist.evaluation.figures.attribute_figures import attribute_arithmetic, attribute_vectors
from savae_dist.evaluation.figures.code_mosaic import code_mosaic
from savae_dist.evaluation.figures.confusion_figure import confusion_matrix
from savae_dist.evaluation.figures.interpolation import interpolation
from savae_dist.evaluation.figures.spectrogram_figure import spectrograms
from savae_dist.evaluation.figures.training_curves import Curves, training_curves
from savae_dist.pipeline.pipeline import Pipeline

LEAST = 4  # fewest samples for figures of codes


@dataclass(frozen=True)
class Extras:
    """What these figures show beyond samples. attributes: as in `attributes`, of the samples that are drawn.

    confusion: int `[classes, classes]` of the whole set, None without a classifier. curves: what a run logged. mosaic:
    whether samples are laid out by their codes, which takes a minute where t-SNE must find the places.
    """

    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    curves: Curves = field(default_factory=dict)
    mosaic: bool = False


def draw(pipeline: Pipeline, x: Tensor, y: Tensor, extras: Extras, of: str = "") -> dict[str, Figure]:
    """The figures by name, as many as the networks allow. x: normalised samples `[n, *shape]`, y: labels `[n]`."""
    drawn: dict[str, Figure] = {}
    if extras.confusion is not None:
        drawn["confusion_matrix"] = confusion_matrix(extras.confusion, pipeline.spec, of)
    if (curves := training_curves(extras.curves)) is not None:
        drawn["training_curves"] = curves
    if "encoder" not in pipeline.networks or len(x) < LEAST:
        return drawn
    z = pipeline.posterior(x).mean
    if extras.mosaic:
        drawn["code_mosaic"] = code_mosaic(z, x, y, pipeline.spec, of)
    if "decoder" not in pipeline.networks:
        return drawn
    codes = pipeline.completed(z, y)
    drawn["interpolation"] = interpolation(pipeline, codes, y, of)
    if pipeline.spec.kind == "signal":
        drawn["spectrograms"] = spectrograms(x, pipeline.decoded(codes), y, pipeline.spec, of)
    if attributes := usable(extras.attributes):
        drawn["attribute_vectors"] = attribute_vectors(pipeline, codes, attributes)
        drawn["attribute_arithmetic"] = attribute_arithmetic(pipeline, codes, attributes)
    return drawn
