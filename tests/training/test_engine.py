"""The engine's rules: modes, noise, split, clipping, skipping, averages, batch-norm statistics."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from savae_dist.config.schema import OptimizerConfig
from savae_dist.errors import ConfigError
from savae_dist.precision import autocast
from savae_dist.systems import SAVAE, losses
from savae_dist.systems.phases import Batch, Phase, Update
from savae_dist.testing.small_run import CPU, IMAGE, Samples, SmallRun, distance, same
from savae_dist.training.batch_norm import recalibrate
from savae_dist.training.batches import BatchBuilder, BatchSplit, read_requests, training_plan
from savae_dist.training.engine import UpdateModule, run_phase

EIGHT = BatchSplit(8)
SMALL = SAVAE(latent_dim=3, vec_steps=4, decoder_steps=4)


def test_slots_cover_the_global_batch_once() -> None:
    for ranks, accumulate in ((1, 1), (2, 1), (2, 3), (4, 2)):
        parts = [s for rank in range(ranks) for s in BatchSplit(24, rank, ranks, accumulate).slots()]
        assert len(parts) == ranks * accumulate
        assert len({len(part) for part in parts}) == 1
        assert sorted(slot for part in parts for slot in part) == list(range(24))


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.batch_size=10 must be a multiple of 2 processes x accumulate=3"):
        BatchSplit(10, 0, 2, 3)


def builder(split: BatchSplit = EIGHT, seed: int = 5) -> BatchBuilder:
    return BatchBuilder(split, CPU, lambda x: x, seed)


def test_noise_is_a_function_of_seed_position_step_and_slot() -> None:
    steps, slots = SMALL.phases()[1].optimizer_steps(), torch.arange(8)
    one, other = builder(seed=1), builder(seed=2)
    a = one.noise(steps[2], 16, slots)
    assert a["z"].shape == a["z_hat"].shape == (8, 3)
    assert torch.equal(a["z"], one.noise(steps[2], 16, slots)["z"])
    different = one.noise(steps[2], 24, slots), one.noise(steps[1], 16, slots), other.noise(steps[2], 16, slots)
    assert not any(torch.equal(a["z"], draws["z"]) for draws in different)
    assert not torch.equal(a["z"], a["z_hat"])
    assert torch.equal(a["z"][[5, 2]], one.noise(steps[2], 16, torch.tensor([5, 2]))["z"])
    many = torch.cat([one.noise(steps[2], 8 * i, slots)["z"] for i in range(400)])
    assert abs(float(many.mean())) < 0.05
    assert float(many.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (2, 2), (4, 1), (1, 4)])
def test_slices_are_the_global_batch(ranks: int, accumulate: int) -> None:
    """Samples, noise and the labelled mean of all slices together are those of one process."""
    phase, data = SMALL.phases()[0], Samples(IMAGE)
    step = phase.optimizer_steps()[0]
    reference, noise = builder().batch(data.raw(16, 8, range(8))), builder().noise(step, 16, torch.arange(8))["z"]
    found = {}
    for rank in range(ranks):
        part = builder(BatchSplit(8, rank, ranks, accumulate))
        for raw in data.stream(training_plan(phase, part.split, first=2, last=3, origin=0), 8):
            batch, draws = part.batch(raw), part.noise(step, 16, raw.slot)
            for i, slot in enumerate(raw.slot.tolist()):
                found[slot] = (batch.x[i], draws["z"][i])
            assert float(batch.label_weight) == pytest.approx(ranks * accumulate * float(reference.label_weight))
            unlabelled = int((data.raw(16, 8, range(8)).y < 0).sum())
            assert float(batch.unlabelled_weight) == pytest.approx(ranks * accumulate / unlabelled)
    assert all(torch.equal(found[i][0], reference.x[i]) for i in range(8))
    assert all(torch.equal(found[i][1], noise[i]) for i in range(8))


def test_no_label_gives_weight_zero() -> None:
    data = Samples(IMAGE)
    data.y[:] = -1
    batch = builder().batch(data.raw(0, 8, range(8)))
    assert batch.label_weight.item() == 0
    assert batch.unlabelled_weight.item() == 1 / 8
    data.y[:] = 1
    assert builder().batch(data.raw(0, 8, range(8))).unlabelled_weight.item() == 0


def test_frozen_networks_are_hidden_from_wrappers() -> None:
    trainer = SmallRun(SMALL)
    update = SMALL.phases()[1].updates[1]
    module = UpdateModule(update, trainer.networks, autocast("fp32", CPU))
    expected = {f"trained.decoder.{name}" for name, _ in trainer.networks["decoder"].named_parameters()}
    assert {name for name, _ in module.named_parameters()} == expected
    assert module.nets.encoder is trainer.networks["encoder"]


def test_a_term_that_is_no_scalar_is_named() -> None:
    def by_sample(nets: SimpleNamespace, batch: Batch) -> dict[str, torch.Tensor]:
        return {"rec": batch.x.sum(), "adv": batch.x.flatten(1).mean(1)}

    module = UpdateModule(Update("vae", (), (by_sample,)), {}, autocast("fp32", CPU))
    one = torch.ones(())
    with pytest.raises(ConfigError, match=r"update 'vae': term 'adv' has the shape \[8\]: return its mean"):
        module(Batch(torch.rand(8, 1, 12, 10), torch.zeros(8), {}, one, one))


def test_modes_of_each_update() -> None:
    """Trained: train mode. Trained elsewhere in the phase: batch statistics, buffers alone. Else: eval."""
    trainer = SmallRun(SMALL)
    updates = trainer.prepare("decoder")
    norms = [m for m in trainer.networks["decoder"].modules() if isinstance(m, nn.BatchNorm2d)]
    updates["critic"].enter()
    assert trainer.networks["critic"].training
    assert not trainer.networks["decoder"].training
    assert all(m.training and not m.track_running_stats for m in norms)
    updates["decoder"].enter()
    assert trainer.networks["decoder"].training
    assert all(m.training and m.track_running_stats for m in norms)
    for name in ("encoder", "classifier"):
        assert not any(m.training for m in trainer.networks[name].modules())
        assert not any(p.requires_grad for p in trainer.networks[name].parameters())
    x, z = torch.rand(8, 1, 12, 10), torch.randn(8, 3)
    training = trainer.networks["decoder"](z)
    updates["critic"].enter()
    assert torch.equal(trainer.networks["decoder"](z), training)  # the critic sees what the decoder makes
    assert trainer.networks["critic"](x).requires_grad


def test_a_loss_of_nan_changes_nothing_and_is_counted() -> None:
    poison = {"on": False}

    def loss(nets, batch):
        value = nets.decoder(batch.noise["z"]).square().mean()
        return {"rec": value * float("nan") if poison["on"] else value}

    trainer = SmallRun(SMALL, ema=0.9)
    update = Update("decoder", ("decoder",), (loss,), noise={"z": (3,)})
    phase = Phase("only", 6, (update,))
    trainer.phases = {"only": phase}
    trainer.run("only", 2)
    prepared = trainer.updates["decoder"]
    for step in (2, 3):
        poison["on"] = True
        before, state = trainer.weights()["decoder"], prepared.state()[0]
        state = {k: v.clone() for k, v in state.items()}
        average = {k: v.clone() for k, v in prepared.averages["decoder"].network.state_dict().items()}
        trainer.run("only", step + 1, first=step)
        assert same(before, trainer.weights()["decoder"])  # buffers too
        assert same(state, prepared.state()[0])
        assert same(average, prepared.averages["decoder"].network.state_dict())
    assert (int(prepared.skipped), int(prepared.skipped_in_a_row)) == (2, 2)
    poison["on"] = False
    trainer.run("only", 5, first=4)
    assert not same(before, trainer.weights()["decoder"])
    assert (int(prepared.skipped), int(prepared.skipped_in_a_row)) == (2, 0)
    total, count = prepared.meter.drain()["rec"].tolist()
    assert count == 3  # the steps that were left out do not spoil the mean
    assert total == total


def quadratic(weight: float, **config: object) -> tuple[nn.Module, SmallRun]:
    """One parameter w of 4 elements with loss sum(w * target): a constant gradient `weight` per element."""
    network = nn.Module()
    network.w = nn.Parameter(torch.zeros(4))

    def loss(nets, batch):
        return {"linear": weight * nets.net.w.sum()}

    trainer = SmallRun(SMALL)
    trainer.networks = {"net": network}
    trainer.phases = {"only": Phase("only", 10, (Update("u", ("net",), (loss,)),))}
    trainer.optimizers = {"u": OptimizerConfig(name="sgd", **config)}
    return network, trainer


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"lr": 0.1}, -0.3),
        ({"lr": 0.1, "clip_norm": 1.0}, -0.1 * 0.5),  # norm 6 -> 1, so each of 4 elements 1/2
        ({"lr": 0.1, "clip_norm": 100.0}, -0.3),
        ({"lr": 0.1, "clip_value": 0.25}, -0.025),
        ({"lr": 0.1, "clip_weights": 0.01}, -0.01),
    ],
)
def test_clipping(config: dict[str, float], expected: float) -> None:
    network, trainer = quadratic(3.0, **config)
    trainer.run("only", 1)
    torch.testing.assert_close(network.w.detach(), torch.full((4,), expected), rtol=1e-5, atol=1e-7)
    assert trainer.updates["u"].meter.drain()["gradient_norm"][0].item() == pytest.approx(6)


def test_the_schedule_counts_iterations_of_the_phase() -> None:
    network, trainer = quadratic(1.0, lr=1.0, schedule="step", decay_every=2, decay_factor=0.5)
    trainer.run("only", 5)
    torch.testing.assert_close(network.w.detach(), torch.full((4,), -(1 + 1 + 0.5 + 0.5 + 0.25)))


def test_average_of_weights() -> None:
    trainer = SmallRun(SMALL, ema=0.15)
    trainer.prepare("vec")
    expected = {k: v.clone() for k, v in trainer.networks["encoder"].state_dict().items()}
    for step in range(3):
        plan = trainer.plan(trainer.phases["vec"], step)
        list(run_phase(plan, trainer.data.stream(plan, 8), trainer.updates, trainer.builder))
        for key, value in trainer.networks["encoder"].state_dict().items():
            decay = min(0.15, (1 + step) / (10 + step))  # 0.1, then 0.15
            expected[key] = decay * expected[key] + (1 - decay) * value
    average = trainer.updates["vec"].averages["encoder"].network.state_dict()
    assert distance(average, expected) < 1e-6
    assert not trainer.prepare("decoder")["critic"].averages


def test_recalibration_is_the_mean_over_whole_batches() -> None:
    trainer = SmallRun(SMALL)
    trainer.run("vec", 3)
    phase, data = trainer.phases["vec"], trainer.data
    batches = [(8 * i, data.raw(8 * i, 8, range(8))) for i in range(5)]
    weights = {k: v.clone() for k, v in trainer.networks["encoder"].state_dict().items()}
    assert phase.recalibrate is not None
    recalibrate(phase.recalibrate, trainer.networks, batches, trainer.builder)
    step = phase.optimizer_steps()[0]
    inputs = []
    encoder, classifier = trainer.networks["encoder"], trainer.networks["classifier"]
    with torch.no_grad():
        for position, raw in batches:
            z = encoder(raw.x)[0].sample(trainer.noise(step, position)["z"])
            inputs.append(classifier.dense[0](z))
    first = classifier.norms[0]
    torch.testing.assert_close(first.running_mean, torch.stack([i.mean(0) for i in inputs]).mean(0))
    torch.testing.assert_close(first.running_var, torch.stack([i.var(0) for i in inputs]).mean(0))
    assert first.momentum == 0.1
    assert same(weights, encoder.state_dict())
    assert not classifier.training


def test_positions_are_arithmetic() -> None:
    phase = replace(SMALL, critic_steps=2).phases()[1]
    plan = list(training_plan(phase, BatchSplit(10), first=0, last=3, origin=100))
    assert [planned.position for planned in plan] == list(range(100, 100 + 15 * 10, 10))
    assert [planned.iteration for planned in plan if planned.ends_iteration] == [0, 1, 2]
    later = training_plan(phase, BatchSplit(10, 0, 1, 2), first=1, last=2, origin=100)
    assert [request.start for request in read_requests(later, 10)] == [s for s in range(150, 200, 10) for _ in range(2)]


def test_bf16_trains_and_keeps_weights_in_fp32() -> None:
    trainer = SmallRun(SMALL, precision="bf16")
    trainer.run("vec", 2)
    trainer.run("decoder", 2)
    for state in trainer.weights().values():
        assert all(v.dtype in (torch.float32, torch.int64) and bool(v.isfinite().all()) for v in state.values())


def test_bf16_losses_are_float32() -> None:
    trainer = SmallRun(SMALL, precision="bf16")
    updates = trainer.prepare("decoder")
    for planned in trainer.plan(trainer.phases["decoder"]):
        batch: Batch = trainer.batch(planned)
        terms = updates[planned.step.update.name].parallel.forward(batch, planned.step.loss_index)
        assert {value.dtype for value in terms.values()} == {torch.float32}


def test_a_scaler_of_its_own_changes_nothing_but_survives_overflow() -> None:
    """What fp16 does, on the CPU: scaled by a power of two the step is the same; an overflow halves the scale."""
    plain, scaled = quadratic(3.0, lr=0.1, clip_norm=1.0), quadratic(3.0, lr=0.1, clip_norm=1.0)
    plain[1].run("only", 1)
    prepared = scaled[1].prepare("only")["u"]
    prepared.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1)
    scaled[1].run("only", 2, first=1)
    torch.testing.assert_close(scaled[0].w.detach(), plain[0].w.detach(), rtol=1e-6, atol=0)
    assert prepared.state()[1]["scaler"]["scale"] == 2048  # grew after a good step
    prepared.scaler.update(3e38)
    before = scaled[0].w.detach().clone()
    scaled[1].run("only", 3, first=2)  # 3 * 3e38 overflows float32
    assert torch.equal(before, scaled[0].w.detach())
    assert int(prepared.skipped) == 1
    values = prepared.state()[1]
    assert values["scaler"]["scale"] == pytest.approx(1.5e38)
    again = scaled[1].prepare("only")["u"]
    again.scaler = torch.amp.GradScaler("cpu")
    again.load_state({}, values)
    assert again.state()[1]["scaler"] == values["scaler"]


def test_recalibration_of_what_does_not_run_is_refused() -> None:
    trainer = SmallRun(SMALL)
    plan = trainer.phases["vec"].recalibrate
    assert plan is not None
    with pytest.raises(AssertionError, match="misses some of"):
        recalibrate(
            replace(plan, networks=("decoder",)),
            trainer.networks,
            [(0, trainer.data.raw(0, 8, range(8)))],
            trainer.builder,
        )


@pytest.mark.parametrize("phase", ["vec", "decoder"])
def test_every_recalibration_reaches_its_networks(phase: str) -> None:
    trainer = SmallRun(SMALL)
    plan = trainer.phases[phase].recalibrate
    assert plan is not None
    before = trainer.weights()
    recalibrate(plan, trainer.networks, [(0, trainer.data.raw(0, 8, range(8)))], trainer.builder)
    changed = {name for name, state in trainer.weights().items() if not same(state, before[name])}
    assert changed == set(plan.networks)


def test_norms_and_the_critic_s_loss_are_float32_under_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scores leave the critic in half precision; what is squared, averaged and clipped by is not."""
    scores, squared = [], []
    original = losses.full_precision

    def watched(x: torch.Tensor) -> torch.Tensor:
        scores.append(x.dtype)
        squared.append(original(x).dtype)
        return original(x)

    monkeypatch.setattr(losses, "full_precision", watched)
    trainer = SmallRun(SMALL, precision="bf16")
    trainer.run("decoder", 1)
    assert torch.bfloat16 in scores
    assert set(squared) == {torch.float32}
    assert {update.norm.dtype for update in trainer.updates.values()} == {torch.float32}
    assert {p.grad is None for update in trainer.updates.values() for p in update.parameters.values()} == {True}
    states = [value for update in trainer.updates.values() for value in update.state()[0].values()]
    assert {value.dtype for value in states} == {torch.float32}


def test_the_scaler_of_each_update_goes_on_after_a_resumption() -> None:
    """fp16 proper: runs refuse it on CPUs, where it is slow, but not wrong."""
    trainer, other = (SmallRun(SMALL, precision="fp16") for _ in range(2))
    trainer.run("decoder", 2)
    trainer.updates["critic"].scaler.update(1024.0)
    other.prepare("decoder")
    for name, update in trainer.updates.items():
        other.updates[name].load_state(*update.state())
    for network, weights in trainer.weights().items():
        other.networks[network].load_state_dict(weights)
    assert other.updates["critic"].scaler.get_scale() == 1024 != other.updates["decoder"].scaler.get_scale()
    for each in (trainer, other):
        each.run("decoder", 4, first=2)
    assert all(same(a, b) for a, b in zip(trainer.weights().values(), other.weights().values(), strict=True))
    assert trainer.updates["critic"].state()[1] == other.updates["critic"].state()[1]


def test_a_foreign_tensor_is_refused() -> None:
    update = SmallRun(SMALL).prepare("vec")["vec"]
    tensors, values = update.state()
    with pytest.raises(ValueError, match=r"names critic\.weight/exp_avg, which this run does not train"):
        update.load_state({**tensors, "critic.weight/exp_avg": torch.zeros(3)}, values)
