"""What labelled samples add to trained networks: posteriors to generate a class from, and the classes of clusters."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from savae_dist.latents import Posterior
from savae_dist.networks import Encoder, LabelPart
from savae_dist.networks.base import inference


@dataclass(frozen=True)
class PosteriorBank:
    """Posteriors of training samples, from which a labelled sample is generated.

    mean, log_variance float32 `[n, K]`; label int64 `[n]`.
    """

    mean: Tensor
    log_variance: Tensor
    label: Tensor

    def __post_init__(self) -> None:
        if not (self.mean.shape == self.log_variance.shape and self.label.shape == self.mean.shape[:1]):
            raise ValueError("a posterior bank needs mean and log_variance [n, K] and label [n]")

    def tensors(self) -> dict[str, Tensor]:
        """The three by name; `PosteriorBank(**tensors)` is the same bank."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def of_class(self, label: int) -> Posterior:
        chosen = self.label == label
        if not chosen.any():
            known = ", ".join(map(str, self.label.unique().tolist()))
            raise ValueError(f"label {label}: no training posterior is stored for it; there are some for {known}")
        return Posterior(self.mean[chosen], self.log_variance[chosen])


def collect_posteriors(
    encoder: Encoder, batches: Iterable[tuple[Tensor, Tensor]], per_class: int = 1000
) -> PosteriorBank:
    """The posteriors of the first `per_class` samples of each class, in the order given.

    batches: (x normalised `[n, *shape]`, y int64 `[n]`); the unlabelled (-1) are left out.
    """
    count: dict[int, int] = {}
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    device = next(encoder.parameters()).device
    for x, y in batches:
        rows = []
        for row, label in enumerate(y.tolist()):
            if label >= 0 and count.get(label, 0) < per_class:
                count[label] = count.get(label, 0) + 1
                rows.append(row)
        if rows:
            with inference(encoder):
                posterior = encoder(x[rows].to(device))[0]
            parts.append((posterior.mean.cpu(), posterior.log_variance.cpu(), y[rows].cpu()))
    if not parts:
        raise ValueError("no labelled sample: there is nothing to keep a posterior of; leave the bank out")
    return PosteriorBank(*(torch.cat(column) for column in zip(*parts, strict=True)))


def name_clusters(encoder: Encoder, classifier: LabelPart, batches: Iterable[tuple[Tensor, Tensor]]) -> LabelPart:
    """The classifier with, for each cluster, the class of the labelled sample that is surest to be in it.

    That is Makhzani's rule (2015, section 6), who takes validation samples; here they are training samples, so that no
    label that the error is measured with has helped to make it. batches: as above. The classifier given stays as it is.
    """
    named = copy.deepcopy(classifier)
    surest = torch.full(named.class_of.shape, -1.0, device=named.class_of.device)
    for x, y in batches:
        known = y >= 0
        if known.any():
            with inference(encoder):
                code = encoder(x[known].to(surest.device))[0].mean
            probability, row = code[:, named.style_dim :].max(0)
            better = probability > surest
            surest = torch.where(better, probability, surest)
            named.class_of = torch.where(better, y[known].to(surest.device)[row], named.class_of)
    return named
