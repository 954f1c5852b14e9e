"""How an update is spread over the ranks: whole replicas (one process, DDP), ZeRO's partitions (DeepSpeed), or shards.

Each wraps a module and its optimiser, and gives the engine `forward`, `backward` and `step`. Precision,
clipping, skipping and schedules stay with the engine, in hooks of the optimiser. There `optimizer.param_groups` holds
what this rank steps: all parameters, or its slice of them.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from savae_dist.config.schema import DdpConfig
from savae_dist.config.strategy import Strategy
from savae_dist.errors import ConfigError
from savae_dist.systems.phases import Phase
from savae_dist.training.optim import STEP, gradient_norm, load_optimizer_state, optimizer_state, reset_state
from savae_dist.training.sharded import freed_weights, layouts, shard


class WholeWeights:
    """Every rank holds all weights, and computes the gradient of a whole weight."""

    def freed(self) -> AbstractContextManager[None]:
        """Inside, graphs keep no weight that is put together for them: here none is."""
        return nullcontext()

    def shapes(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.Size]:
        """Of whole parameters."""
        return {name: parameter.shape for name, parameter in parameters.items()}

    def norms_of_mean(self, gradients: Tensor) -> Tensor:
        """Norms `[n]` of the means over the ranks of n gradients of a parameter, `[n, *shape]` from `autograd.grad`."""
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(gradients)
            gradients /= torch.distributed.get_world_size()
        return gradients.flatten(1).norm(dim=1)


class Replicas(WholeWeights):
    """Every rank holds all gradients and the whole optimiser state: one process, or DDP.

    unsettled: whether a backward pass must be made and discarded before the first step. DDP orders gradients anew after
    its first pass, and on more than two ranks the rounding of their sums depends on that order. A resumed run would
    otherwise make its first step in another order than an uninterrupted one.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, config: DdpConfig) -> None:
        # No broadcast at each step: batch_norm.broadcast_buffers copies rank 0's buffers when they are needed.
        ddp = DistributedDataParallelKwargs(
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            bucket_cap_mb=config.bucket_mb,
        )
        self.accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[ddp], cpu=not torch.cuda.is_available())
        with warnings.catch_warnings():  # newer torch renames it; older torch knows this name only
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            # Networks are on their device already; Accelerate would move them again, and so replace their buffers.
            self.forward = self.accelerator.prepare_model(module, device_placement=False)
        if config.reduce_dtype == "bf16" and isinstance(self.forward, DistributedDataParallel):
            self.forward.register_comm_hook(None, mean_in_bf16)
        self.unsettled = self.accelerator.num_processes > 2
        self.optimizer = optimizer
        self.backward, self.step = self.accelerator.backward, optimizer.step

    def part(self, last: bool) -> AbstractContextManager[object]:
        """Context for forward and backward of one accumulation step: ranks reduce their gradients in the last only."""
        return nullcontext() if last else self.accelerator.no_sync(self.forward)

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        """2-norm of the whole gradient, the same on all ranks; `gradients` are this rank's."""
        return gradient_norm(gradients)

    def state(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """The whole state tensors, each named `parameter/name`; every rank must call it."""
        return optimizer_state(self.optimizer, parameters)

    def load_state(self, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
        load_optimizer_state(self.optimizer, parameters, tensors)

    def close(self) -> None:
        """Remove what was added to the parameters: nothing here, since DDP's hooks go when it is destroyed."""


class Partitions(WholeWeights):
    """ZeRO: all parameters are one flat float32 tensor, of which each rank steps an equal slice and holds its state.

    stage: 1 keeps whole gradients on each rank, 2 reduces each accumulation step's gradients into the slices at once.
    """

    unsettled = False  # the layout never changes

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, stage: int, config: DdpConfig) -> None:
        device = PartialState().device
        deepspeed = import_deepspeed(device)
        parameters = list(module.parameters())
        self.strides = [(parameter, parameter.stride()) for parameter in parameters]
        for parameter in parameters:  # DeepSpeed cannot broadcast channels-last, and its flat tensor loses it
            parameter.data = parameter.data.contiguous()
        # An even number, and no more than the parameters fill: a buffer of this size is allocated in every step.
        elements = 2 * int(min(config.bucket_mb * 2**20 / 4, sum(p.numel() for p in parameters)) / 2 + 1)
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # must be a number; nothing depends on it
            "gradient_clipping": 0.0,
            "zero_allow_untested_optimizer": True,  # DeepSpeed has not tested SGD
            "communication_data_type": config.reduce_dtype,
            "zero_optimization": {
                "stage": stage,
                "reduce_bucket_size": elements,
                "allgather_bucket_size": elements,
                "compute_grad_norm": False,
            },
        }
        self.engine = deepspeed.initialize(model=module, optimizer=optimizer, config=settings)[0]
        self.forward, self.backward, self.step = self.engine, self.engine.backward, self.engine.step
        reset_state(optimizer)  # DeepSpeed has made the slice its only parameter
        self.optimizer = optimizer
        self.ranks, self.rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        (self.slice,) = optimizer.param_groups[0]["params"]

    def part(self, last: bool) -> AbstractContextManager[object]:
        self.engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        return norm_of_slices(gradients)

    def state(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        tensors = {}
        for key, value in self.optimizer.state[self.slice].items():
            whole = value if key == STEP else self._gather(value)
            for name, parameter in parameters.items():
                tensors[f"{name}/{key}"] = (whole if key == STEP else self._of(parameter, whole)).detach().clone()
        return tensors

    def load_state(self, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
        whole: dict[str, Tensor] = {}
        for full, value in tensors.items():
            name, key = full.rsplit("/", 1)
            if key == STEP:
                self.optimizer.state[self.slice][key] = value.to(self.slice.device)
                continue
            if key not in whole:
                whole[key] = torch.zeros_like(self.slice).repeat(self.ranks)
            self._of(parameters[name], whole[key]).copy_(value)
        for key, value in whole.items():
            self.optimizer.state[self.slice][key] = value.chunk(self.ranks)[self.rank].clone()

    def _gather(self, mine: Tensor) -> Tensor:
        slices = [torch.empty_like(mine) for _ in range(self.ranks)]
        torch.distributed.all_gather(slices, mine)
        return torch.cat(slices)

    @staticmethod
    def _of(parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """The view of `whole` for `parameter`, itself a view of a flat tensor with the same layout."""
        return whole.as_strided(parameter.shape, parameter.stride(), parameter.storage_offset())

    def close(self) -> None:
        self.engine.destroy()
        for parameter, stride in self.strides:  # restore them, because convolutions round differently in another layout
            own = torch.empty_strided(parameter.shape, stride, dtype=parameter.dtype, device=parameter.device)
            parameter.data = own.copy_(parameter.data)


class Shards:
    """FSDP: parameters are slices (`training.sharded`), and a rank holds gradients and states of its own alone.

    Each accumulation step's gradients are summed into the slices at once.
    """

    unsettled = False

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, trained: nn.Module) -> None:
        self.module, self.optimizer, self.layouts = module, optimizer, layouts(trained)
        self.step = optimizer.step

    def freed(self) -> AbstractContextManager[None]:
        return freed_weights()

    def forward(self, *arguments: Any) -> Any:
        with self.freed():
            return self.module(*arguments)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def part(self, last: bool) -> AbstractContextManager[object]:
        return nullcontext()

    def shapes(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.Size]:
        return {name: self.layouts[name].shape for name in parameters}

    def norm(self, gradients: Sequence[Tensor]) -> Tensor:
        return norm_of_slices(gradients)

    def norms_of_mean(self, gradients: Tensor) -> Tensor:
        squares = gradients.square().sum(1)  # no mean to take: joining a weight has summed its gradient into slices
        torch.distributed.all_reduce(squares)
        return squares.sqrt()

    def state(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        tensors = optimizer_state(self.optimizer, parameters)
        return {full: self._whole(full, value) for full, value in tensors.items()}

    def load_state(self, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
        own = {full: self._own(full, value) for full, value in tensors.items()}
        load_optimizer_state(self.optimizer, parameters, own)

    def _whole(self, full: str, value: Tensor) -> Tensor:
        name, key = full.rsplit("/", 1)
        return value if key == STEP else self.layouts[name].joined(value).cpu()  # one at a time on the device

    def _own(self, full: str, value: Tensor) -> Tensor:
        name, key = full.rsplit("/", 1)
        return value if key == STEP else self.layouts[name].cut(value)

    def close(self) -> None:
        """Nothing: networks that several updates train are made whole by `sharded.join`, when their phase has ended."""


Parallel = Replicas | Partitions | Shards


def cut_up(networks: Iterable[nn.Module], strategy: Strategy, ddp: DdpConfig) -> None:
    """Under FSDP cut the weights of networks that a phase trains; every rank must call it, in the same order."""
    if strategy == "fsdp":
        for network in networks:
            shard(network, half=ddp.reduce_dtype == "bf16")


def prepared(
    module: nn.Module, trained: nn.Module, optimizer: torch.optim.Optimizer, strategy: Strategy, ddp: DdpConfig
) -> Parallel:
    """trained: the networks within the module; under FSDP they are cut already."""
    if strategy == "fsdp":
        return Shards(module, optimizer, trained)
    if strategy == "ddp":
        return Replicas(module, optimizer, ddp)
    return Partitions(module, optimizer, 1 if strategy == "zero1" else 2, ddp)


def norm_of_slices(gradients: Sequence[Tensor]) -> Tensor:
    """2-norm of the gradient of which each rank holds slices."""
    # In pieces, because on CPUs the sum of one long row loses precision.
    square = gradient_norm([piece for gradient in gradients for piece in gradient.chunk(64)]).square()
    torch.distributed.all_reduce(square)
    return square.sqrt()


def mean_in_bf16(_, bucket):  # type: ignore[no-untyped-def]  # DDP takes no annotations that are postponed
    """Mean of a bucket's gradients over the ranks, summed in bf16; torch's own hook of this kind refuses gloo."""
    gradient = bucket.buffer()
    work = torch.distributed.all_reduce(gradient.bfloat16(), async_op=True)

    def finished(summed: torch.futures.Future[list[Tensor]]) -> Tensor:
        return gradient.copy_(summed.value()[0]).div_(torch.distributed.get_world_size())

    return work.get_future().then(finished)


def import_deepspeed(device: torch.device) -> ModuleType:
    """Import DeepSpeed; on CPUs gloo reduces, so that DeepSpeed's own all-reduce need not be compiled."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it warns of SGD and of the settings above
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # DeepSpeed uses them
    return deepspeed


def check_zero(phases: Iterable[Phase]) -> None:
    """ConfigError if two updates of a phase train the same network: under ZeRO each would step its own copy."""
    for phase in phases:
        counts = Counter(name for update in phase.updates if update.active for name in update.trains)
        for name, updates in counts.items():
            if updates > 1:
                raise ConfigError(
                    f"{updates} updates of phase {phase.name} train {name}, and under ZeRO each would step a copy of "
                    "its own: use a launch file without DeepSpeed"
                )
