"""Arithmetic on a GPU: half precision trains, float32 is exact, and a step that is not finite is skipped there."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from savae_dist.config.schema import OptimizerConfig
from savae_dist.distributed import launch
from savae_dist.load_config import load
from savae_dist.precision import AUTOCAST, set_tf32
from savae_dist.systems import SAVAE
from savae_dist.testing.contract import check_resume, difference
from savae_dist.testing.small_run import SmallRun, same
from savae_dist.training.optim import make_optimizer

pytestmark = pytest.mark.gpu

SMALL = SAVAE(latent_dim=3)
EXACT = 3e-5  # largest error, in parts of the largest element: float32 stays below 1e-5, TF32 comes to some 4e-4


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_both_phases_train_in_half_precision(precision: str, device: torch.device) -> None:
    """In fp16 the scaler begins at 2^16, so first steps may overflow and be skipped; not all of them."""
    run = SmallRun(SMALL, device=device, precision=precision)
    kinds = set()
    for layer in (one for network in run.networks.values() for one in network.modules() if isinstance(one, nn.Conv2d)):
        layer.register_forward_hook(lambda _layer, _given, made: kinds.add(made.dtype))
    for phase in run.phases:
        before = run.weights()
        run.run(phase, 8)
        for update in run.updates.values():
            for term, sums in update.meter.drain().items():
                total, count = sums.tolist()
                assert count > 0, term
                assert math.isfinite(total), term
            assert (update.scaler is not None) == (precision == "fp16")
            for name in update.update.trains:
                assert difference({name: before[name]}, run.tensors())
    assert kinds == {AUTOCAST[precision]}
    for state in run.tensors().values():
        assert all(bool(value.isfinite().all()) for value in state.values())
        assert {value.dtype for value in state.values()} <= {torch.float32, torch.int64}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_resumption_is_exact(precision: str, device: torch.device, deterministic: None, tmp_path: Path) -> None:
    """To the bit: networks, optimisers, averages, and in fp16 the scale and the steps since it last changed."""
    check_resume(SMALL, tmp_path, device=device, precision=precision)
    run = SmallRun(SMALL, device=device, precision=precision)
    run.run("vec", 1)
    assert (run.updates["vec"].state()[1]["scaler"] is None) == (precision != "fp16")


def test_float32_is_exact_by_default(device: torch.device) -> None:
    torch.backends.cudnn.allow_tf32 = True  # as torch begins
    launch.start(load([]).precision, 60.0)
    assert torch.backends.cuda.matmul.fp32_precision == torch.backends.cudnn.conv.fp32_precision == "ieee"
    generator = torch.Generator().manual_seed(0)
    a, b, x, w = (
        torch.randn(shape, generator=generator).to(device)
        for shape in ((512, 512), (512, 512), (8, 16, 32, 32), (16, 16, 3, 3))
    )
    assert error(a @ b, a.double() @ b.double()) < EXACT
    assert error(F.conv2d(x, w), F.conv2d(x.double(), w.double())) < EXACT
    if device.type == "cuda" and torch.cuda.get_device_capability() >= (8, 0):
        set_tf32("tf32")  # else the test could not fail
        assert error(a @ b, a.double() @ b.double()) > EXACT


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).abs().max() / exact.abs().max())


OPTIMIZERS = {
    "adam": (OptimizerConfig(lr=0.01), torch.optim.Adam, {"betas": OptimizerConfig().betas}),
    "adamw": (OptimizerConfig("adamw", lr=0.01), torch.optim.AdamW, {"betas": OptimizerConfig().betas}),
    "sgd": (OptimizerConfig("sgd", lr=0.01, momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fused_optimisers_skip_as_one_would_by_hand(name: str, device: torch.device) -> None:
    """The unfused optimiser is not called where the gradient is not finite; the fused one is, and changes nothing."""
    config, kind, options = OPTIMIZERS[name]
    ours, theirs = nn.Linear(7, 5, device=device), nn.Linear(7, 5, device=device)
    theirs.load_state_dict(ours.state_dict())
    fused = make_optimizer(list(ours.parameters()), config)
    plain = kind(theirs.parameters(), lr=config.lr, weight_decay=config.weight_decay, foreach=False, **options)
    for number, finite in enumerate((False, True, True, False, True)):
        before = {key: value.clone() for key, value in ours.state_dict().items()}
        torch.manual_seed(number)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape).to(device)
            other.grad = mine.grad.clone()
        if not finite:
            ours.weight.grad[0, 0] = math.inf
        fused.found_inf = torch.tensor(float(not finite), device=device)
        fused.step()
        if finite:
            plain.step()
        assert same(before, ours.state_dict()) != finite
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def test_the_engine_leaves_everything_alone_where_a_gradient_is_not_finite(device: torch.device) -> None:
    """Weights, statistics of batch norm, averages and the optimiser's state."""
    run = SmallRun(SMALL, device=device, ema=0.5)
    run.run("vec", 1)
    vec = run.updates["vec"]
    before, state = run.tensors(), {key: value.clone() for key, value in vec.state()[0].items()}
    average = {key: value.clone() for key, value in vec.averages["encoder"].network.state_dict().items()}
    run.data.x.fill_(math.inf)
    run.run("vec", 2, first=1)
    assert int(vec.skipped) == 1
    assert difference(before, run.tensors()) == ""
    assert same(state, vec.state()[0])
    assert same(average, vec.averages["encoder"].network.state_dict())
