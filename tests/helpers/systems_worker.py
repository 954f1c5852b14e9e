"""Train every row of the systems' table for a few steps in this launch, and leave the weights in a folder.

In float64: what is left between launches is rounding, and in float32 kinks (max-pool, LeakyReLU) make 1e-4 of 1e-7.

accelerate launch ... systems_worker.py OUT
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.contract import OPTIONS, make
from helpers.training import Trainer

from savae_dist.config.schema import OptimizerConfig
from savae_dist.distributed import launch
from savae_dist.training.batches import BatchSplit

STEPS = 3


def main(out: Path) -> None:
    state = launch.start("fp32", 120.0)
    for name, rows in OPTIONS.items():
        for row in range(len(rows)):
            system = make(name, row)
            updates = (update for phase in system.phases() for update in phase.updates)
            # Adam divides each gradient by its own size: where that is next to nothing, it steps along the rounding.
            plain = {
                update.name: replace(OptimizerConfig(**dict(update.optimizer)), name="sgd", lr=0.05, clip_norm=0.5)
                for update in updates
            }
            split = BatchSplit(8, state.process_index, state.num_processes)
            trainer = Trainer(system, split=split, norm="group", dtype=torch.float64, optimizers=plain, ema=0.5)
            for phase in trainer.phases:
                trainer.run(phase, STEPS)
            averages = {f"average.{n}": a.network for u in trainer.updates.values() for n, a in u.averages.items()}
            if state.is_main_process:
                networks = {**trainer.networks, **averages}
                states = {name: network.state_dict() for name, network in networks.items()}
                tensors = {f"{n}.{k}": v.contiguous() for n, w in states.items() for k, v in w.items()}
                save_file(tensors, out / f"{name}-{row}.safetensors")
    state.wait_for_everyone()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
