"""What one process of a launch is made of."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import PartialState

from savae_dist.config.strategy import Strategy
from savae_dist.distributed.ranks import Peers
from savae_dist.distributed.signals import Stop
from savae_dist.run.reporting.status_file import Status


@dataclass(frozen=True)
class Process:
    """This process of the launch: its rank and device, its peers, its stop signal and its status file."""

    state: PartialState
    peers: Peers
    stop: Stop
    status: Status
    strategy: Strategy
