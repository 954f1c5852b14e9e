"""The shares of a loss's terms in the gradient at what the decoder makes, and that measuring them changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.contract import make
from helpers.launching import SMALL, scalars
from torch import Tensor, nn

from savae_dist.testing.contract import difference
from savae_dist.testing.small_run import SmallRun
from savae_dist.train import main
from savae_dist.training.batches import BatchSplit
from savae_dist.training.gradient_shares import gradient_shares, read_out

MEASURED = {  # system -> the terms that reach x^, in the phase and update that train the decoder
    "savae": ("decoder", "decoder", {"rec", "adv", "latent"}),
    "vae_gan": ("vae_gan", "decoder", {"llike", "adv", "adv_prior"}),
    "ava5": ("ava", "vae", {"rec", "adv"}),
    "vae": ("vae", "vae", set()),  # the KL does not reach x^, and of one term there are no shares
    "dcgan": ("gan", "decoder", set()),
}


class Line(nn.Module):
    """x^ = w z."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))

    def forward(self, z: Tensor) -> Tensor:
        return self.w * z


def test_closed_form() -> None:
    """The gradient of 3 x^ is 3 in every place, that of 1/2 x^2 is x^; over all slices together."""
    line, slices = Line(), [torch.tensor([1.0, -2.0]), torch.tensor([2.0, 4.0])]

    def forward(z: Tensor) -> dict[str, Tensor]:
        x_hat = line(z)
        half_square = 0.5 * x_hat.square().sum()
        return {"line": 3 * x_hat.sum(), "square": half_square, "kl": line.w.square(), "fixed": torch.ones(())}

    shares = gradient_shares(line, forward, slices)  # type: ignore[arg-type]
    flat, rising = 3 * 2.0, 2 * (1 + 4 + 4 + 16) ** 0.5
    assert {term: float(share) for term, share in shares.items()} == pytest.approx(
        {"line": flat / (flat + rising), "square": rising / (flat + rising)}
    )
    assert line.w.grad is None
    assert not line._forward_hooks


def test_what_is_not_finite_is_not_read_out() -> None:
    measured = {"rec": torch.tensor(0.25), "adv": torch.tensor(float("nan"))}
    assert read_out([measured, {}]) == {"rec": 0.25}
    assert measured == {}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", MEASURED)
def test_measuring_changes_nothing(name: str, precision: str) -> None:
    """Weights, buffers of batch norms and optimisers' states, to the bit."""
    phase, update, terms = MEASURED[name]
    without, measured = (SmallRun(make(name), precision=precision, ema=0.5, shares_every=every) for every in (0, 1))
    for run in (without, measured):
        run.run(phase, 3)
    assert difference(without.tensors(), measured.tensors()) == ""
    for one, prepared in measured.updates.items():
        states = [{one: run.updates[one].state()[0]} for run in (without, measured)]
        assert difference(*states) == ""
        assert not without.updates[one].shares
        assert prepared.shares.keys() == (terms if one == update else set())
    shares = measured.updates[update].shares
    if terms:
        assert float(sum(shares.values())) == pytest.approx(1)
        assert all(float(share) > 0 for share in shares.values())


def test_only_every_so_many_iterations() -> None:
    run = SmallRun(make("savae"), shares_every=3)
    run.run("decoder", 2)
    assert not run.updates["decoder"].shares
    run.run("decoder", 3, first=2)
    assert run.updates["decoder"].shares


def test_accumulation_gives_the_same_shares() -> None:
    found = []
    for accumulate in (1, 2):
        split = BatchSplit(8, accumulate=accumulate)
        run = SmallRun(make("savae"), norm="group", dtype=torch.float64, split=split, shares_every=1)
        run.run("decoder", 1)
        found.append({term: float(share) for term, share in run.updates["decoder"].shares.items()})
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_a_run_logs_and_keeps_them(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert main([*SMALL, "max_steps=4", "log_every=2", f"data.train={data}", f"output={output}"]) == 0
    logged = scalars(output)
    kept = json.loads((output / "summary.json").read_text())["gradient_shares"]
    assert kept.keys() == {"rec", "adv", "latent"}
    for term, share in kept.items():
        curve = logged[f"gradient_share/{term}"]
        assert list(curve) == [6, 8]
        assert curve[8] == pytest.approx(share, rel=1e-6)
