"""Both phases of SAVAE under a strategy on the ranks of this launch, and under DDP; prints how far the weights differ.

strategy_worker.py STRATEGY
"""

from __future__ import annotations

import json
import sys
from typing import cast

import torch
from torch import Tensor

from savae_dist.config.schema import OptimizerConfig
from savae_dist.config.strategy import Strategy
from savae_dist.distributed import launch
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import SmallRun, distance
from savae_dist.training.batches import BatchSplit
from savae_dist.training.sharded import join

UPDATES = ("vec", "critic", "decoder")
Weights = dict[str, dict[str, Tensor]]


def trained(device: torch.device, strategy: Strategy, steps: int = 3) -> Weights:
    sgd = {name: OptimizerConfig("sgd", lr=0.05, momentum=0.5, clip_norm=0.5) for name in UPDATES}
    split = BatchSplit(8, torch.distributed.get_rank(), torch.distributed.get_world_size())
    run = SmallRun(SAVAE(latent_dim=3), device=device, norm="group", split=split, optimizers=sgd, strategy=strategy)
    for phase in run.phases if steps else ():
        run.run(phase, steps)
        for update in run.updates.values():
            update.close()
        for network in run.networks.values():
            join(network)
    return run.weights()


def furthest(a: Weights, b: Weights) -> float:
    return max(distance(a[name], b[name]) for name in a)


def main(strategy: Strategy) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = launch.start("fp32", 60.0).device
    ddp, other, untrained = trained(device, "ddp"), trained(device, strategy), trained(device, "ddp", steps=0)
    print(json.dumps({"device": device.type, "difference": furthest(ddp, other), "moved": furthest(ddp, untrained)}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(cast(Strategy, sys.argv[1]))
