"""Where a decoder's codes lie: mixtures of Gaussians fitted to the aggregated posterior, to draw new codes from.

Most systems here do not fill N(0, I), so a decoder would be shown codes that it never saw. A mixture stores no sample.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from safetensors.torch import load_file
from torch import Tensor

from savae_dist.networks.stored import tensor_forms
from savae_dist.untrusted import shown

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

WHOLE = -1  # the label of the components that were fitted to all samples
COMPONENTS = (1, 4, 16, 64)
MOST_DIMENSIONS = 512  # beyond it covariances are diagonal, since a full one has K^2 numbers
PER_COMPONENT = 20  # samples, at least, for each component
HELD_OUT = 10  # each tenth code is kept from fitting, and the mixture is chosen by it
LEAST_VARIANCE = 1e-6  # added to a component's variance, as a share of the variance of all codes


@dataclass(frozen=True)
class Sampler:
    """Mixtures of Gaussians over codes: one for all samples, and one for each class that has some.

    label int64 `[m]`: the class of a component, WHOLE for that of all samples. weight float32 `[m]`: sums to 1 in each
    mixture. mean `[m, K]`. factor: `[m, K, K]`, lower triangular, the covariance is L L^T; or deviations `[m, K]`.
    """

    label: Tensor
    weight: Tensor
    mean: Tensor
    factor: Tensor

    def __post_init__(self) -> None:
        m, dimensions = self.mean.shape
        if self.factor.shape not in ((m, dimensions), (m, dimensions, dimensions)):
            raise ValueError(f"a sampler of means {[m, dimensions]} cannot have factors {list(self.factor.shape)}")
        if self.label.shape != (m,) or self.weight.shape != (m,) or not bool((self.weight > 0).all()):
            raise ValueError("a sampler needs a label and a weight above 0 for each component")
        if not all(bool(one.isfinite().all()) for one in (self.weight, self.mean, self.factor)):
            raise ValueError("a sampler's numbers must be finite")

    def tensors(self) -> dict[str, Tensor]:
        """The four by name; `Sampler(**tensors)` is the same sampler."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def labels(self) -> list[int]:
        """The classes that have a mixture of their own."""
        return [label for label in self.label.unique().tolist() if label != WHOLE]

    def of_classes(self) -> Self:
        """The mixtures of all classes as one, in which classes are equally likely; `label` says whose a component is.

        Components are in the order of their classes, so that the first of n classes has the first n-th of the weight.
        """
        own = self.label.argsort(stable=True)[int((self.label == WHOLE).sum()) :]
        return type(self)(self.label[own], self.weight[own] / len(self.labels), self.mean[own], self.factor[own])

    def of(self, label: int) -> Self:
        """The mixture of class `label`, or of WHOLE, alone."""
        own = self.label == label
        return type(self)(self.label[own], self.weight[own], self.mean[own], self.factor[own])

    def draw(self, n: int, label: int, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """n codes `[n, K]` of class `label`, or WHOLE; the draws within a component are times `temperature`."""
        own = self.of(label)
        component = torch.multinomial(own.weight, n, replacement=True, generator=generator)
        eps = temperature * torch.randn(n, self.mean.shape[1], generator=generator)
        return of_gaussians(own.mean[component], own.factor[component], eps)

    def log_density(self, z: Tensor, label: int = WHOLE) -> Tensor:
        """log p(z) in nats `[n]` of codes z `[n, K]`."""
        own, each = self.of(label), []
        for weight, mean, factor in zip(own.weight, own.mean, own.factor, strict=True):
            scale = torch.diag(factor) if factor.dim() == 1 else factor
            density = torch.distributions.MultivariateNormal(mean, scale_tril=scale)
            each.append(weight.log() + density.log_prob(z))
        return torch.stack(each).logsumexp(0)


def of_gaussians(mean: Tensor, factor: Tensor, eps: Tensor) -> Tensor:
    """Draws `[n, K]` of n Gaussians, by standard normal draws eps; mean `[n, K]`, factor `[n, K(, K)]` as above."""
    return mean + (factor * eps if factor.dim() == 2 else torch.einsum("nij,nj->ni", factor, eps))


@dataclass(frozen=True)
class Fit:
    """A fitted sampler, and what held-out codes say of it.

    held_out: mean log-density of codes that it was not fitted to, in nats; normal: that of N(0, I). components: how
    many the mixture of all samples has; 0 if N(0, I) was the likelier.
    """

    sampler: Sampler
    held_out: float
    normal: float
    components: int

    def told(self) -> dict[str, float | int]:
        """For the run's summary."""
        return {"components": self.components, "held_out_nats": self.held_out, "normal_nats": self.normal}


def fit(z: Tensor, by_class: Mapping[int, Tensor]) -> Fit:
    """The mixtures, among those of `COMPONENTS`, that held-out codes find likeliest; N(0, I) is one of them.

    z `[n, K]`, n at least 2: a draw of the posterior of each sample. by_class: the same of labelled samples, by their
    class; a class of less than two gets no mixture of its own.
    """
    z = z.double().cpu()
    fitted, normal = _fitted(z), _normal(z)
    last = _held_out(z)[1]
    ours, plain = float(fitted.log_density(last).mean()), float(normal.log_density(last).mean())
    parts = [(WHOLE, fitted if ours > plain else normal)]
    parts += [(label, _fitted(codes.double().cpu())) for label, codes in sorted(by_class.items()) if len(codes) > 1]
    full = any(part.factor.dim() == 3 for _, part in parts)
    factors = [torch.diag_embed(one.factor) if full and one.factor.dim() == 2 else one.factor for _, one in parts]
    sampler = Sampler(
        torch.cat([torch.full((len(one.weight),), label) for label, one in parts]),
        torch.cat([one.weight for _, one in parts]).float(),
        torch.cat([one.mean for _, one in parts]).float(),
        torch.cat(factors).float(),
    )
    return Fit(sampler, max(ours, plain), plain, len(fitted.weight) if ours > plain else 0)


def load_sampler(path: Path) -> Sampler:
    """The sampler in a safetensors file; ValueError unless it is one."""
    forms = {name: (len(shape), floating) for name, (shape, floating) in tensor_forms(path).items()}
    expected = {"label": (1, False), "weight": (1, True), "mean": (2, True)}
    if forms not in ({**expected, "factor": (2, True)}, {**expected, "factor": (3, True)}):
        raise ValueError(f"{path.name} holds {shown(forms)}, not label, weight [m], mean [m, K] and factor [m, K(, K)]")
    tensors = load_file(path)
    return Sampler(tensors["label"].long(), *(tensors[name].float() for name in ("weight", "mean", "factor")))


def _held_out(z: Tensor) -> tuple[Tensor, Tensor]:
    """Codes to fit to, and those to choose by: each tenth; all of them for both where they are a few."""
    if len(z) < 2 * HELD_OUT:
        return z, z
    last = torch.arange(len(z)) % HELD_OUT == HELD_OUT - 1
    return z[~last], z[last]


def _normal(z: Tensor) -> Sampler:
    """N(0, I) in as many dimensions."""
    one = torch.ones(1, dtype=z.dtype)
    return Sampler(torch.tensor([WHOLE]), one, z.new_zeros(1, z.shape[1]), z.new_ones(1, z.shape[1]))


def _fitted(z: Tensor) -> Sampler:
    """The likeliest mixture for codes z float64 `[n, K]`."""
    first, last = _held_out(z)
    return max(_candidates(first), key=lambda one: float(one.log_density(last).mean()))


def _candidates(z: Tensor) -> Iterator[Sampler]:
    """Mixtures of several sizes, with diagonal and with full covariances, as far as there are samples for them."""
    from sklearn.exceptions import ConvergenceWarning  # here: a pipeline that is used fits nothing
    from sklearn.mixture import GaussianMixture

    n, dimensions = z.shape
    least = LEAST_VARIANCE * float(z.var(0, correction=0).mean()) or LEAST_VARIANCE
    for count in COMPONENTS:
        for form in ("diag", "full"):
            if count > 1 and n < PER_COMPONENT * count:
                continue
            if form == "full" and (dimensions > MOST_DIMENSIONS or n < 2 * dimensions * count):
                continue
            mixture = GaussianMixture(
                count, covariance_type=form, reg_covar=least, init_params="k-means++", random_state=0, tol=1e-2
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # held-out codes judge it as it is
                mixture.fit(z.numpy())
            yield _as_sampler(mixture, form)


def _as_sampler(mixture: GaussianMixture, form: str) -> Sampler:
    covariance = torch.from_numpy(mixture.covariances_)
    factor = covariance.sqrt() if form == "diag" else torch.linalg.cholesky(covariance)
    weight = torch.from_numpy(mixture.weights_)
    used = weight > 0
    label = torch.full((int(used.sum()),), WHOLE)
    return Sampler(label, weight[used], torch.from_numpy(mixture.means_)[used], factor[used])
