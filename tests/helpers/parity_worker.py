"""Train SAVAE's phases in many settings on the ranks of this launch; rank 0 writes what came out.

Usage: parity_worker.py OUT.safetensors. Tensors are named `setting strategy accumulate/...`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch import Tensor, nn

from savae_dist.config.schema import OptimizerConfig
from savae_dist.config.strategy import Strategy
from savae_dist.config.terms import AdaptiveConfig, ScheduleConfig
from savae_dist.distributed.reduce import means_and_rows
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import SmallRun
from savae_dist.training.batch_norm import recalibrate
from savae_dist.training.batches import BatchSplit
from savae_dist.training.sharded import join, whole

SIZE = 24  # divides by 4 ranks x 3 accumulation steps
STEPS = 2


@dataclass(frozen=True)
class Setting:
    """labelled: every so many-th sample has a label; broken: a sample that is not finite; half: in half precision,
    where a sum over more samples is rounded elsewhere, so only launches of equally many ranks compare.
    """

    system: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=lambda: {"name": "sgd", "lr": 0.02})
    critic: dict[str, Any] = field(default_factory=dict)
    prepared: dict[str, Any] = field(default_factory=dict)
    labelled: int | None = None
    broken: int | None = None
    half: bool = False
    full: bool = False  # in every combination


JOINT = {"critic_update": "joint", "batches": "shared", "critic_steps": 2}
SGD = {"name": "sgd", "lr": 0.02}
SETTINGS = {
    "separate": Setting(optimizer={**SGD, "clip_norm": 0.3}, prepared={"ema": 0.5, "shares_every": 1}, full=True),
    "joint": Setting(JOINT, {**SGD, "momentum": 0.5, "clip_value": 0.01}, {"clip_weights": 0.05}, full=True),
    "few labels": Setting(
        {"reconstruction_weight": 0.5, "critic_regulariser": "gradient_penalty"},
        {**SGD, "weight_decay": 0.1},
        labelled=17,
    ),
    "not finite": Setting(optimizer={**SGD, "momentum": 0.5}, prepared={"ema": 0.5}, broken=30),
    "scheduled": Setting(
        {"reconstruction_weight": 0.5, "gamma": 0.0},
        SGD,
        {"start": 1},
        {
            "schedules": {
                "content": ScheduleConfig(start=1),
                "adv": ScheduleConfig(1, 2),
                "vec.kl": ScheduleConfig(0, 3),
            }
        },
    ),
    "free bits, smoothing, logits": Setting(
        {"kl_free_bits": 0.05, "kl_weight": 1.0, "label_smoothing": 0.2, "latent_form": "logits", "gamma": 1.0}
    ),
    "capacity, R1": Setting(
        {"kl_capacity": 5.0, "kl_weight": 0.1, "critic_regulariser": "r1", "adversarial": "non_saturating"}
    ),
    "adaptive": Setting(prepared={"adaptive": {"adv": AdaptiveConfig("rec", 0.5)}}),
    "adam": Setting(optimizer={"name": "adam", "clip_norm": 0.3}),
    "bf16": Setting(prepared={"precision": "bf16"}, half=True),
    "fp16": Setting(prepared={"precision": "fp16"}, half=True),
}


def combinations(setting: Setting, ranks: int) -> list[tuple[Strategy, int]]:
    """(strategy, accumulation steps)."""
    if setting.half:
        return [("ddp", 2), ("zero1", 2), ("zero2", 2), ("fsdp", 2)] if ranks == 2 else []
    if ranks == 1:
        return [("ddp", 1), ("ddp", 3)]
    few = {
        2: [("ddp", 1), ("zero1", 2), ("zero2", 3), ("fsdp", 3)],
        4: [("ddp", 3), ("zero2", 1), ("fsdp", 1)],
    }[ranks]
    more = {
        2: [("ddp", 2), ("ddp", 3), ("zero1", 1), ("zero2", 1), ("fsdp", 1), ("fsdp", 2)],
        4: [("ddp", 1), ("ddp", 2), ("zero1", 2)],
    }
    return few + more[ranks] if setting.full else few


def trained(setting: Setting, split: BatchSplit, strategy: Strategy) -> dict[str, Tensor]:
    """Networks, averages, optimiser states, and means of the losses and norms of both phases."""
    system = SAVAE(latent_dim=3, **setting.system)
    names = [update.name for phase in system.phases() for update in phase.updates]
    optimizers = {name: OptimizerConfig(**setting.optimizer) for name in names}
    optimizers["critic"] = OptimizerConfig(**{**setting.optimizer, **setting.critic})
    trainer = SmallRun(
        system, split=split, norm="group", optimizers=optimizers, strategy=strategy, **{"ema": 0.0, **setting.prepared}
    )
    if setting.labelled is not None:
        trainer.data.y[torch.arange(len(trainer.data.y)) % setting.labelled != 0] = -1
    if setting.broken is not None:
        trainer.data.x[setting.broken] = torch.inf
    found: dict[str, Tensor] = {}
    for phase in ("vec", "decoder"):
        trainer.run(phase, STEPS)
        for name, update in trainer.updates.items():
            tensors, values = update.state()
            found |= {f"updates/{name}/{key}": value for key, value in tensors.items()}
            sums = {f"losses/{name}/{term}": value for term, value in update.meter.drain().items()}
            means, _ = means_and_rows(sums, ())
            found |= {key: torch.tensor(value, dtype=torch.float64) for key, value in means.items()}
            found[f"skipped/{name}"] = update.skipped
            found |= {f"shares/{term}": share for term, share in update.shares.items()}
            if values["scaler"] is not None:
                found[f"scale/{name}"] = torch.tensor(values["scaler"]["scale"])
            for network, average in update.averages.items():
                with whole([average.network]):
                    found |= {f"ema/{network}/{key}": value for key, value in average.network.state_dict().items()}
            update.close()
        for network in trainer.networks.values():
            join(network)
    for network, weights in trainer.weights().items():
        found |= {f"networks/{network}/{key}": value for key, value in weights.items()}
    return found


def recalibrated(rank: int, ranks: int, together: bool) -> dict[str, Tensor]:
    """The classifier's statistics over three batches, of which rank 0 has more than the others."""
    trainer = SmallRun(SAVAE(latent_dim=3))
    plan = trainer.phases["vec"].recalibrate
    assert plan is not None
    if together:
        trainer.networks["classifier"] = nn.SyncBatchNorm.convert_sync_batchnorm(trainer.networks["classifier"])
        nn.SyncBatchNorm.forward = unsynchronised  # torch's refuses CPUs
    batches = [(8 * i, trainer.data.raw(8 * i, 8, range(8))) for i in range(rank, 3, ranks)]
    recalibrate(plan, trainer.networks, batches, trainer.builder)
    return dict(trainer.networks["classifier"].named_buffers())


def left_out(split: BatchSplit) -> dict[str, Tensor]:
    """Batch norm's statistics after a step and after one more that no rank can use."""
    trainer = SmallRun(SAVAE(latent_dim=3), split=split, ema=0.5)
    trainer.run("vec", 1)
    vec, network = trainer.updates["vec"], trainer.networks["classifier"]
    found = {f"before/{key}": value.clone() for key, value in network.named_buffers()}
    trainer.data.x.fill_(torch.inf)
    (planned,) = trainer.plan(trainer.phases["vec"], 1)
    raw = next(trainer.data.stream([planned], SIZE))
    noise = trainer.builder.noise(planned.step, planned.position, raw.slot)
    vec.step(0, [replace(trainer.builder.batch(raw), noise=noise)], 1)
    assert int(vec.skipped) == 1
    found |= {f"after/{key}": value for key, value in network.named_buffers()}
    return found | {f"ema/{key}": value for key, value in vec.averages["classifier"].network.named_buffers()}


def unsynchronised(self: nn.SyncBatchNorm, x: Tensor) -> Tensor:
    assert torch.distributed.get_world_size(self.process_group) == 1, "it would have waited for the others"
    return nn.modules.batchnorm._BatchNorm.forward(self, x)


def check_ranks_agree(found: dict[str, Tensor]) -> None:
    """To the bit."""
    if torch.distributed.is_initialized():
        mine = torch.stack([value.double().sum() for value in found.values()])
        first = mine.clone()
        torch.distributed.broadcast(first, 0)
        assert torch.equal(mine, first), [key for key, a, b in zip(found, mine, first, strict=True) if a != b]


def main() -> None:
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    results: dict[str, Tensor] = {}
    for name, setting in SETTINGS.items():
        for strategy, accumulate in combinations(setting, state.num_processes):
            split = BatchSplit(SIZE, state.process_index, state.num_processes, accumulate)
            found = trained(setting, split, strategy)
            check_ranks_agree(found)
            results |= {f"{name} {strategy} {accumulate}/{key}": value for key, value in found.items()}
    for together in (False, True):
        found = recalibrated(state.process_index, state.num_processes, together)
        results |= {f"{'sync' if together else 'batch'} norm/{key}": value for key, value in found.items()}
    found = left_out(BatchSplit(SIZE, state.process_index, state.num_processes))
    results |= {f"left out/{key}": value for key, value in found.items()}
    if state.is_main_process:
        save_file({key: value.clone().contiguous() for key, value in results.items()}, sys.argv[1])
    state.destroy_process_group()


if __name__ == "__main__":
    main()
