"""Any number of processes and accumulation steps, any strategy: the same losses, weights, averages, states."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import SMALL, scalars, shards, status, train, weights
from helpers.parity_worker import SETTINGS, combinations
from safetensors.torch import load_file
from torch import Tensor

from savae_dist.testing.ranks import run_ranks

pytestmark = pytest.mark.distributed

WORKER = Path(__file__).parents[1] / "helpers" / "parity_worker.py"
Results = dict[int, dict[str, dict[str, Tensor]]]  # ranks -> "setting strategy accumulate" -> what came out


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    found: Results = {}
    for ranks in (1, 2, 4):
        file = tmp_path_factory.mktemp("parity") / "results.safetensors"
        run_ranks(ranks, str(WORKER), str(file))
        found[ranks] = defaultdict(dict)
        for full, value in load_file(file).items():
            run, _, key = full.partition("/")
            found[ranks][run][key] = value
    return found


CASES = [
    (name, ranks, strategy, accumulate)
    for name, setting in SETTINGS.items()
    for ranks in (1, 2, 4)
    for strategy, accumulate in combinations(setting, ranks)
    if (ranks, strategy, accumulate) != (1, "ddp", 1) and not (setting.half and strategy == "ddp")
]


@pytest.mark.parametrize(("name", "ranks", "strategy", "accumulate"), CASES)
def test_parity(name: str, ranks: int, strategy: str, accumulate: int, results: Results) -> None:
    """Against one process (in half precision: against DDP with as many)."""
    reference = results[2][f"{name} ddp 2"] if SETTINGS[name].half else results[1][f"{name} ddp 1"]
    found = results[ranks][f"{name} {strategy} {accumulate}"]
    assert found.keys() == reference.keys()
    for key, value in reference.items():
        difference = (found[key].double() - value.double()).abs()
        if key.startswith("losses/"):  # one of 100 has fewer digits after the point than one of 1
            difference /= max(1.0, float(value)) * (10 if key.endswith("gradient_norm") else 1)
        if name == "adam":
            # It divides each gradient by its own size; next to nothing, rounding is all that is left.
            difference = difference[large_gradients(key, reference)] / 10
        assert difference.numel() == 0 or difference.max() <= 1e-6, key


def large_gradients(key: str, found: dict[str, Tensor]) -> Tensor:
    """Where Adam's second moment of a weight says so; everywhere in what is no weight."""
    _, network, parameter = key.split("/") if key.startswith(("networks/", "ema/")) else ("", "", "")
    moments = [v for k, v in found.items() if k.endswith(f"/{network}.{parameter}/exp_avg_sq")]
    return moments[0].sqrt() > 1e-4 if moments else torch.ones_like(found[key], dtype=torch.bool)


def test_the_settings_do_what_they_are_there_for(results: Results) -> None:
    """Clipped, skipped and averaged, and no two of them train the same weights."""
    one = results[1]
    key = "networks/decoder/convs.0.weight"
    trained = [one[f"{name} ddp 1"][key] for name, setting in SETTINGS.items() if not setting.half]
    assert len({float(value.double().sum()) for value in trained}) == len(trained)
    assert float(one["separate ddp 1"]["losses/critic/gradient_norm"]) > 0.3  # what it was clipped to
    assert float(one["joint ddp 1"]["networks/critic/convs.0.weight"].abs().max()) == pytest.approx(0.05)
    assert "ema/decoder/convs.0.weight" in one["separate ddp 1"]
    assert "shares/adv" in one["separate ddp 1"]
    assert [int(one["not finite ddp 1"][f"skipped/{name}"]) for name in ("vec", "critic", "decoder")] == [1, 2, 1]
    half = results[2]["fp16 ddp 2"]
    assert float(half["scale/critic"]) < 65536 == float(half["scale/decoder"])  # of its own, and its own overflow


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", ["batch", "sync"])
def test_statistics_are_those_of_one_process(kind: str, ranks: int, results: Results) -> None:
    """Norms over all ranks must not wait for ranks that have fewer batches, nor mix theirs in."""
    found, expected = results[ranks][f"{kind} norm"], results[1]["batch norm"]
    assert any(key.endswith("running_var") for key in expected)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_step_that_is_left_out_changes_no_statistics(ranks: int, results: Results) -> None:
    """Wrapping an update may replace buffers: those that are restored and averaged must be the network's."""
    found = results[ranks]["left out"]
    keys = [key.removeprefix("before/") for key in found if key.startswith("before/")]
    assert any(key.endswith("running_var") for key in keys)
    for key in keys:
        assert torch.equal(found[f"after/{key}"], found[f"before/{key}"])
        if key.endswith(("mean", "var")):
            initial = 1.0 if key.endswith("var") else 0.0
            assert not torch.equal(found[f"ema/{key}"], torch.full_like(found[f"ema/{key}"], initial))


def test_one_process_equals_two_when_launched(tmp_path: Path) -> None:
    """The whole program, started as its users do, with augmentation: losses in the log, weights in the checkpoint."""
    options = [
        *("optimizers.default.name=sgd", "optimizers.default.lr=0.05", "optimizers.default.clip_norm=0.5", "ema=0.5"),
        *("data.augment={crop: 0.2, flip: 0.5, shift: 0.2, cutout: 0.3}", "networks.norm=group", "max_steps=3"),
        f"data.train={shards(tmp_path / 'shards')}",
    ]
    outputs = {}
    for processes in (1, 2):
        outputs[processes] = output = tmp_path / str(processes)
        result = train(processes, *SMALL, *options, f"output={output}", f"accumulate={processes}")
        assert result.returncode == 0, result.stderr
        assert ("1 process (" if processes == 1 else "2 processes (") in result.stderr  # it says how many it is
        assert status(output)["outcome"] == "done"
    expected, found = weights(outputs[1]), weights(outputs[2])
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert np.abs(found[key].astype(np.float64) - value).max() <= 1e-6, key
    losses, there = scalars(outputs[1]), scalars(outputs[2])
    terms = [name for name in losses if name.split("/")[0] in ("vec", "critic", "decoder") and "samples" not in name]
    assert {"vec/kl", "vec/cat", "critic/generated", "decoder/rec", "decoder/adv", "decoder/latent"} <= set(terms)
    for name in terms:
        for step, value in losses[name].items():
            assert there[name][step] == pytest.approx(value, rel=1e-5, abs=1e-6), (name, step)
