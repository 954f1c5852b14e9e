"""One process equals two: the same training on one process, and on two ranks over gloo on this machine.

They are compared in float64, where only rounding is left between them: in float32, kinks (max-pool, LeakyReLU) can turn
a difference of 1e-7 into 1e-4.

    python -m savae_dist.testing.parity CASE.json OUT.safetensors    (a rank of a launch)
"""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import Tensor

from savae_dist.config import identity
from savae_dist.config.schema import OptimizerConfig
from savae_dist.config.strategy import Strategy
from savae_dist.distributed import launch
from savae_dist.networks import Network
from savae_dist.preprocess import DataSpec
from savae_dist.systems.own import enter
from savae_dist.systems.phases import System
from savae_dist.testing.contract import require
from savae_dist.testing.ranks import run_ranks
from savae_dist.testing.small_run import IMAGE, SmallRun
from savae_dist.training.batch_norm import batch_norms
from savae_dist.training.batches import BatchSplit
from savae_dist.training.sharded import join

STEPS = 3
ROUNDING = 1e-10
SMALL = {"name": "sgd", "lr": 0.05, "clip_norm": 0.5}


def has_parity(system: System, spec: DataSpec = IMAGE) -> bool:
    """Whether the two can be equal: not with batch norm, which normalises over its own process's part of a batch."""
    networks = SmallRun(system, spec, norm="group").networks
    return not any(batch_norms(network) for network in networks.values())


def trained(
    system: System, spec: DataSpec = IMAGE, rank: int = 0, ranks: int = 1, strategy: Strategy = "ddp"
) -> dict[str, Tensor]:
    """All tensors and averages after a few steps of each phase, on this rank of a launch; equal on all ranks."""
    # SGD, because Adam divides each gradient by its own size: where that is near zero, it steps along the rounding.
    plain = {
        update.name: replace(OptimizerConfig(**{**update.optimizer, **SMALL}))
        for phase in system.phases()
        for update in phase.updates
    }
    run = SmallRun(
        system,
        spec,
        split=BatchSplit(8, rank, ranks),
        norm="group",
        dtype=torch.float64,
        optimizers=plain,
        ema=0.5,
        strategy=strategy,
    )
    averages: dict[str, Network] = {}
    for phase in run.phases:
        run.run(phase, STEPS)
        averages = {f"average.{n}": a.network for update in run.updates.values() for n, a in update.averages.items()}
        for network in (*run.networks.values(), *averages.values()):
            join(network)
    states = {name: network.state_dict() for name, network in {**run.networks, **averages}.items()}
    return {f"{name}.{key}": value for name, state in states.items() for key, value in state.items()}


def check_two_processes(system: System, folder: Path, spec: DataSpec = IMAGE) -> None:
    """Two processes train what one trains, to rounding. folder: for what they exchange."""
    case, out = folder / "case.json", folder / "trained.safetensors"
    case.write_text(json.dumps({**address(system), "spec": spec.to_dict()}))
    try:
        run_ranks(2, "-m", "savae_dist.testing.parity", str(case), str(out))
    except AssertionError as error:
        raise AssertionError(f"two processes cannot train it, and one can:\n{error}") from error
    found = load_file(out)
    for name, value in trained(system, spec).items():
        off = float((found[name].double() - value.double()).abs().max()) if value.numel() else 0.0
        require(
            off <= ROUNDING,
            f"{name} differs by {off:.1e} between one process and two: a loss is no mean over its batch (averages over "
            "labelled samples: `batch.label_weight`), or looks at the order or number of its samples",
        )


def address(system: System) -> dict[str, object]:
    """How another process finds this system: its file, its class there, and its hyperparameters."""
    kind = type(system)
    module = inspect.getmodule(kind)
    require(
        module is not None and bool(module.__file__) and "<locals>" not in kind.__qualname__,
        f"{kind.__qualname__} must be defined at the top of a file, so that two processes can find it there",
    )
    assert module is not None
    name = None if module.__name__ == "__main__" else module.__name__
    return {
        "file": module.__file__,
        "module": name,
        "class": kind.__qualname__,
        "values": identity.plain(system),
    }


def main(case: Path, out: Path) -> None:
    """Run as one rank: train the system of the case; rank 0 writes the trained tensors."""
    state = launch.start("fp32", 120.0)
    told = json.loads(case.read_text())
    kind = dict(inspect.getmembers(enter(told["file"], told["module"]), inspect.isclass))[told["class"]]
    system: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), told["values"]))
    tensors = trained(system, DataSpec.from_dict(told["spec"]), state.process_index, state.num_processes)
    if state.is_main_process:
        save_file({name: value.contiguous() for name, value in tensors.items()}, out)
    state.wait_for_everyone()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
