"""Schedules, clipping, optimisers and their state, weight averages: against closed forms and against torch."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from savae_dist.config.schema import OptimizerConfig
from savae_dist.testing.small_run import same
from savae_dist.training.optim import (
    WeightAverage,
    clip_gradients,
    clip_weights,
    gradient_norm,
    learning_rate,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
)

CONFIGS = {
    "adam": OptimizerConfig(lr=0.01, betas=(0.5, 0.9), weight_decay=0.1),
    "adamw": OptimizerConfig("adamw", lr=0.01, weight_decay=0.1),
    "sgd": OptimizerConfig("sgd", lr=0.01, momentum=0.9, weight_decay=0.1),
    "sgd without momentum": OptimizerConfig("sgd", lr=0.01),
}
BY_NAME = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def network() -> nn.Module:
    """Convolution, norm and linear layer, the convolution in channels-last order."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 5, (3, 2)), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 4 * 5, 2))
    layers.to(memory_format=torch.channels_last)
    assert not layers[0].weight.is_contiguous()
    return layers


def set_gradients(module: nn.Module, step: int) -> None:
    """The same for every copy, in each parameter's own memory order as backward leaves them."""
    generator = torch.Generator().manual_seed(step)
    for parameter in module.parameters():
        parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape, generator=generator))


def advance(module: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        set_gradients(module, step)
        if optimizer.defaults["fused"]:
            optimizer.found_inf = torch.zeros(())
        optimizer.step()


def unfused(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """What a reader of torch's documentation would write."""
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay, foreach=False
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
    return kind(parameters, config.lr, betas=config.betas, weight_decay=config.weight_decay, foreach=False)


# Schedules.


def test_constant() -> None:
    config = OptimizerConfig(lr=0.3)
    assert [learning_rate(config, i, 10) for i in (0, 5, 9)] == [0.3, 0.3, 0.3]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_warmup_rises_to_the_full_rate(schedule: str) -> None:
    config = OptimizerConfig(lr=0.8, warmup=4, schedule=schedule)  # type: ignore[arg-type]
    assert [learning_rate(config, i, 20) for i in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


def test_cosine() -> None:
    config = OptimizerConfig(lr=2.0, schedule="cosine", warmup=10)
    for i in (10, 11, 37, 60, 109):
        assert learning_rate(config, i, 110) == pytest.approx(1 + math.cos(math.pi * (i - 10) / 100))
    assert learning_rate(config, 60, 110) == pytest.approx(1.0)
    assert 0 < learning_rate(config, 109, 110) < 1e-3
    assert learning_rate(config, 110, 110) == pytest.approx(0, abs=1e-15)
    assert learning_rate(config, 200, 110) == pytest.approx(0, abs=1e-15)  # never rises again


def test_warmup_longer_than_the_phase() -> None:
    config = OptimizerConfig(lr=1.0, schedule="cosine", warmup=10)
    assert [learning_rate(config, i, 4) for i in range(4)] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_step_decay() -> None:
    config = OptimizerConfig(lr=1.0, schedule="step", decay_every=3, decay_factor=0.1, warmup=2)
    expected = [0.5, 1.0, 1, 1, 1, 0.1, 0.1, 0.1, 0.01]
    assert [learning_rate(config, i, 100) for i in range(9)] == pytest.approx(expected)


# Clipping.


def gradients(scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [scale * torch.randn(shape, generator=generator) for shape in ((3, 4), (7,), (), (2, 3, 2, 2))]


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_gradient_norm_is_torch_s(scale: float) -> None:
    grads = gradients(scale)
    assert torch.allclose(gradient_norm(grads), torch.nn.utils.get_total_norm(grads), rtol=1e-6, atol=0)


def test_gradient_norm_of_half_precision_does_not_overflow() -> None:
    norm = gradient_norm([torch.full((1000,), 60000.0, dtype=torch.float16)])
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(60000 * math.sqrt(1000), rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_gradient_norm_shows_what_is_not_finite(bad: float) -> None:
    grads = gradients()
    grads[1][3] = bad
    assert not torch.isfinite(gradient_norm(grads))


def with_gradients(*gradients: torch.Tensor) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    return parameters


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clip_by_norm_is_the_closed_form(limit: float) -> None:
    norm = torch.cat([gradient.flatten() for gradient in gradients()]).norm()
    ours = with_gradients(*gradients())
    clip_gradients(ours, gradient_norm(gradients()), OptimizerConfig(clip_norm=limit))
    for parameter, gradient in zip(ours, gradients(), strict=True):
        torch.testing.assert_close(parameter.grad, gradient * min(1.0, limit / (norm.item() + 1e-6)))


def test_first_the_norm_then_the_value() -> None:
    (weight,) = with_gradients(torch.tensor([30.0, -40.0]))
    clip_gradients([weight], gradient_norm([weight.grad]), OptimizerConfig(clip_norm=1.0, clip_value=0.7))
    assert weight.grad.tolist() == pytest.approx([0.6, -0.7])  # the other way round it would be +-0.7071


def test_no_limit_leaves_gradients_alone() -> None:
    ours = with_gradients(*gradients())
    clip_gradients(ours, gradient_norm(gradients()), OptimizerConfig())
    assert all(torch.equal(a.grad, b) for a, b in zip(ours, gradients(), strict=True))


def test_clip_weights() -> None:
    weights = [nn.Parameter(torch.tensor([-3.0, -0.1, 0.2, 5.0]))]
    clip_weights(weights, 0.15, torch.tensor(False))
    assert weights[0].tolist() == pytest.approx([-3.0, -0.1, 0.2, 5.0])
    clip_weights(weights, 0.15, torch.tensor(True))
    assert weights[0].tolist() == pytest.approx([-0.15, -0.1, 0.15, 0.15])


# Optimisers.


@BY_NAME
def test_fused_is_what_torch_documents(config: OptimizerConfig) -> None:
    ours, theirs = network(), network()
    fused = make_optimizer(list(ours.parameters()), config)
    plain = unfused(list(theirs.parameters()), config)
    advance(ours, fused, 0, 7)
    advance(theirs, plain, 0, 7)
    for a, b, start in zip(ours.parameters(), theirs.parameters(), network().parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)
        assert not torch.allclose(a, start, atol=1e-3)


@BY_NAME
def test_the_learning_rate_of_the_group_counts(config: OptimizerConfig) -> None:
    module = network()
    optimizer = make_optimizer(list(module.parameters()), config)
    before = copy.deepcopy(module.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    advance(module, optimizer, 0, 1)
    assert same(before, module.state_dict())


@BY_NAME
@pytest.mark.parametrize("steps", [0, 3])
def test_found_inf_leaves_everything_alone(config: OptimizerConfig, steps: int) -> None:
    """Also in the very first step, after which training goes on as if it had not been."""
    module, undisturbed = network(), network()
    optimizer = make_optimizer(list(module.parameters()), config)
    advance(module, optimizer, 0, steps)
    parameters = dict(module.named_parameters())
    weights = copy.deepcopy(module.state_dict())
    state = {name: value.clone() for name, value in optimizer_state(optimizer, parameters).items()}

    set_gradients(module, 99)
    next(module.parameters()).grad.fill_(math.nan)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert same(weights, module.state_dict())
    after = optimizer_state(optimizer, parameters)
    assert all(torch.equal(after[name], value) for name, value in state.items())
    assert all(not value.any() for name, value in after.items() if name not in state)

    advance(module, optimizer, steps, steps + 3)
    other = make_optimizer(list(undisturbed.parameters()), config)
    advance(undisturbed, other, 0, steps + 3)
    assert same(module.state_dict(), undisturbed.state_dict())


@BY_NAME
def test_state_goes_on_to_the_bit(config: OptimizerConfig) -> None:
    """Also through tensors that lost the channels-last order, as they do in a file."""
    module, other = network(), network()
    optimizer = make_optimizer(list(module.parameters()), config)
    advance(module, optimizer, 0, 4)
    tensors = optimizer_state(optimizer, dict(module.named_parameters()))
    stored = {name: value.clone().contiguous() for name, value in tensors.items()}
    other.load_state_dict(module.state_dict())
    resumed = make_optimizer(list(other.parameters()), config)
    load_optimizer_state(resumed, dict(other.named_parameters()), stored)

    again = optimizer_state(resumed, dict(other.named_parameters()))
    assert same(stored, again)
    assert all(again[name].stride() == value.stride() for name, value in tensors.items())
    advance(module, optimizer, 4, 8)
    advance(other, resumed, 4, 8)
    assert same(module.state_dict(), other.state_dict())


def test_loading_copies() -> None:
    module = network()
    optimizer = make_optimizer(list(module.parameters()), CONFIGS["adam"])
    advance(module, optimizer, 0, 1)
    tensors = optimizer_state(optimizer, dict(module.named_parameters()))
    stored = {name: value.clone() for name, value in tensors.items()}
    load_optimizer_state(optimizer, dict(module.named_parameters()), stored)
    kept = {name: value.clone() for name, value in stored.items()}
    advance(module, optimizer, 1, 2)
    assert same(stored, kept)


# Weight averages.


def test_average_is_its_closed_form() -> None:
    """a = d a + (1 - d) w at each step that was applied, d rising to the asked decay."""
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).double()
    average = WeightAverage(module, 0.2)
    expected = {k: v.clone() for k, v in module.state_dict().items() if v.is_floating_point()}
    generator = torch.Generator().manual_seed(0)
    for number, applied in enumerate((1, 1, 0, 1)):
        decay = min(0.2, (1 + number) / (10 + number))
        with torch.no_grad():
            for value in module.state_dict().values():
                if value.is_floating_point():
                    value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
        average.update(torch.tensor(float(applied)))
        if applied:
            expected = {k: decay * v + (1 - decay) * module.state_dict()[k] for k, v in expected.items()}
    found = average.network.state_dict()
    assert all(torch.allclose(found[k], v, rtol=1e-6, atol=1e-7) for k, v in expected.items())  # the weight is float32


def test_average_of_a_step_left_out_is_the_old_one_to_the_bit() -> None:
    module = network()
    average = WeightAverage(module, 0.5)
    before = copy.deepcopy(average.network.state_dict())
    with torch.no_grad():
        module[0].weight += 1
    average.update(torch.tensor(0.0))
    assert same(before, average.network.state_dict())
    average.update(torch.tensor(1.0))
    assert not same(before, average.network.state_dict())


def test_average_is_a_network_of_its_own_in_eval_mode() -> None:
    module = network().train()
    average = WeightAverage(module, 0.0)
    assert not average.network.training
    assert module.training
    with torch.no_grad():
        module[0].weight += 1
    assert not torch.equal(average.network[0].weight, module[0].weight)
    average.update(torch.tensor(1.0))
    assert torch.allclose(average.network[0].weight, module[0].weight)
    assert average.network[0].weight.stride() == module[0].weight.stride()


# Impossible values.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("lr", value) for value in (0.0, -1.0, math.nan, math.inf)],
        *[("betas", value) for value in ((0.9, 1.0), (-0.1, 0.9), (math.nan, 0.9))],
        *[("momentum", value) for value in (1.0, -0.1, math.nan)],
        *[("weight_decay", value) for value in (-0.1, math.nan, math.inf)],
        ("warmup", -1),
        ("decay_every", 0),
        *[("decay_factor", value) for value in (0.0, 1.5, math.nan)],
        *[(f"clip_{what}", value) for what in ("norm", "value", "weights") for value in (0.0, -1.0, math.nan)],
    ],
)
def test_impossible_values_are_named(key: str, value: object) -> None:
    config = OptimizerConfig(**{key: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"optimizers\.vec\.{key}") as caught:
        config.check("optimizers.vec")
    assert "\n" not in str(caught.value)


@BY_NAME
def test_possible_values_pass(config: OptimizerConfig) -> None:
    assert config.check("optimizers.vec") is None


def test_an_average_follows_a_network_that_moves_to_other_memory():
    """As a later update of the same network, when it is wrapped, may do."""
    network = nn.Linear(3, 2)
    average = WeightAverage(network, 0.5)
    for parameter in network.parameters():
        parameter.data = torch.full_like(parameter, 7.0)
    for _ in range(60):
        average.update(torch.ones(()))
    for parameter in average.network.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 7.0))


def test_an_average_follows_buffers_that_were_replaced() -> None:
    """As moving a network to a device does, even to the one where it is."""
    network = nn.BatchNorm1d(2)
    average = WeightAverage(network, 0.5)
    network.running_mean = torch.full((2,), 3.0)
    average.update(torch.ones(()))
    torch.testing.assert_close(average.network.running_mean, torch.full((2,), 2.7))  # 0 + (1 - 1 / 10) 3
