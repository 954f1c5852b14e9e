"""Whether the terms that a configuration names exist, asked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import torch

from savae_dist.config.effect import field_values
from savae_dist.config.nearest import nearest
from savae_dist.config.schema import RunConfig
from savae_dist.errors import ConfigError
from savae_dist.networks import Network
from savae_dist.preprocess import DataSpec
from savae_dist.systems import SYSTEMS
from savae_dist.systems.phases import Batch, System, Update


def check_terms(config: RunConfig, networks: Mapping[str, Network], spec: DataSpec) -> None:
    """ConfigError if a schedule names a term that no loss returns, or begins after the phase has ended.

    The losses are asked for their terms, on two blank samples. A term is not missed where a weight was set to 0, since
    that leaves terms out: a sweep may include 0.
    """
    if not config.schedules:
        return
    last: dict[str, int] = {}  # of TERM and UPDATE.TERM, the steps of the longest phase that has it
    for phase in config.system.phases():
        for update in phase.updates:
            for term in terms_of(update, networks, spec):
                for name in (term, f"{update.name}.{term}"):
                    last[name] = max(last.get(name, 0), phase.steps)
    for name, schedule in config.schedules.items():
        if name not in last and not has_weight_of_zero(config.system):
            known = nearest(name, last) or f"; there are {', '.join(term for term in last if '.' not in term)}"
            raise ConfigError(f"schedules.{name}: no loss of {config.system.name} has such a term{known}")
        if schedule.start >= last.get(name, 0) > 0:
            raise ConfigError(f"schedules.{name}.start={schedule.start}: its phase ends after {last[name]} steps")


def terms_of(update: Update, networks: Mapping[str, Network], spec: DataSpec) -> list[str]:
    """The names of the terms that the losses of an update return; none of one that is not active."""
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
    return [term for loss in update.losses if update.active for term in loss(nets, batch)]


def has_weight_of_zero(system: System) -> bool:
    """Whether a number of the system is 0 that is not by default."""
    usual = field_values(SYSTEMS[system.name])
    return any(
        value == 0 != usual[key] for key, value in field_values(system).items() if isinstance(value, int | float)
    )
