"""The plain VAE: its loss is the negative evidence lower bound, and its two networks learn by it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from savae_dist.config.schema import OptimizerConfig
from savae_dist.preprocess import DataSpec
from savae_dist.systems import VAE
from savae_dist.testing.small_run import IMAGE, SIGNAL, SmallRun, distance, same
from savae_dist.training.batches import BatchSplit

SMALL = VAE(latent_dim=3, steps=3)
OPTIONS = [{}, {"backbone": "hou"}, {"kl_weight": 0.0}, {"likelihood": "gaussian"}]


@pytest.mark.parametrize("spec", [IMAGE, SIGNAL], ids=["image", "signal"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o)) or "default")
def test_it_trains_encoder_and_decoder(options: dict[str, object], spec: DataSpec) -> None:
    trainer = SmallRun(replace(SMALL, **options), spec)
    before = trainer.weights()
    trainer.run("vae", 2)
    assert list(before) == ["encoder", "decoder"]
    # Without the KL's gradient, too, the encoder's variance learns: through the noise that it scales.
    for name, network in trainer.networks.items():
        assert not [k for k, p in network.named_parameters() if torch.equal(p, before[name][k])]


@pytest.mark.parametrize("spec", [IMAGE, SIGNAL], ids=["image", "signal"])
@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_loss_is_the_negative_elbo_in_float64(likelihood: str, weight: float, spec: DataSpec) -> None:
    """Signals are Gaussian whatever images are."""
    trainer = SmallRun(replace(SMALL, kl_weight=weight, likelihood=likelihood), spec, dtype=torch.float64)
    planned = trainer.plan(trainer.phases["vae"])[0]
    batch = trainer.batch(planned)
    nets = SimpleNamespace(**trainer.networks)
    terms = trainer.system.vae_loss(nets, batch)

    (mean, log_variance), _ = nets.encoder(batch.x)
    q = Normal(mean, (0.5 * log_variance).exp())
    logits = nets.decoder.logits(mean + q.scale * batch.noise["z"])
    p = Normal(logits.sigmoid() if spec is IMAGE else logits, torch.ones_like(logits))
    if spec is IMAGE and likelihood == "bernoulli":
        p = Bernoulli(logits=logits, validate_args=False)
    rec = -p.log_prob(batch.x).flatten(1).sum(1).mean()
    kl = kl_divergence(q, Normal(torch.zeros_like(mean), 1.0)).sum(1).mean()
    torch.testing.assert_close(terms, {"rec": rec, "kl": weight * kl})


def test_no_kl_is_computed_at_weight_0() -> None:
    trainer = SmallRun(replace(SMALL, kl_weight=0.0))
    planned = trainer.plan(trainer.phases["vae"])[0]
    batch = trainer.batch(planned)
    assert list(trainer.system.vae_loss(SimpleNamespace(**trainer.networks), batch)) == ["rec"]


@pytest.mark.parametrize("backbone", ["savae", "hou"])
def test_accumulation_changes_nothing(backbone: str) -> None:
    """Under plain gradient descent; Adam makes large steps of gradients that are all rounding."""
    whole, parts = (
        SmallRun(
            replace(SMALL, backbone=backbone),
            norm="group",
            dtype=torch.float64,
            optimizers={"vae": OptimizerConfig("sgd", lr=1e-4)},
            split=BatchSplit(8, accumulate=accumulate),
        )
        for accumulate in (1, 4)
    )
    start = whole.weights()
    whole.run("vae", 3), parts.run("vae", 3)
    for name in whole.networks:
        assert distance(whole.networks[name].state_dict(), start[name]) > 1e-4
        assert distance(whole.networks[name].state_dict(), parts.networks[name].state_dict()) < 1e-10


def test_runs_are_the_same_twice() -> None:
    first, second = SmallRun(SMALL), SmallRun(SMALL)
    first.run("vae", 2), second.run("vae", 2)
    assert all(same(first.weights()[name], second.weights()[name]) for name in first.networks)


@pytest.mark.parametrize(("key", "value"), [("latent_dim", 0), ("kl_weight", -1.0), ("steps", -1)])
def test_impossible_values_name_their_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"system\.{key}"):
        replace(SMALL, **{key: value})
