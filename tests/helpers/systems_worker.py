"""Train every row of the systems' table for a few steps in this launch, and leave the weights in a folder.

accelerate launch ... systems_worker.py OUT STRATEGY
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.contract import OPTIONS, make, specs_of

from savae_dist.config.strategy import Strategy
from savae_dist.distributed import launch
from savae_dist.testing.parity import trained


def main(out: Path, strategy: Strategy) -> None:
    state = launch.start("fp32", 120.0)
    for name, rows in OPTIONS.items():
        for row in range(len(rows)):
            tensors = trained(
                make(name, row), specs_of(name, row)[0], state.process_index, state.num_processes, strategy
            )
            if state.is_main_process:
                save_file(
                    {key: value.contiguous() for key, value in tensors.items()}, out / f"{name}-{row}.safetensors"
                )
    state.wait_for_everyone()


if __name__ == "__main__":
    main(Path(sys.argv[1]), cast(Strategy, sys.argv[2]))
