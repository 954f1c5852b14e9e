"""DCGAN, WGAN and LSGAN: losses in closed form, the papers' algorithms to the letter, WGAN's clipping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from savae_dist.load_config import load
from savae_dist.systems import DCGAN, LSGAN, WGAN
from savae_dist.systems.phases import Batch, System
from savae_dist.testing.small_run import IMAGE, SmallRun, distance

REAL, FAKE = torch.tensor([0.5, -2.0, 3.0]).double(), torch.tensor([-1.0, 0.25, 4.0]).double()


def nets_with(scores: dict[str, Tensor]) -> tuple[SimpleNamespace, Batch]:
    """A critic that gives these scores to real and to generated samples."""
    x, z = torch.zeros(3, 1).double(), torch.ones(3, 1).double()
    critic = lambda sample: scores["real" if torch.equal(sample, x) else "fake"]  # noqa: E731
    batch = Batch(x, torch.zeros(3), {"z": z}, torch.tensor(0.0), torch.tensor(0.0))
    return SimpleNamespace(critic=critic, decoder=lambda latent: latent), batch


@pytest.mark.parametrize(
    ("system", "real", "fake", "decoder"),
    [
        (
            DCGAN(),
            lambda r: -torch.sigmoid(r).log().mean(),
            lambda f: -(1 - torch.sigmoid(f)).log().mean(),
            lambda f: -torch.sigmoid(f).log().mean(),
        ),
        (WGAN(), lambda r: -r.sum() / 3, lambda f: f.sum() / 3, lambda f: -f.sum() / 3),
        (
            LSGAN(),
            lambda r: ((r - 1) ** 2).sum() / 6,
            lambda f: (f**2).sum() / 6,
            lambda f: ((f - 1) ** 2).sum() / 6,
        ),
        (
            LSGAN(labels=(-1.0, 1.0, 0.0)),
            lambda r: ((r - 1) ** 2).sum() / 6,
            lambda f: ((f + 1) ** 2).sum() / 6,
            lambda f: (f**2).sum() / 6,
        ),
    ],
    ids=["dcgan", "wgan", "lsgan", "lsgan eq 8"],
)
def test_losses_in_closed_form(
    system: DCGAN | WGAN | LSGAN,
    real: Callable[[Tensor], Tensor],
    fake: Callable[[Tensor], Tensor],
    decoder: Callable[[Tensor], Tensor],
) -> None:
    nets, batch = nets_with({"real": REAL, "fake": FAKE})
    terms = system.critic_loss(nets, batch)
    torch.testing.assert_close(terms["real"], real(REAL))
    torch.testing.assert_close(terms["generated"], fake(FAKE))
    torch.testing.assert_close(system.generator_loss(nets, batch)["adv"], decoder(FAKE))


def literal(trainer: SmallRun, optimizer: Callable[..., torch.optim.Optimizer], clip: float | None) -> dict:
    """Two iterations as the papers print them: n_critic critic steps, then the generator, in plain torch."""
    nets, system = trainer.networks, trainer.system
    gen, dis = nets["decoder"].train(), nets["critic"].train()
    for network in nets.values():
        network.requires_grad_(True)
    steps = {name: optimizer(nets[name].parameters()) for name in nets}
    plan, position = trainer.phases["gan"].optimizer_steps(), 0
    bce = nn.BCEWithLogitsLoss()
    for _ in range(2):
        for step in plan:
            noise = trainer.noise(step, position)["z"].double()
            x = trainer.data.raw(position, 8, range(8)).x
            position += 8
            buffers = {name: {k: v.clone() for k, v in nets[name].named_buffers()} for name in nets}
            if step.update.name == "critic":
                real, fake = dis(x), dis(gen(noise).detach())
                if system.name == "wgan":
                    loss = -(real.mean() - fake.mean())
                else:
                    loss = bce(real, torch.ones(8).double()) + bce(fake, torch.zeros(8).double())
            else:
                fake = dis(gen(noise))
                loss = -fake.mean() if system.name == "wgan" else bce(fake, torch.ones(8).double())
            steps[step.update.name].zero_grad()
            loss.backward()
            steps[step.update.name].step()
            if clip and step.update.name == "critic":
                for parameter in dis.parameters():
                    parameter.data.clamp_(-clip, clip)
            other = "decoder" if step.update.name == "critic" else "critic"
            for key, value in nets[other].named_buffers():  # the engine leaves those of the other player alone
                value.copy_(buffers[other][key])
    return nets


@pytest.mark.parametrize(
    ("system", "optimizer", "clip"),
    [
        (DCGAN(latent_dim=3), lambda p: torch.optim.Adam(p, 2e-4, betas=(0.5, 0.999)), None),
        (WGAN(latent_dim=3, critic_steps=3), lambda p: torch.optim.Adam(p, 5e-5, betas=(0.0, 0.99)), 0.01),
    ],
    ids=["dcgan", "wgan"],
)
def test_training_equals_the_printed_algorithm_in_float64(
    system: System, optimizer: Callable[..., torch.optim.Optimizer], clip: float | None
) -> None:
    from savae_dist.config.schema import OptimizerConfig

    settings = {u.name: OptimizerConfig(**dict(u.optimizer)) for u in system.phases()[0].updates}
    ours, theirs = (SmallRun(system, dtype=torch.float64, optimizers=settings) for _ in range(2))
    start = ours.weights()
    ours.run("gan", 2)
    networks = literal(theirs, optimizer, clip)
    for name in ("decoder", "critic"):
        assert distance(start[name], ours.networks[name].state_dict()) > 1e-5
        assert distance(networks[name].state_dict(), ours.networks[name].state_dict()) < 1e-9, name


def test_adam_without_momentum_is_rmsprop_with_a_bias_correction() -> None:
    """From the same second moment, a step of each is the same."""
    torch.manual_seed(0)
    gradient, moment, step = torch.randn(5).double(), torch.rand(5).double(), 7
    one, other = (nn.Parameter(torch.zeros(5).double()) for _ in range(2))
    adam = torch.optim.Adam([one], 5e-5, betas=(0.0, 0.99))
    rmsprop = torch.optim.RMSprop([other], 5e-5, alpha=0.99)
    correction = 1 - 0.99 ** (step + 1)
    adam.state[one] = {
        "step": torch.tensor(float(step)),
        "exp_avg": torch.zeros(5).double(),
        "exp_avg_sq": moment.clone(),
    }
    rmsprop.state[other] = {"step": torch.tensor(float(step)), "square_avg": moment.clone()}
    one.grad, other.grad = gradient.clone(), gradient.clone()
    adam.step()
    rmsprop.step()
    torch.testing.assert_close(one.data, other.data * correction**0.5, rtol=1e-5, atol=0)


def test_wgan_clips_every_weight_of_the_critic_and_none_of_the_decoder() -> None:
    trainer = SmallRun(WGAN(latent_dim=3))
    trainer.run("gan", 2)
    largest = {name: max(p.abs().max() for p in n.parameters()) for name, n in trainer.networks.items()}
    assert largest["critic"] <= 0.01
    assert largest["decoder"] > 0.01
    assert load(["wgan"]).optimizers["critic"].clip_weights == 0.01
    assert load(["wgan"]).optimizers["decoder"].clip_weights is None


@pytest.mark.parametrize(("system", "critic_steps"), [(DCGAN(), 1), (WGAN(), 5), (LSGAN(), 1)])
def test_the_order_of_the_updates(system: System, critic_steps: int) -> None:
    (phase,) = system.phases()
    assert [step.update.name for step in phase.optimizer_steps()] == ["critic"] * critic_steps + ["decoder"]
    assert len({step.batch for step in phase.optimizer_steps()}) == critic_steps + 1  # each on its own batch


def test_a_set_without_labels_will_do() -> None:
    assert DCGAN().build(replace(IMAGE, classes=0), 4, "batch", 2).keys() == {"decoder", "critic"}


@pytest.mark.parametrize(
    ("key", "value"), [("latent_dim", 0), ("steps", 0), ("critic_steps", 0), ("labels", (1.0, 1.0, 0.0))]
)
def test_impossible_values_name_their_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"system\.{key}"):
        replace(LSGAN(), **{key: value})
