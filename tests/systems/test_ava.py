"""AVA: what each member adds, its losses by independent computation, and eq 10 and 16's lean terms by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from savae_dist.preprocess import DataSpec
from savae_dist.systems import AVA
from savae_dist.systems.phases import Batch
from savae_dist.testing.small_run import IMAGE, SIGNAL, SmallRun, same

both_kinds = pytest.mark.parametrize("spec", [IMAGE, SIGNAL], ids=["image", "signal"])


def small(name: str, **options: object) -> AVA:
    return replace(AVA(), name=name, latent_dim=3, **options)


def batch_of(trainer: SmallRun, update: str) -> Batch:
    step = next(step for step in trainer.phases["ava"].optimizer_steps() if step.update.name == update)
    return trainer.first_batch(step)


def exact(system: AVA, spec: DataSpec = IMAGE) -> SmallRun:
    """In float64, and with group norm, so that a sample's output is its own."""
    return SmallRun(system, spec, norm="group", dtype=torch.float64)


def terms_of(trainer: SmallRun, update: str) -> dict[str, Tensor]:
    prepared = trainer.prepare("ava")[update]
    prepared.enter()
    return prepared.parallel.forward(batch_of(trainer, update))


def stepped(system: AVA, update: str, **scaled: float) -> SmallRun:
    """After one step of one update; the last layers of the named networks are scaled first."""
    trainer = SmallRun(system)
    with torch.no_grad():
        for name, factor in scaled.items():
            network = trainer.networks[name]
            (network.score.weight if name == "critic" else network.layers[-1].weight).mul_(factor)
    trainer.prepare("ava")[update].step(0, [batch_of(trainer, update)], 0)
    return trainer


@pytest.mark.parametrize(
    ("name", "critic", "code_critic"),
    [
        ("ava1", {"real", "generated"}, None),
        ("ava2", {"real", "generated", "lean"}, None),
        ("ava3", {"real", "generated"}, {"real", "generated"}),
        ("ava4", {"real", "generated"}, {"real", "generated", "lean"}),
        ("ava5", {"real", "generated", "lean"}, {"real", "generated", "lean"}),
    ],
)
def test_what_each_member_adds(name: str, critic: set[str], code_critic: set[str] | None) -> None:
    trainer = SmallRun(small(name))
    found = {update: set(terms_of(trainer, update)) for update in trainer.prepare("ava")}
    judged = code_critic is not None
    assert found == {
        "vae": {"rec", "kl", "adv"} | ({"code_adv"} if judged else set()),
        "critic": critic,
        **({"code_critic": code_critic} if judged else {}),
    }


@both_kinds
@pytest.mark.parametrize("form", ["saturating", "non_saturating"])
def test_every_loss_by_independent_computation_in_float64(form: str, spec: DataSpec) -> None:
    """Eq 12, 4 and 11."""
    trainer = exact(small("ava5", adversarial=form), spec)
    nets = SimpleNamespace(**trainer.networks)
    bce, one, zero = nn.BCEWithLogitsLoss(), torch.ones(8).double(), torch.zeros(8).double()
    for update in ("vae", "critic", "code_critic"):
        batch = batch_of(trainer, update)
        (mean, log_variance), _ = nets.encoder(batch.x)
        q = Normal(mean, (0.5 * log_variance).exp())
        x_hat = nets.decoder(q.mean + q.stddev * batch.noise["z"])
        mean_hat = nets.encoder(x_hat)[0].mean
        d, d_hat, big_d, big_d_hat = (
            torch.sigmoid(network(value))
            for network, values in ((nets.critic, (batch.x, x_hat)), (nets.code_critic, (mean, mean_hat)))
            for value in values
        )
        if update == "vae":
            deceive = (lambda p: (1 - p).log().mean()) if form == "saturating" else lambda p: -p.log().mean()
            expected = {
                "rec": ((batch.x - x_hat) ** 2).flatten(1).sum(1).mean() / 2,
                "kl": kl_divergence(q, Normal(torch.zeros_like(mean), 1.0)).sum(1).mean(),
                "adv": deceive(d_hat),
                "code_adv": deceive(big_d_hat),
            }
        else:
            score, score_hat = (d, d_hat) if update == "critic" else (big_d, big_d_hat)
            expected = {"real": bce(score.logit(), one), "generated": bce(score_hat.logit(), zero)}
        found = terms_of(trainer, update)
        found.pop("lean", None)
        torch.testing.assert_close(found, expected)


@both_kinds
@pytest.mark.parametrize("update", ["critic", "code_critic"])
def test_the_lean_term_has_the_gradient_that_the_paper_prints(update: str, spec: DataSpec) -> None:
    """Eq 10: + a'_d(d_0) sum_i (x_i - x'_i) a'_g(x'_i), an error of d's one neuron, by chain rule to its weights.

    Eq 16: the same of D, mu(x) and mu(x'), where mu is linear, so a' is 1.
    """
    trainer = exact(small("ava5"), spec)
    nets, batch = SimpleNamespace(**trainer.networks), batch_of(trainer, update)
    found = terms_of(trainer, update)["lean"]
    weights = list(trainer.networks[update].parameters())
    gradients = torch.autograd.grad(found, weights)

    posterior = nets.encoder(batch.x)[0]
    x_hat = nets.decoder(posterior.sample(batch.noise["z"]))
    if update == "critic":
        slope = x_hat * (1 - x_hat) if spec is IMAGE else torch.ones_like(x_hat)
        error, score = ((batch.x - x_hat) * slope).flatten(1).sum(1), nets.critic(x_hat)
    else:
        mean_hat = nets.encoder(x_hat)[0].mean
        error, score = (posterior.mean - mean_hat).sum(1), nets.code_critic(mean_hat)
    d = torch.sigmoid(score)
    neuron = d * (1 - d) * error  # the paper adds it, so its loss has it negative
    by_hand = torch.autograd.grad(score, weights, grad_outputs=-neuron / len(score))
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    torch.testing.assert_close(gradients, by_hand)


@pytest.mark.parametrize(("member", "plain"), [("ava2", "ava1"), ("ava4", "ava3")])
def test_without_lean_terms_they_are_the_members_that_never_had_them(member: str, plain: str) -> None:
    ends = []
    for system in (small(member, lean="none"), small(plain)):
        trainer = SmallRun(system)
        trainer.run("ava", 2)
        ends.append(trainer.weights())
    assert ends[0].keys() == ends[1].keys()
    assert all(same(ends[0][network], ends[1][network]) for network in ends[0])


def test_d_teaches_the_decoder_and_the_code_s_discriminator_the_encoder_alone() -> None:
    """Eq 6 and 14: x' is detached where D judges its mean."""
    system = small("ava3", encoder_gradient="paper")
    for scaled, moved in (("critic", "decoder"), ("code_critic", "encoder")):
        one, other = (stepped(system, "vae", **{scaled: factor}).weights() for factor in (1.0, -3.0))
        for network in ("encoder", "decoder"):
            assert same(one[network], other[network]) == (network != moved), (scaled, network)


def test_the_printed_encoder_gradient_is_the_kl_s_alone() -> None:
    """Eq 5, whence the option; in full, eq 12 reaches the encoder through z."""
    for choice, alone in (("paper", True), ("full", False)):
        trainer = exact(small("ava1", encoder_gradient=choice))
        terms = terms_of(trainer, "vae")
        weights = list(trainer.networks["encoder"].parameters())
        whole = torch.autograd.grad(sum(terms.values()), weights, retain_graph=True)
        kl = torch.autograd.grad(terms["kl"], weights)
        assert all(torch.equal(a, b) for a, b in zip(whole, kl, strict=True)) == alone


def test_one_batch_for_all_updates_and_noise_of_their_own() -> None:
    (phase,) = small("ava5").phases()
    assert [step.update.name for step in phase.optimizer_steps()] == ["vae", "critic", "code_critic"]
    assert phase.batches_per_iteration == 1
    trainer = SmallRun(small("ava5"))
    draws = [batch_of(trainer, update).noise["z"] for update in ("vae", "critic", "code_critic")]
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])


@both_kinds
def test_it_trains_in_half_precision(spec: DataSpec) -> None:
    trainer = SmallRun(small("ava5"), spec, precision="bf16")
    trainer.run("ava", 2)
    for prepared in trainer.updates.values():
        sums = prepared.meter.drain()
        assert sums["gradient_norm"][1] == 2  # none was left out
        assert all(value.dtype == torch.float32 and value.isfinite().all() for value in sums.values())


def test_the_encoder_s_statistics_are_those_of_x_after_the_phase() -> None:
    """Meanwhile they are a mixture with those of x'; the decoder's know only x'."""
    (phase,) = small("ava3", backbone="dcgan").phases()
    assert phase.recalibrate is not None
    assert phase.recalibrate.networks == ("encoder", "decoder")
    trainer = SmallRun(small("ava3", backbone="dcgan"))
    seen = []
    trainer.networks["encoder"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = batch_of(trainer, "vae")
    phase.recalibrate.forward(SimpleNamespace(**trainer.networks), batch)
    assert len(seen) == 1
    assert seen[0] is batch.x


def test_impossible_values_name_their_key() -> None:
    with pytest.raises(ValueError, match=r"system\.latent_dim"):
        AVA(latent_dim=0)
    with pytest.raises(ValueError, match=r"system\.steps"):
        AVA(steps=-1)
