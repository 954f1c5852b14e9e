"""Whether the terms that a configuration names exist, asked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from savae_dist.config.effect import field_values
from savae_dist.config.nearest import nearest
from savae_dist.config.schema import RunConfig
from savae_dist.errors import ConfigError
from savae_dist.networks import Network
from savae_dist.preprocess import DataSpec
from savae_dist.systems import SYSTEMS
from savae_dist.systems.phases import Batch, Phase, System, Update
from savae_dist.training.gradient_shares import DECODER


@dataclass(frozen=True)
class Found:
    """The terms that an update of a phase returns for two blank samples; none if it is not active."""

    phase: Phase
    update: Update
    terms: Mapping[str, Tensor]

    def has(self, name: str) -> bool:
        """Whether `TERM` or `UPDATE.TERM` is here."""
        update, _, term = name.rpartition(".")
        return term in self.terms and update in ("", self.update.name)


def check_terms(config: RunConfig, networks: Mapping[str, Network], spec: DataSpec) -> None:
    """ConfigError if a schedule, an adaptive weight or an update's `chance` names a term that no loss returns.

    Also if a schedule or an adaptive weight comes to nothing there. The losses are asked for their terms. A term is not
    missed where a weight was set to 0, since that leaves terms out: a sweep may include 0.
    """
    for update in (update for phase in config.system.phases() for update in phase.updates if update.active):
        _check_chance(update, networks, spec, config.system)
    if not (config.schedules or config.adaptive):
        return
    found = [
        Found(phase, update, terms_of(update, networks, spec))
        for phase in config.system.phases()
        for update in phase.updates
    ]
    for name, schedule in config.schedules.items():
        homes = _homes(f"schedules.{name}", name, found, config.system)
        last = max((home.phase.steps for home in homes), default=0)
        if schedule.start >= last > 0:
            raise ConfigError(f"schedules.{name}.start={schedule.start}: its phase ends after {last} steps")
    for name, adaptive in config.adaptive.items():
        for home in _homes(f"adaptive.{name}", name, found, config.system):
            _check_adaptive(f"adaptive.{name}", name.rpartition(".")[2], adaptive.to, home, networks)


def _check_chance(update: Update, networks: Mapping[str, Network], spec: DataSpec, system: System) -> None:
    terms = terms_of(update, networks, spec) if update.chance else {}
    for name in update.chance if not has_weight_of_zero(system) else ():
        if name not in terms:
            told = nearest(name, terms) or f"; they return {', '.join(terms)}"
            raise ConfigError(f"update {update.name!r}: chance names {name!r}, which none of its losses returns{told}")


def _homes(key: str, name: str, found: Iterable[Found], system: System) -> list[Found]:
    """The updates that have a term; ConfigError if there is none."""
    homes = [one for one in found if one.has(name)]
    if not homes and not has_weight_of_zero(system):
        known = [*dict.fromkeys(term for one in found for term in one.terms)]
        told = nearest(name, known) or f"; there are {', '.join(known)}"
        raise ConfigError(f"{key}: no loss of {system.name} has such a term{told}")
    return homes


def _check_adaptive(key: str, term: str, to: str, home: Found, networks: Mapping[str, Network]) -> None:
    """ConfigError unless the update trains the decoder, and both terms do."""
    update, terms = home.update, home.terms
    if DECODER not in update.trains:
        raise ConfigError(f"{key}: update {update.name} does not train the decoder: name one that does, UPDATE.{term}")
    if to == term or to not in terms:
        others = ", ".join(name for name in terms if name != term)
        raise ConfigError(f"{key}.to={to} is no other term of {update.name}, which has {others or 'none'}")
    weights = [*networks[DECODER].parameters()]
    for name in (term, to):
        gradients = torch.autograd.grad(terms[name], weights, retain_graph=True, allow_unused=True)
        if all(gradient is None for gradient in gradients):
            raise ConfigError(f"{key}.to={to}: the gradient of {name} does not reach the decoder")


def terms_of(update: Update, networks: Mapping[str, Network], spec: DataSpec) -> dict[str, Tensor]:
    """The terms that the losses of an update return for two blank samples; none of one that is not active."""
    device = next(parameter.device for network in networks.values() for parameter in network.parameters())
    for network in networks.values():
        network.eval()  # so that nothing in them changes
    one = torch.ones((), device=device)
    batch = Batch(
        x=torch.zeros(2, *spec.shape, device=device),
        y=torch.zeros(2, dtype=torch.int64, device=device),
        noise={name: torch.zeros(2, *shape, device=device) for name, shape in update.noise.items()},
        label_weight=one,
        unlabelled_weight=one,
        attributes=torch.zeros(2, len(spec.attributes), device=device) if spec.attributes else None,
    )
    nets = SimpleNamespace(**networks)
    return {term: value for loss in update.losses if update.active for term, value in loss(nets, batch).items()}


def has_weight_of_zero(system: System) -> bool:
    """Whether a number of the system is 0 that is not by default."""
    usual = field_values(SYSTEMS[system.name])
    return any(
        value == 0 != usual[key] for key, value in field_values(system).items() if isinstance(value, int | float)
    )
