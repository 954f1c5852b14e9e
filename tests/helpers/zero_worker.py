"""Both phases of SAVAE under ZeRO on the ranks of this launch, and under DDP; prints how far the weights differ.

zero_worker.py STAGE
"""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor

from savae_dist.config.schema import OptimizerConfig
from savae_dist.distributed import launch
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import SmallRun, distance
from savae_dist.training.batches import BatchSplit

UPDATES = ("vec", "critic", "decoder")
Weights = dict[str, dict[str, Tensor]]


def trained(device: torch.device, zero: int, steps: int = 3) -> Weights:
    sgd = {name: OptimizerConfig("sgd", lr=0.05, momentum=0.5, clip_norm=0.5) for name in UPDATES}
    split = BatchSplit(8, torch.distributed.get_rank(), torch.distributed.get_world_size())
    run = SmallRun(SAVAE(latent_dim=3), device=device, norm="group", split=split, optimizers=sgd, zero=zero)
    for phase in run.phases if steps else ():
        run.run(phase, steps)
        for update in run.updates.values():
            update.close()
    return run.weights()


def furthest(a: Weights, b: Weights) -> float:
    return max(distance(a[name], b[name]) for name in a)


def main(stage: int) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    device = launch.start("fp32", 60.0).device
    ddp, zero, untrained = trained(device, 0), trained(device, stage), trained(device, 0, steps=0)
    print(json.dumps({"device": device.type, "difference": furthest(ddp, zero), "moved": furthest(ddp, untrained)}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]))
