"""What is frozen in an update: which parameters require a gradient, and the mode of every module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from savae_dist.networks import Network
from savae_dist.training.batch_norm import BatchNorm


@dataclass(frozen=True)
class States:
    """What holds in an update."""

    parameters: list[tuple[nn.Parameter, bool]]  # (parameter, requires gradient)
    modules: list[tuple[nn.Module, bool]]  # (module, training)
    norms: list[tuple[BatchNorm, bool]]  # (batch norm, track running statistics)


def states_of(networks: Mapping[str, Network], trained: set[str], in_play: set[str]) -> States:
    """What requires a gradient, and each module's mode, in an update of `trained` within a phase that trains `in_play`.

    A network that only other updates of the phase train is in eval mode, but its batch norms normalise with batch
    statistics, as in training, and do not update their buffers.
    """
    parameters = [(p, name in trained) for name, network in networks.items() for p in network.parameters()]
    states = States(parameters, [], [])
    for name, network in networks.items():
        for module in network.modules():
            if isinstance(module, BatchNorm):
                states.modules.append((module, name in in_play))
                states.norms.append((module, name in trained or name not in in_play))
            else:
                states.modules.append((module, name in trained))
    return states
