"""`compile`: each update is captured whole and trains what it trains without; pieces are told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.contract import make
from helpers.launching import SMALL, shards
from torch import Tensor, nn

from savae_dist.config.schema import OptimizerConfig
from savae_dist.errors import ConfigError
from savae_dist.systems import SAVAE, SYSTEMS
from savae_dist.systems.phases import Batch
from savae_dist.testing.small_run import IMAGE, SIGNAL, SmallRun
from savae_dist.train import main
from savae_dist.training.capture import Capture, check_launch
from savae_dist.training.engine import UpdateModule

# Relative and absolute; SGD, because Adam divides gradients by their own size, and so enlarges small ones' rounding.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}
SGD = {name: OptimizerConfig("sgd", lr=0.05, clip_norm=0.5) for name in ("vec", "critic", "decoder")}


def check_alike(eager: SmallRun, compiled: SmallRun, phase: str) -> None:
    """The terms and gradients' norms of a phase, then all weights and buffers."""
    for name, update in eager.updates.items():
        expected, found = update.meter.drain(), compiled.updates[name].meter.drain()
        assert expected.keys() == found.keys()
        for term, sums in expected.items():
            torch.testing.assert_close(found[term], sums, **ROUNDING, msg=lambda m, t=term: f"{phase}, {t}: {m}")
    for network, state in eager.tensors().items():
        for key, value in state.items():
            other = compiled.tensors()[network][key]
            torch.testing.assert_close(other, value, **ROUNDING, msg=lambda m, k=key: f"{phase}, {k}: {m}")


def trained(system: SAVAE, spec: object, steps: int) -> int:
    """Train both phases with and without; how many updates were compiled, none of them in pieces."""
    eager, compiled = (SmallRun(system, spec, optimizers=SGD, compile=how) for how in ("none", "update"))
    count = 0
    for phase in eager.phases:
        eager.run(phase, steps)
        compiled.run(phase, steps)
        check_alike(eager, compiled, phase)
        assert not any(update.capture.breaks for update in compiled.updates.values())
        count += len(compiled.updates)
    return count


@pytest.mark.slow
@pytest.mark.parametrize(("regulariser", "spec"), [("gradient_penalty", IMAGE), ("r1", SIGNAL)])
def test_both_phases_as_they_are_traced(regulariser: str, spec: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward graphs of AOTAutograd, run without the compiler that takes minutes on a CPU."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        compiled: Callable[..., object] = torch._dynamo.lookup_backend("aot_eager")(graph, inputs)
        return compiled

    monkeypatch.setattr(UpdateModule, "compile", lambda self: nn.Module.compile(self, backend=backend))
    torch._dynamo.reset()
    assert trained(SAVAE(latent_dim=3, critic_regulariser=regulariser), spec, 3) == 3
    assert len(graphs) == 4  # one for each loss: the critic has two


@dataclass(frozen=True)
class Broken(SAVAE):
    """Its first loss looks at a value, which no graph can do."""

    def vec_loss(self, nets: SimpleNamespace, batch: Batch) -> dict[str, Tensor]:
        terms = super().vec_loss(nets, batch)
        return terms if terms["cat"].item() > 0 else {}


@pytest.mark.slow
def test_pieces_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, with the update and the reason; the run goes on, and the other updates are whole."""
    monkeypatch.setattr(UpdateModule, "compile", lambda self: nn.Module.compile(self, backend="eager"))
    monkeypatch.setitem(SYSTEMS, "savae", Broken())
    words = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", f"output={tmp_path / 'run'}", "compile=true"]
    assert main([*words, "system.vec_steps=3", "system.decoder_steps=1"]) == 0
    told = capsys.readouterr().err
    (line,) = [line for line in told.splitlines() if "compile=update: " in line]
    assert "the losses of vec could not be compiled whole, but in pieces" in line
    assert "what stood in the way: " in line
    assert "item" in line
    assert "compile:    each update whole, at its first step" in told


def test_graphs_need_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, f"data.train={shards(tmp_path / 'shards')}", f"output={tmp_path / 'run'}", "compile=graphs"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("compile=graphs needs an NVIDIA GPU, and this run is on cpu: use compile=update")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_nothing_is_compiled_under_fsdp() -> None:
    check_launch("none", torch.device("cpu"), "fsdp")
    with pytest.raises(ConfigError, match="compile=update does not go with FSDP"):
        check_launch("update", torch.device("cpu"), "fsdp")


def test_graphs_do_not_go_with_zero() -> None:
    check_launch("graphs", torch.device("cuda"), "ddp")
    check_launch("update", torch.device("cpu"), "zero1")
    with pytest.raises(ConfigError, match="compile=graphs does not go with ZeRO"):
        check_launch("graphs", torch.device("cuda"), "zero2")


def test_what_graphs_give_is_no_memory_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next graph overwrites it, so terms are copied before they are kept; gradients still pass."""
    monkeypatch.setattr(UpdateModule, "compile", lambda self, **_: None)
    run = SmallRun(make("savae"), compile="graphs")
    update = run.prepare("vec")["vec"]
    (planned,) = run.plan(run.phases["vec"])
    given = []

    def forward(batch: Batch, loss_index: int) -> dict[str, Tensor]:
        given.append(update.module(batch, loss_index))
        return given[0]

    terms = update.capture(forward, run.batch(planned), 0)
    assert terms.keys() == given[0].keys()
    for name, value in terms.items():
        assert torch.equal(value, given[0][name])
        assert value.data_ptr() != given[0][name].data_ptr()
    sum(terms.values()).backward()
    assert any(parameter.grad is not None for parameter in update.parameters.values())


class Power(nn.Module):
    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power

    def forward(self, x: Tensor, loss_index: int) -> dict[str, Tensor]:
        return {"loss": x**self.power}


@pytest.mark.slow
def test_every_loss_is_compiled_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the code of one forward pass, of which torch by itself compiles no more than eight kinds."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(Power, "compile", lambda self: nn.Module.compile(self, backend=backend))
    torch._dynamo.reset()
    for power in range(2, 14):
        module = Power(power)
        capture = Capture("many", module, "update")
        found = capture(module, torch.tensor(2.0), 0)["loss"]  # type: ignore[arg-type]
        assert float(found) == 2.0**power
    assert len(graphs) == 12
