"""Drawing codes for a decoder: from the prior, from a mixture fitted to its codes, or from training posteriors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from savae_dist.latents import Posterior
from savae_dist.networks import LabelPart, Network, Prior
from savae_dist.pipeline.sampling.posteriors import PosteriorBank
from savae_dist.pipeline.sampling.sampler import WHOLE, Sampler

Source = Literal["mixture", "prior", "posteriors"]
SOURCES: tuple[Source, ...] = get_args(Source)


@dataclass(frozen=True)
class Codes:
    """All that codes `[n, latent_dim]` can be drawn from.

    prior: that of the system's own; None: N(0, I), which knows no class. classifier: names the entries of a label part.
    mixture: of whole codes, or of the style where the decoder is told the class beside it.
    """

    latent_dim: int
    classes: int
    prior: Prior | None
    classifier: Network | None
    mixture: Sampler | None
    posteriors: PosteriorBank | None

    @property
    def labels(self) -> list[int]:
        """The classes that can be drawn."""
        return sorted({label for source in SOURCES for label in self.labels_of(source)})

    def labels_of(self, source: Source) -> list[int]:
        """The classes that can be drawn from this source."""
        if source == "mixture":
            return self.mixture.labels if self.mixture is not None else []
        if source == "posteriors":
            return self.posteriors.label.unique().tolist() if self.posteriors is not None else []
        if self.prior is None or self.prior.labels == "none":
            return []
        if self.prior.labels == "inferred":
            return self.classifier.class_of.unique().tolist() if isinstance(self.classifier, LabelPart) else []
        return list(range(self.classes))

    def usual(self, label: int | None) -> Source:
        """What codes of that class, or of all, are drawn from where nothing else is asked for: the first that can."""
        if label is None:
            return "mixture" if self.mixture is not None else "prior"
        return next(source for source in SOURCES if label in self.labels_of(source))

    def draw(
        self,
        n: int,
        label: int | None,
        generator: torch.Generator,
        style: Tensor | None = None,
        source: Source | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Codes `[n, latent_dim]`; ValueError where the source is not there, or does not know what it is asked for."""
        source = source or (self.usual(label) if style is None else "prior")
        if style is not None and self.prior is None:
            raise ValueError("style needs a code with a label part, and that of this pipeline is in one piece")
        if style is not None and source != "prior":
            raise ValueError(f"style needs no sampler={source}: it takes the place of what that would draw")
        if temperature < 0:
            raise ValueError(f"temperature must be at least 0, not {temperature:g}")
        if source == "mixture" and self.mixture is not None:
            return self._of_mixture(self.mixture, n, label, generator, temperature)
        if source == "posteriors" and self.posteriors is not None:
            bank = self.posteriors if label is None else self.posteriors.of_class(label)
            chosen = torch.randint(len(bank.mean), (n,), generator=generator)
            posterior = Posterior(bank.mean[chosen], bank.log_variance[chosen])
            return posterior.sample(temperature * torch.randn(posterior.mean.shape, generator=generator))
        if source != "prior":
            found = {"mixture": self.mixture, "prior": True, "posteriors": self.posteriors}
            there = ", ".join(name for name, one in found.items() if one is not None)
            raise ValueError(f"sampler={source}: this pipeline draws codes from {there}")
        if self.prior is None:
            if label is not None:
                raise ValueError(f"label {label}: the prior N(0, I) knows no classes; leave sampler out")
            return temperature * torch.randn(n, self.latent_dim, generator=generator)
        return self._of_prior(self.prior, n, label, generator, style, temperature)

    def _of_mixture(
        self, mixture: Sampler, n: int, label: int | None, generator: torch.Generator, temperature: float
    ) -> Tensor:
        """Where the decoder is told the class, the style is drawn from that class's mixture: style may hold it too."""
        if label is not None:
            self._known(label, "mixture")
        if self.prior is None or self.prior.labels != "told":
            return mixture.draw(n, WHOLE if label is None else label, generator, temperature)
        classes = torch.tensor(mixture.labels if label is None else [label])
        y = classes[torch.randint(len(classes), (n,), generator=generator)]
        z = torch.empty(n, self.prior.style_dim)
        for one in y.unique().tolist():
            z[y == one] = mixture.draw(int((y == one).sum()), one, generator, temperature)
        return self.prior.complete(z, y)

    def _known(self, label: int, source: Source) -> int:
        if label not in self.labels_of(source):
            known = ", ".join(map(str, self.labels_of(source))) or "none"
            raise ValueError(f"label {label}: the {source} has no such class; it has {known}")
        return label

    def _of_prior(
        self,
        prior: Prior,
        n: int,
        label: int | None,
        generator: torch.Generator,
        style: Tensor | None,
        temperature: float,
    ) -> Tensor:
        eps, y = torch.randn(n, prior.draws, generator=generator), None
        if temperature != 1:
            if prior.kind == "swiss_roll":
                raise ValueError("temperature: a swiss roll is no Gaussian, whose deviation could be changed")
            eps[:, : prior.style_dim] *= temperature
        if style is not None:
            if not prior.entries or style.shape not in ((prior.style_dim,), (n, prior.style_dim)):
                expected = f"[{n}, {prior.style_dim}]" if prior.entries else "left out: the code has no label part"
                raise ValueError(f"style is {list(style.shape)} and must be {expected}")
            style = style.expand(n, -1)
        if label is not None:
            part, number = self.classifier, self._known(label, "prior")
            entries = part.entries_of(number).cpu() if isinstance(part, LabelPart) else torch.tensor([number])
            y = entries[torch.randint(len(entries), (n,), generator=generator)]
        return prior(eps, y, style)
