"""Whether networks can be saved and loaded again, asked when they are built and not at the first checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping

from torch import nn

from savae_dist.errors import ConfigError
from savae_dist.networks import NETWORKS, Network

GUIDE = "docs/own_systems.md"


def check_networks(system: str, networks: Mapping[str, nn.Module]) -> None:
    """ConfigError that names the system and the network if one of these could not be saved and loaded."""
    for name, network in networks.items():
        fault = network_fault(network)
        if fault:
            raise ConfigError(f"system.name={system}: network {name!r} {fault} ({GUIDE})")


def network_fault(network: nn.Module) -> str:
    """Why it could not be saved and loaded again, and what to do; empty if it can."""
    kind = type(network)
    if not isinstance(network, Network):
        whose = "torch " if kind.__module__.startswith("torch.") else ""
        return f"is a {whose}{kind.__name__}, not a savae_dist.networks.Network: subclass Network"
    name = network.model_type
    if not name:
        return f"is a {kind.__name__} without a model_type: give it one, and enter it in NETWORKS"
    if name not in NETWORKS:
        return f"is a {kind.__name__}, which NETWORKS does not have: add NETWORKS[{name!r}] = {kind.__name__}"
    if NETWORKS[name] is not kind:
        other = NETWORKS[name].__name__
        return f"is a {kind.__name__}, and NETWORKS[{name!r}] is {other}: give it a model_type of its own"
    return arguments_fault(network)


def arguments_fault(network: Network) -> str:
    """Which argument config.json could not hold."""
    kind = type(network).__name__
    for name, value in network.init_arguments.items():
        if name.startswith("*"):
            return f"is a {kind}, whose __init__ takes {name}: name each argument, for config.json"
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            return (
                f"is a {kind}, made with {name}=a {type(value).__name__}, which config.json cannot hold: "
                "pass numbers, texts, or lists of them"
            )
    return ""
