"""The only place that freezes, backpropagates, clips and steps.

`run_phase` follows the plan of a phase. Each optimiser step is one call of a `PreparedUpdate`, whose forward pass is
one `UpdateModule`, so that DDP and DeepSpeed wrap exactly one call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn

from savae_dist.config.compile import Compile
from savae_dist.config.schema import DdpConfig, OptimizerConfig, Precision
from savae_dist.config.strategy import Strategy
from savae_dist.config.terms import AdaptiveConfig, ScheduleConfig, in_update
from savae_dist.data import RawBatch
from savae_dist.latents import full_precision
from savae_dist.networks import Network
from savae_dist.precision import autocast, make_scaler
from savae_dist.systems.fit import check_scalars
from savae_dist.systems.phases import Batch, Phase, Update
from savae_dist.training.adaptive import adaptive_factors
from savae_dist.training.batches import BatchBuilder, PlannedStep, Together, alone
from savae_dist.training.buffers import as_bytes, restore
from savae_dist.training.capture import Capture
from savae_dist.training.comparison import Comparison
from savae_dist.training.frozen import states_of
from savae_dist.training.gradient_shares import DECODER, gradient_shares
from savae_dist.training.meter import Meter
from savae_dist.training.optim import (
    WeightAverage,
    check_state,
    clip_gradients,
    clip_weights,
    learning_rate,
    make_optimizer,
)
from savae_dist.training.own_time import OwnTime
from savae_dist.training.profile_range import in_profile
from savae_dist.training.schedules import FACTOR, factor, left_out, total, weighted
from savae_dist.training.strategies import Parallel, cut_up, prepared


class UpdateModule(nn.Module):
    """The whole forward pass of an update."""

    nets: SimpleNamespace

    def __init__(self, update: Update, networks: Mapping[str, Network], arithmetic: torch.autocast) -> None:
        super().__init__()
        self.name, self.losses = update.name, update.losses
        self.trained = nn.ModuleDict({name: networks[name] for name in update.trains})
        self.arithmetic = arithmetic
        # Outside the module tree: frozen networks are hidden from the reducer, the optimizer and ZeRO.
        self.__dict__["nets"] = SimpleNamespace(**networks)

    def forward(self, batch: Batch, loss_index: int = 0) -> dict[str, Tensor]:
        with self.arithmetic:
            terms = self.losses[loss_index](self.nets, batch)
        check_scalars(self.name, terms)
        return {name: full_precision(value) for name, value in terms.items()}


class PreparedUpdate:
    """An update with its optimiser, wrapped for one process, DDP, ZeRO or FSDP.

    Under FSDP it cuts the weights of all networks that its phase trains.

    schedules, adaptive: of the weights of terms, by TERM or UPDATE.TERM; those of other updates are passed over.
    shares_every: iterations between the measurements of `shares`, each term's part of the decoder's gradient, and
    `pictures`, how its samples differ from the real ones.
    """

    def __init__(
        self,
        update: Update,
        phase: Phase,
        networks: Mapping[str, Network],
        config: OptimizerConfig,
        *,
        precision: Precision = "fp32",
        compile: Compile = "none",
        ema: float = 0.0,
        strategy: Strategy = "ddp",
        ddp: DdpConfig | None = None,
        schedules: Mapping[str, ScheduleConfig] | None = None,
        adaptive: Mapping[str, AdaptiveConfig] | None = None,
        shares_every: int = 0,
    ) -> None:
        self.update, self.config, self.total = update, config, phase.steps
        self.decoder = networks[DECODER] if DECODER in update.trains else None
        self.shares, self.shares_every = dict[str, Tensor](), shares_every
        self.pictures = dict[str, Tensor]()
        self.schedules: dict[str, ScheduleConfig] = in_update(update.name, schedules or {})
        self.adaptive: dict[str, AdaptiveConfig] = in_update(update.name, adaptive or {})
        self.factors: dict[str, float | Tensor] = {}  # term -> its factor in the current step
        self.lr = 0.0  # until the first step
        device = PartialState().device
        ddp = ddp or DdpConfig()
        in_play = {name for other in phase.updates for name in other.trains}
        cut_up([networks[name] for name in sorted(in_play)], strategy, ddp)
        self._states = states_of(networks, set(update.trains), in_play)
        self.enter()  # before wrapping: DDP reduces the parameters that require a gradient at that time
        self.module = module = UpdateModule(update, networks, autocast(precision, device))
        self.parameters = dict(module.trained.named_parameters())
        self.trained = module.trained
        self.capture = Capture(update.name, module, compile)
        self.optimizer = make_optimizer(list(self.parameters.values()), config)
        self.optimizer.register_step_pre_hook(self._before_step)
        if config.clip_weights is not None:
            self.optimizer.register_step_post_hook(self._after_step)
        self.parallel: Parallel = prepared(module, module.trained, self.optimizer, strategy, ddp)
        self.scaler = make_scaler(precision, device)
        averaged = update.trains if ema and update.averaged else ()
        self.averages = {name: WeightAverage(networks[name], ema) for name in averaged}
        self.meter, self.own_time = Meter(device), OwnTime(device)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.skipped_in_a_row = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def steps_per_iteration(self) -> int:
        return self.update.repeats * len(self.update.losses)

    def enter(self) -> None:
        """Freeze everything but this update's networks, and set every network's mode."""
        for parameter, trained in self._states.parameters:
            if parameter.requires_grad is not trained:
                parameter.requires_grad_(trained)
        for module, training in self._states.modules:
            if module.training is not training:
                module.training = training
        for norm, track in self._states.norms:
            norm.track_running_stats = track

    def step(self, loss_index: int, slices: list[Batch], iteration: int) -> None:
        """One optimiser step on one of the losses and one global batch, of which `slices` are this rank's parts.

        A step whose gradient is not finite changes nothing, on all ranks alike, and is counted.
        """
        self.enter()
        self.lr = learning_rate(self.config, iteration, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        self.factors = {term: factor(schedule, iteration) for term, schedule in self.schedules.items()}
        buffers = [as_bytes(buffer) for buffer in self.trained.buffers()]  # now: wrapping an update may replace them
        before = torch.cat(buffers) if buffers else None
        shares_due = bool(self.shares_every) and (iteration + 1) % self.shares_every == 0
        if self.decoder is not None and (self.adaptive or shares_due):
            self._look_at_gradients(self.decoder, loss_index, slices, shares_due)
            restore(buffers, before)
            self.own_time.begin()  # anew: ranks have waited for each other
        if self.parallel.unsettled:
            self._backward(loss_index, slices[-1:])
            self.optimizer.zero_grad(set_to_none=True)
            restore(buffers, before)
            self.parallel.unsettled = False
            self.own_time.begin()
        sums = self._backward(loss_index, slices)
        self.parallel.step()
        self.optimizer.zero_grad(set_to_none=True)  # at once: no gradient is left while other updates train
        if self.scaler is not None:
            self.scaler.update()
        if before is not None:
            restore(buffers, torch.where(self.skips, before, torch.cat(buffers)))
        for average in self.averages.values():
            average.update((~self.skips).float())
        self.skipped += self.skips
        self.skipped_in_a_row = (self.skipped_in_a_row + 1) * self.skips
        self.meter.add({**sums, "gradient_norm": self.norm}, self.skips)

    def _look_at_gradients(self, decoder: Network, loss_index: int, slices: list[Batch], shares: bool) -> None:
        """Before a step, by graphs of their own: the factors that follow from gradients, and perhaps the shares."""

        def terms(batch: Batch) -> dict[str, Tensor]:
            """Past DDP and the compiler, and in fp16 scaled, so that no gradient is rounded to 0."""
            with self.parallel.freed():
                found = self.module.forward(batch, loss_index)
            return found if self.scaler is None else {name: self.scaler.scale(one) for name, one in found.items()}

        due = {term: one for term, one in self.adaptive.items() if not left_out(self.factors.get(term, 1.0))}
        adapted = adaptive_factors(due, decoder, terms, slices, self.parallel.norms_of_mean)
        for term, ratio in adapted.items():
            self.factors[term] = self.factors.get(term, 1.0) * ratio
        if shares:
            seen = Comparison()
            self.shares = gradient_shares(decoder, lambda one: weighted(terms(one), self.factors), slices, seen.add)
            self.pictures = seen.compared()

    def _backward(self, loss_index: int, slices: list[Batch]) -> dict[str, Tensor]:
        """Accumulate the gradient of the loss; return its terms and their factors, averaged over the slices.

        The terms are those before their factors, so that their curves are comparable throughout.
        """
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(slices, 1):
            with self.parallel.part(last=number == len(slices)):
                terms = self.capture(self.parallel.forward, batch, loss_index)
                counted = weighted(terms, self.factors)
                loss = mean(total(counted, terms, self.parameters.values()), len(slices))
                if number == len(slices):
                    self.own_time.end()
                self.parallel.backward(loss if self.scaler is None else self.scaler.scale(loss))
            for name, value in terms.items():
                part = mean(value.detach(), len(slices))
                sums[name] = sums[name] + part if name in sums else part
        factors = {name: value for name, value in self.factors.items() if name in sums}
        return sums | {name + FACTOR: torch.ones_like(sums[name]) * value for name, value in factors.items()}

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Compute the norm of the gradient, clip it, and tell the optimiser whether to skip the step."""
        parameters = optimizer.param_groups[0]["params"]
        gradients = [p.grad for p in parameters if p.grad is not None]
        self.norm = self.parallel.norm(gradients)
        if self.scaler is not None:
            torch._foreach_add_(gradients, self.norm * 0)  # NaN on every rank if any rank's gradient overflowed
            self.scaler.unscale_(optimizer)
            self.norm = self.norm / self.scaler.scale(torch.ones_like(self.norm))
        self.skips = (self.norm * 0) != 0  # true if the norm is not finite; `isfinite` takes twice the launches
        clip_gradients(parameters, self.norm, self.config)
        # Fused optimisers look for this attribute and read it on the device.
        optimizer.found_inf = self.skips.float()  # type: ignore[attr-defined]

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        assert self.config.clip_weights is not None
        clip_weights(optimizer.param_groups[0]["params"], self.config.clip_weights, ~self.skips)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a checkpoint stores: tensors by parameter name, and plain values; every rank must call it."""
        tensors = self.parallel.state(self.parameters)
        values = {
            "optimizer": type(self.optimizer).__name__,
            # Parameters without a gradient so far have no state; a missing state of any other is an error.
            "stateless": sorted(self.parameters.keys() - {full.rsplit("/", 1)[0] for full in tensors}),
            "averaged": {name: average.updates for name, average in self.averages.items()},
            "skipped": [int(self.skipped), int(self.skipped_in_a_row)],
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
        }
        return tensors, values

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """ValueError, KeyError or TypeError if the state is not that of this update's optimiser after a step."""
        if values["optimizer"] != type(self.optimizer).__name__:
            raise ValueError(f"the state is that of {values['optimizer']}, not of {type(self.optimizer).__name__}")
        check_state(self.parallel.shapes(self.parameters), tensors, self.config, values.get("stateless"))
        self.parallel.load_state(self.parameters, tensors)
        for name, average in self.averages.items():
            average.updates = values["averaged"][name]
        self.skipped.fill_(values["skipped"][0])
        self.skipped_in_a_row.fill_(values["skipped"][1])
        if self.scaler is not None and values["scaler"] is not None:
            self.scaler.load_state_dict(values["scaler"])

    def close(self) -> None:
        """Unwrap the networks, so that another phase may train them; under FSDP `sharded.join` makes them whole."""
        self.parallel.close()


def mean(total: Tensor, count: int) -> Tensor:
    """total / count, which is `total` itself where nothing is to be divided."""
    return total if count == 1 else total / count


def run_phase(
    plan: Iterable[PlannedStep],
    raw: Iterator[RawBatch],
    updates: Mapping[str, PreparedUpdate],
    builder: BatchBuilder,
    together: Together = alone,
) -> Iterator[int]:
    """Train as planned; after each iteration yield how many are finished.

    raw: what the plan reads, in its order. An iteration begins when all ranks have all of its data, so that a run can
    stop, and save, wherever they are missing.
    """
    for _, steps in groupby(builder.with_noise(plan), key=lambda step: step[0].iteration):
        iteration = list(steps)
        data = iter(together(partial(_read, raw, sum(len(planned.reads) for planned, _ in iteration))))
        for planned, noise in iteration:
            step, position, update = planned.step, planned.position, updates[planned.step.update.name]
            update.own_time.begin()
            if planned.reads:
                parts = list(islice(data, len(planned.reads)))
                slices = [builder.batch(part, position) for part in parts]
            noisy = [replace(one, noise=own) for one, own in zip(slices, noise, strict=True)]
            with in_profile(step.update.name):
                update.step(step.loss_index, noisy, planned.iteration)
            if planned.ends_iteration:
                yield planned.iteration + 1


def _read(raw: Iterator[RawBatch], count: int) -> list[RawBatch]:
    return [next(raw) for _ in range(count)]
