"""Whether a system's networks fit what is to be done with them, asked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from savae_dist.config.nearest import nearest
from savae_dist.errors import ConfigError
from savae_dist.networks import Encoder, Network
from savae_dist.networks.check import GUIDE, check_networks
from savae_dist.pipeline.folder import ROLES
from savae_dist.systems.phases import System


def check_fit(system: System, networks: Mapping[str, nn.Module]) -> None:
    """ConfigError where a network cannot be saved, is trained but not built, or cannot play its role in a pipeline."""
    check_networks(system.name, networks)
    where, built = f"system.name={system.name}", ", ".join(networks)
    for phase in system.phases():
        if not any(update.active for update in phase.updates):
            raise ConfigError(f"{where}: phase {phase.name!r} has no active update: leave it out of phases() ({GUIDE})")
        of, trained = phase.posteriors, {name for update in phase.updates for name in update.trains}
        if of is not None and (of in trained or not isinstance(networks.get(of), Encoder)):
            wrong = f"phase {phase.name!r} keeps the posteriors of {of!r}, which is no frozen Encoder of it"
            raise ConfigError(f"{where}: {wrong}: leave `posteriors` out ({GUIDE})")
    for update in (update for phase in system.phases() for update in phase.updates):
        for name in update.trains:
            if name not in networks:
                raise ConfigError(f"{where}: update {update.name!r} trains {name!r}, and build makes {built} ({GUIDE})")
    for name in system.pipeline:
        # A role may be missing: the AAEs share one `pipeline`, and the unsupervised one has no classifier.
        if name not in networks and name not in ROLES:
            meant = nearest(name, networks) or f": build makes {built}"
            raise ConfigError(f"{where}: the pipeline is to hold {name!r}, which build does not make{meant} ({GUIDE})")
        role = ROLES.get(name, Network)
        if name in networks and not isinstance(networks[name], role):
            wrong = f"the {name} of a pipeline is a {role.__name__}, and {type(networks[name]).__name__} is none"
            raise ConfigError(f"{where}: {wrong}: subclass {role.__name__} ({GUIDE})")


def check_scalars(update: str, terms: Mapping[str, Tensor]) -> None:
    """ConfigError if a loss has returned a term that is no scalar."""
    for name, value in terms.items():
        if value.ndim:
            shape = [*value.shape]
            raise ConfigError(f"update {update!r}: term {name!r} has the shape {shape}: return its mean ({GUIDE})")


def check_slopes(critic: nn.Module, weight: float) -> None:
    """ConfigError if a critic whose slope at each sample is penalised mixes the samples of a batch."""
    if weight and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in critic.modules()):
        raise ConfigError(
            f"system.r1_weight={weight}: batch norm mixes the samples at whose slopes R1 looks one by one; "
            "set networks.norm=group or none"
        )
