"""Schedules of terms and starts of updates: what counts when, and that nothing else changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.contract import make
from torch import Tensor, nn

from savae_dist.config.schema import OptimizerConfig
from savae_dist.config.terms import AdaptiveConfig, ScheduleConfig, in_update
from savae_dist.systems.phases import Batch, Phase, Update
from savae_dist.testing.contract import check_resume, difference
from savae_dist.testing.small_run import SmallRun
from savae_dist.training.engine import UpdateModule
from savae_dist.training.optim import learning_rate
from savae_dist.training.schedules import factor, total, weighted


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (ScheduleConfig(), [1, 1, 1, 1, 1, 1]),
        (ScheduleConfig(start=2), [0, 0, 1, 1, 1, 1]),
        (ScheduleConfig(ramp=4), [0.25, 0.5, 0.75, 1, 1, 1]),
        (ScheduleConfig(start=2, ramp=2), [0, 0, 0.5, 1, 1, 1]),
    ],
)
def test_factor(schedule: ScheduleConfig, factors: list[float]) -> None:
    assert [factor(schedule, iteration) for iteration in range(6)] == factors


def test_the_update_s_own_schedule_goes_before_that_of_all() -> None:
    everywhere, own = ScheduleConfig(start=1), ScheduleConfig(start=2)
    named = {"adv": everywhere, "kl": everywhere, "decoder.adv": own, "critic.real": own}
    assert in_update("decoder", named) == {"adv": own, "kl": everywhere}
    assert in_update("critic", named) == {"adv": everywhere, "kl": everywhere, "real": own}


def test_an_infinite_term_at_factor_0_spoils_nothing() -> None:
    w, v = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.0))
    terms = {"rec": 3 * w, "adv": v.log() + w}  # minus infinity, whose gradient is infinite as well
    counted = weighted(terms, {"adv": 0.0, "rec": 0.5})
    loss = total(counted, terms, [w, v])
    assert loss.item() == 3.0
    w_slope, v_slope = torch.autograd.grad(loss, [w, v])
    assert (w_slope.item(), v_slope.item()) == (1.5, 0.0)


def test_all_terms_may_be_at_factor_0() -> None:
    w = nn.Parameter(torch.tensor(2.0))
    loss = total({}, {"adv": w.log()}, [w])
    assert torch.autograd.grad(loss, w)[0].item() == 0


def one_term(**schedule: int) -> SmallRun:
    """A phase `only` that trains the decoder by one term, `square`, under a schedule."""

    def loss(nets: SimpleNamespace, batch: Batch) -> dict[str, Tensor]:
        return {"square": nets.decoder(batch.noise["z"]).square().mean()}

    update = Update("decoder", ("decoder",), (loss,), noise={"z": (3,)})
    run = SmallRun(make("savae"), schedules={"decoder.square": ScheduleConfig(**schedule)})
    run.phases = {"only": Phase("only", 9, (update,))}
    return run


def test_the_engine_multiplies_the_gradient() -> None:
    read = []
    for run in (one_term(start=0, ramp=2), one_term()):
        run.run("only", 1)
        read.append({name: sums.tolist() for name, sums in run.updates["decoder"].meter.drain().items()})
    halved, whole = read
    assert (halved["square_factor"], whole["square_factor"]) == ([0.5, 1.0], [1.0, 1.0])
    assert halved["gradient_norm"][0] == pytest.approx(whole["gradient_norm"][0] / 2)
    assert halved["square"] == whole["square"]  # the term before its factor


def test_nothing_moves_before_the_start() -> None:
    run = one_term(start=2)
    before = {name: p.detach().clone() for name, p in run.networks["decoder"].named_parameters()}
    run.run("only", 2)
    assert all(torch.equal(p, before[name]) for name, p in run.networks["decoder"].named_parameters())
    run.run("only", 3, first=2)
    assert not any(torch.equal(p, before[name]) for name, p in run.networks["decoder"].named_parameters())


def test_a_schedule_that_is_over_changes_nothing() -> None:
    plain, scheduled = SmallRun(make("savae")), SmallRun(make("savae"), schedules={"adv": ScheduleConfig()})
    for run in (plain, scheduled):
        run.run("decoder", 2)
    assert difference(plain.tensors(), scheduled.tensors()) == ""


@pytest.mark.slow
def test_nothing_is_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Factors, and graphs of their own for gradients, stand outside what is compiled."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    def compile(self: UpdateModule) -> None:
        self._compiled_call_impl = torch.compile(self._call_impl, backend=backend)

    torch._dynamo.reset()  # after many compilations by other tests it would compile no more
    monkeypatch.setattr(UpdateModule, "compile", compile)
    changing = {"schedules": {"adv": ScheduleConfig(1, 3)}, "adaptive": {"adv": AdaptiveConfig("rec")}}
    run = SmallRun(make("savae"), compile="update", shares_every=2, **changing)
    run.run("decoder", 1)
    compiled = len(graphs)
    run.run("decoder", 5, first=1)
    assert 0 < compiled == len(graphs)


def late(start: int) -> dict[str, OptimizerConfig]:
    return {"critic": OptimizerConfig(lr=1e-3), "decoder": OptimizerConfig(start=start)}


def test_an_update_begins_at_its_start_and_keeps_its_place() -> None:
    """The critic alone, then both; the critic sees what it would have seen with a decoder that stands still."""
    run = SmallRun(make("savae"), optimizers=late(2))
    start = run.tensors()
    run.run("decoder", 2)
    assert difference({"decoder": start["decoder"]}, run.tensors()) == ""
    assert difference({"critic": start["critic"]}, run.tensors())
    assert run.updates["decoder"].lr == 0
    still = SmallRun(make("savae"), optimizers={**late(0), "decoder": OptimizerConfig(name="sgd", lr=1e-30)})
    still.run("decoder", 2)
    assert difference({"critic": still.tensors()["critic"]}, run.tensors()) == ""
    run.run("decoder", 3, first=2)
    assert difference({"decoder": start["decoder"]}, run.tensors())


def test_its_learning_rate_begins_with_it() -> None:
    early = OptimizerConfig(schedule="cosine", warmup=2)
    for iteration in range(4):
        moved = learning_rate(replace(early, start=6), iteration + 6, 16)
        assert moved == learning_rate(early, iteration, 10)
    assert not math.isclose(moved, learning_rate(early, 9, 16))


@pytest.mark.parametrize("name", ["savae", "aae_unsupervised"])
def test_going_on_is_exact(name: str, tmp_path: Path) -> None:
    """A checkpoint in the middle of a ramp, and before an update's first step."""
    schedules = {"kl": ScheduleConfig(ramp=5), "adv": ScheduleConfig(start=1, ramp=3), "style": ScheduleConfig(start=1)}
    starts = {"decoder": OptimizerConfig(start=2), "generator": OptimizerConfig(start=1)}
    check_resume(make(name), tmp_path, schedules=schedules, optimizers=starts)
