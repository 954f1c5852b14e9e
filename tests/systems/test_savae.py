"""SAVAE on the engine: who learns, in which order, and that phase 2 is Algorithm 2 to the letter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from savae_dist.networks import Network
from savae_dist.systems import SAVAE, losses
from savae_dist.testing.small_run import IMAGE, SmallRun, distance, same
from savae_dist.training.batches import BatchSplit
from savae_dist.training.engine import PreparedUpdate

SMALL = SAVAE(latent_dim=3, vec_steps=3, decoder_steps=2)


def test_frozen_networks_stay_while_gradients_pass_through_them() -> None:
    trainer = SmallRun(SMALL)
    trainer.run("vec", 2)
    before = trainer.weights()
    trainer.run("decoder", 3)
    after = trainer.weights()
    assert same(before["encoder"], after["encoder"])
    assert same(before["classifier"], after["classifier"])
    for name in ("encoder", "classifier"):
        assert all(p.grad is None for p in trainer.networks[name].parameters())
    # Only the latent term reaches the decoder through the classifier.
    phase = trainer.phases["decoder"]
    planned = trainer.plan(phase)[-1]
    batch = trainer.batch(planned)
    trainer.updates["decoder"].enter()
    terms = trainer.updates["decoder"].parallel.forward(batch)
    for name in ("rec", "adv", "latent"):
        grads = torch.autograd.grad(
            terms[name], trainer.networks["decoder"].parameters(), retain_graph=True, allow_unused=True
        )
        assert sum(float(g.abs().sum()) for g in grads if g is not None) > 0, name


@pytest.mark.parametrize("labels", ["none", "partly", "all"])
def test_unlabelled_batches_train_on_the_kl_alone(labels: str) -> None:
    trainer = SmallRun(SMALL)
    if labels == "none":
        trainer.data.y[:] = -1
    elif labels == "all":
        trainer.data.y.clamp_(min=0)
    before = trainer.weights()
    trainer.run("vec", 2)
    after = trainer.weights()
    assert not same(before["encoder"], after["encoder"])
    assert all(bool(v.isfinite().all()) for state in after.values() for v in state.values())
    learnt = [
        key for key, value in trainer.networks["classifier"].named_parameters()
        if not torch.equal(value, before["classifier"][key])
    ]  # fmt: skip
    assert bool(learnt) == (labels != "none")


@pytest.mark.parametrize("form", ["pseudo_label", "entropy", "consistency"])
def test_what_unlabelled_samples_add(form: str) -> None:
    """A term of its own, which moves the classifier where no sample has a label; at weight 0 it is not there."""
    trainer = SmallRun(replace(SMALL, unlabelled=form, unlabelled_weight=2.0))
    phase = trainer.phases["vec"]
    (planned,) = trainer.plan(phase)
    batch = trainer.batch(planned)
    nets = SimpleNamespace(**trainer.networks)
    terms = trainer.system.vec_loss(nets, batch)
    assert list(terms) == ["kl", "cat", form]
    posterior, _ = nets.encoder(batch.x)
    draws = torch.cat([posterior.sample(batch.noise[name]) for name in planned.step.update.noise])
    logits = nets.classifier(draws).split(8)
    expected = 2 * losses.unlabelled_loss(form, logits, batch.y, 1 / (batch.y < 0).sum())
    torch.testing.assert_close(terms[form], expected)
    torch.testing.assert_close(terms["cat"], losses.label_cross_entropy(logits[0], batch.y))
    assert form not in replace(trainer.system, unlabelled_weight=0.0).vec_loss(nets, batch)
    trainer.data.y[:] = -1
    before = trainer.weights()["classifier"]
    trainer.run("vec", 2)
    weights = dict(trainer.networks["classifier"].named_parameters())
    # Early on nobody is sure of anything: then there is no guess to learn from.
    assert any(not torch.equal(value, before[key]) for key, value in weights.items()) == (form != "pseudo_label")


@pytest.mark.parametrize(("critic_steps", "update"), [(1, "separate"), (3, "separate"), (2, "joint")])
def test_the_order_of_algorithm_2(critic_steps: int, update: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """n_dis times (real, generated), then the decoder; each on the next batch of the data."""
    trainer = SmallRun(replace(SMALL, critic_steps=critic_steps, critic_update=update))
    trainer.prepare("decoder")
    calls: list[tuple[str, int]] = []
    xs: list[Tensor] = []
    step = PreparedUpdate.step

    def spy(self: PreparedUpdate, which: int, slices: list, iteration: int) -> None:
        calls.append((self.update.name, which))
        xs.append(slices[0].x)
        step(self, which, slices, iteration)

    monkeypatch.setattr(PreparedUpdate, "step", spy)
    trainer.run("decoder", 2)
    one = [("critic", 0), ("critic", 1)] if update == "separate" else [("critic", 0)]
    assert calls == (one * critic_steps + [("decoder", 0)]) * 2
    expected = [trainer.data.raw(8 * i, 8, range(8)).x for i in range(len(calls))]
    assert all(torch.equal(a, b) for a, b in zip(xs, expected, strict=True))


def test_beta_zero_leaves_the_critic_out_and_keeps_data_and_noise() -> None:
    """The decoder's batches and draws are those that it would have had with the critic."""
    with_critic, without = SMALL.phases()[1], replace(SMALL, beta=0.0).phases()[1]
    for iteration in range(3):
        last = [SmallRun(SMALL).plan(phase, iteration, 40)[-1] for phase in (with_critic, without)]
        assert last[0].position == last[1].position == 40 + (3 * iteration + 2) * 8
        noise = [SmallRun(SMALL).noise(planned.step, planned.position) for planned in last]
        assert torch.equal(noise[0]["z"], noise[1]["z"])
    assert [planned.step.update.name for planned in SmallRun(SMALL).plan(without)] == ["decoder"]


def test_shared_batches() -> None:
    phase = replace(SMALL, batches="shared", critic_steps=2).phases()[1]
    trainer = SmallRun(SMALL)
    plan = trainer.plan(phase, 3, 16)
    assert [planned.position for planned in plan] == [16 + 3 * 8] * 5
    assert [bool(planned.reads) for planned in plan] == [True] + [False] * 4  # it is read once
    noise = [trainer.noise(planned.step, planned.position)["z"] for planned in plan]
    assert all(not torch.equal(a, b) for a, b in pairwise(noise))  # yet every step has its own noise


def literal_algorithm_2(trainer: SmallRun, steps: int, beta: float, gamma: float) -> dict[str, Network]:
    """Algorithm 2 as it is printed, in plain torch: nothing frozen but by the optimisers, nothing saved."""
    nets = trainer.networks
    enc, cls, dec, dis = (nets[k] for k in ("encoder", "classifier", "decoder", "critic"))
    enc.eval(), cls.eval(), dec.train(), dis.train()
    for network in nets.values():
        network.requires_grad_(True)
    adam_dis = torch.optim.Adam(dis.parameters(), 1e-4)
    adam_dec = torch.optim.Adam(dec.parameters(), 1e-3)
    plan = trainer.phases["decoder"].optimizer_steps()
    position = 0

    def minibatch(number: int) -> tuple[Tensor, Callable[[str], Tensor]]:
        nonlocal position
        x = trainer.data.raw(position, 8, range(8)).x
        noise = trainer.noise(plan[number], position)
        position += 8
        return x, lambda name: noise[name]

    def z_of(x: Tensor, eps: Tensor) -> Tensor:
        (mean, log_variance), _ = enc(x)
        return mean + (0.5 * log_variance).exp() * eps

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        for network in nets.values():
            network.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(steps):
        x, _ = minibatch(0)
        step(adam_dis, ((1 - dis(x)) ** 2).mean())
        x, eps = minibatch(1)
        buffers = {k: v.clone() for k, v in dec.named_buffers()}
        step(adam_dis, ((-1 - dis(dec(z_of(x, eps("z"))))) ** 2).mean())
        for key, value in dec.named_buffers():  # the engine leaves them alone in the critic's step
            value.copy_(buffers[key])
        x, eps = minibatch(2)
        z = z_of(x, eps("z"))
        x_hat = dec(z)
        z_hat = z_of(x_hat, eps("z_hat"))
        pairs = zip((1, 0.1, 0.01), enc(x)[1], enc(x_hat)[1], strict=True)
        rec = sum(alpha * ((f - f_hat) ** 2).mean() for alpha, f, f_hat in pairs)
        adv = ((dis(x).detach() - dis(x_hat)) ** 2).mean()
        latent = ((cls(z).softmax(1) - cls(z_hat).softmax(1)) ** 2).sum(1).mean()
        step(adam_dec, rec + beta * adv + gamma * latent)
    return nets


@pytest.mark.parametrize(("beta", "gamma"), [(0.01, 0.1), (0.3, 0.0), (0.0, 0.0)])
def test_phase_2_equals_the_literal_algorithm_in_float64(beta: float, gamma: float) -> None:
    """All savings together (no graph for generated images, no weight gradients of frozen networks, one pass for
    features and latent, nothing computed at weight zero) leave every update exactly as it was."""
    system = replace(SMALL, beta=beta, gamma=gamma)
    ours = SmallRun(system, dtype=torch.float64)
    literal = SmallRun(system, dtype=torch.float64)
    ours.run("decoder", 4)
    networks = literal_algorithm_2(literal, 4, beta, gamma)
    start = SmallRun(system, dtype=torch.float64).weights()["decoder"]
    assert distance(start, ours.networks["decoder"].state_dict()) > 1e-4
    assert distance(networks["decoder"].state_dict(), ours.networks["decoder"].state_dict()) < 1e-8
    if beta:
        assert distance(networks["critic"].state_dict(), ours.networks["critic"].state_dict()) < 1e-8


def test_vec_equals_algorithm_1_in_float64() -> None:
    ours, literal = (SmallRun(SMALL, dtype=torch.float64) for _ in range(2))
    ours.run("vec", 3)
    enc, cls = literal.networks["encoder"].train(), literal.networks["classifier"].train()
    adam = torch.optim.Adam([*enc.parameters(), *cls.parameters()], 1e-3)
    step = literal.phases["vec"].optimizer_steps()[0]
    for i in range(3):
        raw = literal.data.raw(8 * i, 8, range(8))
        (mean, log_variance), _ = enc(raw.x)
        z = mean + (0.5 * log_variance).exp() * literal.noise(step, 8 * i)["z"]
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
        labelled = raw.y >= 0
        cat = nn.functional.cross_entropy(cls(z)[labelled], raw.y[labelled])
        adam.zero_grad()
        (0.01 * kl + cat).backward()
        adam.step()
    for name in ("encoder", "classifier"):
        assert distance(literal.networks[name].state_dict(), ours.networks[name].state_dict()) < 1e-8


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize(
    "options",
    [{}, {"critic_update": "joint", "batches": "shared"}, {"unlabelled": "consistency"}, {"unlabelled": "entropy"}],
    ids=["separate", "joint", "consistency", "entropy"],
)
def test_accumulation_changes_nothing(accumulate: int, options: dict[str, object]) -> None:
    whole, parts = (
        SmallRun(replace(SMALL, **options), norm="group", dtype=torch.float64, split=BatchSplit(8, accumulate=n))
        for n in (1, accumulate)
    )
    for trainer in (whole, parts):
        trainer.run("vec", 3)
        trainer.run("decoder", 2)
    for name in whole.networks:
        assert distance(whole.networks[name].state_dict(), parts.networks[name].state_dict()) < 1e-8, name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latent_dim", 0),
        ("beta", -1.0),
        ("critic_steps", 0),
        ("alpha", (1.0,)),
        ("critic_label", 0.0),
        ("gamma", -0.1),
        ("unlabelled_weight", -1.0),
        ("label_smoothing", 1.0),
    ],
)
def test_impossible_values_name_their_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"system\.{key}"):
        replace(SMALL, **{key: value})


def test_a_decoder_without_a_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="would have no loss"):
        replace(SMALL, alpha=(0.0, 0.0, 0.0), beta=0.0, gamma=0.0)


def test_a_set_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="needs labels"):
        SMALL.build(replace(IMAGE, classes=0), 4, "batch", 2)
