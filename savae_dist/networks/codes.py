"""Networks without weights: the prior over a decoder's codes, and the part of a code that is a label.

A code is z, the style, with or without a label part `[batch, entries]` behind it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from savae_dist.latents import category, mixture_of_gaussians, one_hot, swiss_roll
from savae_dist.networks.base import Classifier, Network

PriorKind = Literal["gaussian", "mixture", "swiss_roll"]
LabelUse = Literal["none", "mode", "told", "inferred"]
TINY = 1e-30  # least probability of a label


class Prior(Network):
    """Standard normal draws `[batch, draws]` -> codes `[batch, latent_dim]`: p(z) and how a label enters the code.

    kind: of p(z): `gaussian` of deviation `scale`; `mixture` of `modes` Gaussians, `swiss_roll` of as many segments,
    both in the plane of the first two dimensions and times `scale`.
    labels: `none` knows no label; `mode`: p(z|y) is mode (or segment) y, without a label all of them; `told`: a one-hot
    y of `entries` classes stands behind z and the decoder is told it, zeros where there is none; `inferred`: the
    encoder gives the label part, whose prior is one of its `entries` with equal probability.
    """

    model_type = "prior"

    def __init__(
        self,
        style_dim: int,
        kind: PriorKind = "gaussian",
        scale: float = 1.0,
        modes: int = 1,
        labels: LabelUse = "none",
        entries: int = 0,
    ) -> None:
        super().__init__()
        if kind != "gaussian" and style_dim < 2:
            raise ValueError(f"a prior of kind {kind} lies in two dimensions: it needs a latent_dim of at least 2")
        if (labels in ("told", "inferred")) != (entries > 0):
            raise ValueError(f"a prior with labels={labels} cannot have a label part of {entries} entries")
        if labels == "mode" and kind == "gaussian":
            raise ValueError("a Gaussian prior has no modes that labels could choose: take mixture or swiss_roll")
        self.style_dim, self.kind, self.scale, self.modes = style_dim, kind, scale, modes
        self.labels, self.entries = labels, entries
        self.latent_dim = style_dim + entries
        self.draws = style_dim + 2  # one for the mode, one for the label part

    def style(self, eps: Tensor, y: Tensor | None = None) -> Tensor:
        """z `[batch, style_dim]` of p(z), or of p(z|y) where labels choose the mode and y `[batch]` is not -1."""
        z = eps[:, : self.style_dim]
        if self.kind != "gaussian":
            unknown = torch.full_like(eps[:, 0], -1, dtype=torch.int64)
            y = unknown if y is None or self.labels != "mode" else y
            if self.kind == "swiss_roll":
                z = swiss_roll(z, y, self.modes)
            else:
                any_mode = category(eps[:, self.style_dim], self.modes)
                z = mixture_of_gaussians(z, torch.where(y < 0, any_mode, y), self.modes)
        return self.scale * z

    def label_part(self, eps: Tensor, y: Tensor | None = None) -> Tensor:
        """One-hot `[batch, entries]`, of y `[batch]` if given."""
        return one_hot(category(eps[:, -1], self.entries) if y is None else y, self.entries)

    def forward(self, eps: Tensor, y: Tensor | None = None, style: Tensor | None = None) -> Tensor:
        """Codes `[batch, latent_dim]`; y `[batch]`: class, or entry of the label part; style: z instead of a draw."""
        z = self.style(eps, y) if style is None else style
        return torch.cat([z, self.label_part(eps, y)], 1) if self.entries else z

    def complete(self, code: Tensor, y: Tensor | None = None) -> Tensor:
        """An encoder's code as the decoder takes it: with y `[batch]` where that is told; -1 or None: no label."""
        if self.labels != "told":
            return code
        return torch.cat([code, code.new_zeros(len(code), self.entries) if y is None else one_hot(y, self.entries)], 1)


class LabelPart(Classifier):
    """Reads the class from the label part of a code: the logarithm of the largest probability among its entries.

    An entry is a class, or, with `clusters`, a cluster that has the class `class_of` (see `name_clusters`).
    """

    model_type = "label_part"
    class_of: Tensor

    def __init__(self, style_dim: int, entries: int, classes: int, clusters: bool = False) -> None:
        super().__init__()
        self.style_dim, self.classes, self.clusters = style_dim, classes, clusters
        self.register_buffer("class_of", torch.arange(entries) % classes)

    def forward(self, z: Tensor) -> Tensor:
        each = z[:, self.style_dim :].clamp_min(TINY).log()
        logits = torch.full_like(each[:, :1], TINY).log().expand(-1, self.classes)
        return logits.scatter_reduce(1, self.class_of.expand_as(each), each, "amax")

    def knows_its_classes(self) -> bool:
        """Whether all entries have a class that there is: a damaged file may say otherwise."""
        return bool(((self.class_of >= 0) & (self.class_of < self.classes)).all())

    def entries_of(self, label: int) -> Tensor:
        """int64 `[n]`: the entries that have this class."""
        return (self.class_of == label).nonzero().squeeze(1)
