"""What labelled samples add to trained networks: posteriors to generate a class from, and the classes of clusters."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from savae_dist.networks import Decoder, Encoder, LabelPart, Network, Prior
from savae_dist.networks.base import inference
from savae_dist.networks.stored import tensor_forms
from savae_dist.pipeline.sampling.sampler import Sampler
from savae_dist.preprocess import DataSpec
from savae_dist.untrusted import shown


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

    def of_class(self, label: int) -> PosteriorBank:
        """The posteriors of that class alone; ValueError if there is none."""
        chosen = self.label == label
        if not chosen.any():
            known = ", ".join(map(str, self.label.unique().tolist()))
            raise ValueError(f"label {label}: no training posterior is stored for it; there are some for {known}")
        return PosteriorBank(self.mean[chosen], self.log_variance[chosen], self.label[chosen])


def load_posteriors(path: Path) -> PosteriorBank:
    """The bank in a safetensors file; ValueError unless it is one."""
    forms = {name: (len(shape), floating) for name, (shape, floating) in tensor_forms(path).items()}
    if forms != {"mean": (2, True), "log_variance": (2, True), "label": (1, False)}:
        raise ValueError(f"{path.name} holds {shown(forms)}, not mean, log_variance [n, K] and label [n]")
    tensors = load_file(path)
    return PosteriorBank(tensors["mean"].float(), tensors["log_variance"].float(), tensors["label"].long())


def check_together(
    networks: Mapping[str, Network], spec: DataSpec, bank: PosteriorBank | None, mixture: Sampler | None = None
) -> None:
    """ValueError where the parts of a pipeline's folder do not go together, and would fail when they are used."""
    for name, network in networks.items():
        shape = network.init_arguments.get("shape", spec.shape)
        if tuple(shape) != spec.shape:
            raise ValueError(f"the {name} takes samples of shape {list(shape)}, and the data are {list(spec.shape)}")
    decoder, prior, classifier = (networks.get(name) for name in ("decoder", "prior", "classifier"))
    sizes = {"prior": prior.latent_dim} if isinstance(prior, Prior) else {}
    sizes |= {"posteriors": bank.mean.shape[1]} if bank is not None else {}
    told = prior.entries if isinstance(prior, Prior) and prior.labels == "told" else 0  # not among what is drawn
    sizes |= {"sampler": mixture.mean.shape[1] + told} if mixture is not None else {}
    if mixture is not None and told and not mixture.labels:
        raise ValueError("the sampler has no class, and the decoder is told one")
    for name, size in sizes.items():
        if isinstance(decoder, Decoder) and size != decoder.latent_dim:
            raise ValueError(f"the {name} give codes of {size} numbers, and the decoder takes {decoder.latent_dim}")
    if isinstance(classifier, LabelPart) and not classifier.knows_its_classes():
        raise ValueError("the classifier names classes that there are not")


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
