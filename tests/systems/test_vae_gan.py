"""VAE/GAN: Larsen's routing of the three losses, bit for bit, and each loss by independent computation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from savae_dist.systems import VAEGAN
from savae_dist.systems.phases import Batch
from savae_dist.testing.small_run import SmallRun, same

SMALL = VAEGAN(latent_dim=3)


def batch_of(trainer: SmallRun, update: str) -> Batch:
    step = next(step for step in trainer.phases["vae_gan"].optimizer_steps() if step.update.name == update)
    return trainer.first_batch(step)


def stepped(update: str, system: VAEGAN = SMALL, score: float = 1.0) -> SmallRun:
    """After one step of one update; the discriminator's last layer is scaled by `score` first."""
    trainer = SmallRun(system)
    with torch.no_grad():
        trainer.networks["critic"].score.weight.mul_(score)
    trainer.prepare("vae_gan")[update].step(0, [batch_of(trainer, update)], 0)
    return trainer


def test_the_gan_loss_does_not_reach_the_encoder() -> None:
    """What the discriminator says of a sample changes the decoder's step, and the encoder's by no bit."""
    for update, moved in (("encoder", False), ("decoder", True)):
        one, other = (stepped(update, score=score).weights()[update] for score in (1.0, -3.0))
        assert same(one, other) != moved, update


def test_the_feature_loss_does_not_train_the_discriminator() -> None:
    for change in ({"feature_weight": 1e3}, {"kl_weight": 1e3}):
        one, other = (stepped("critic", system).weights()["critic"] for system in (SMALL, replace(SMALL, **change)))
        assert same(one, other), change


def test_gamma_weighs_the_decoder_s_and_the_prior_the_encoder_s_loss_alone() -> None:
    for change, moved in (({"feature_weight": 1e3}, "decoder"), ({"kl_weight": 1e3}, "encoder")):
        for update in ("encoder", "decoder"):
            one, other = (stepped(update, system).weights()[update] for system in (SMALL, replace(SMALL, **change)))
            assert same(one, other) == (update != moved), (change, update)


def test_every_loss_by_independent_computation_in_float64() -> None:
    """Equations 2 to 8, with group norm, so that a sample's output is its own."""
    system = replace(SMALL, kl_weight=0.7, feature_weight=0.3)
    trainer = SmallRun(system, norm="group", dtype=torch.float64)
    enc, dec, dis = (trainer.networks[name] for name in ("encoder", "decoder", "critic"))
    updates = trainer.prepare("vae_gan")
    for name, update in updates.items():
        batch = batch_of(trainer, name)
        x = batch.x
        (mean, log_variance), _ = enc(x)
        x_tilde = dec(mean + (0.5 * log_variance).exp() * batch.noise["z"])
        hidden, hidden_tilde = dis.stages(x)[-1], dis.stages(x_tilde)[-1]
        llike = sum(0.5 * ((a - b) ** 2).sum() for a, b in zip(hidden, hidden_tilde, strict=True)) / len(x)
        prior = sum(
            0.5 * (m**2 + v.exp() - 1 - v).sum() for m, v in zip(mean, log_variance, strict=True)
        ) / len(x)  # fmt: skip
        expected = {"llike": llike, "prior": 0.7 * prior}
        if name != "encoder":
            x_p = dec(batch.noise["prior"].double())
            bce, one, zero = nn.BCEWithLogitsLoss(), torch.ones(8).double(), torch.zeros(8).double()
            if name == "critic":
                expected = {"real": bce(dis(x), one)}
                expected |= {"reconstructed": bce(dis(x_tilde), zero), "prior": bce(dis(x_p), zero)}
            else:
                expected = {"llike": 0.3 * llike, "adv": bce(dis(x_tilde), one), "adv_prior": bce(dis(x_p), one)}
        update.enter()
        found = update.parallel.forward(batch)
        assert found.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], msg=f"{name} {key}")


def test_one_batch_for_the_three_updates_and_noise_of_their_own() -> None:
    (phase,) = SMALL.phases()
    assert [step.update.name for step in phase.optimizer_steps()] == ["encoder", "decoder", "critic"]
    assert phase.batches_per_iteration == 1
    trainer = SmallRun(SMALL)
    draws = [batch_of(trainer, update).noise["z"] for update in ("encoder", "decoder", "critic")]
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])


@pytest.mark.parametrize(
    ("key", "value"), [("latent_dim", 0), ("steps", 0), ("kl_weight", -1.0), ("feature_weight", -1)]
)
def test_impossible_values_name_their_key(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"system\.{key}"):
        replace(SMALL, **{key: value})
