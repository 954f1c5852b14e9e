"""The adversarial autoencoders: who learns by what, the losses in closed form, and codes with a label part."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor

from savae_dist.evaluation import report
from savae_dist.latents import Posterior
from savae_dist.load_config import load
from savae_dist.networks import Encoder, LabelPart
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.posteriors import name_clusters
from savae_dist.preprocess import DataSpec
from savae_dist.systems import AAE, SYSTEMS
from savae_dist.systems.phases import Batch
from savae_dist.testing.small_run import IMAGE, SIGNAL, SmallRun, distance, same
from savae_dist.training.batches import BatchSplit

UNSUPERVISED, SUPERVISED, SEMI = (
    AAE("aae_unsupervised", latent_dim=3, steps=4),
    AAE("aae_supervised", label_to="decoder", latent_dim=3, steps=4),
    AAE("aae_semi_supervised", label_to="code", latent_dim=3, steps=4),
)
TOLD = replace(SUPERVISED, label_to="discriminator", prior="mixture")
CASES = {
    "unsupervised": UNSUPERVISED,
    "mixture": replace(UNSUPERVISED, prior="mixture", prior_modes=3, backbone="conv"),
    "swiss_roll": replace(UNSUPERVISED, prior="swiss_roll", backbone="savae"),
    "clusters": replace(UNSUPERVISED, clusters=6),
    "clusters_norm": replace(UNSUPERVISED, clusters=6, code_norm=True),
    "clusters_conv": replace(UNSUPERVISED, clusters=6, backbone="conv"),
    "decoder": SUPERVISED,
    "decoder_conv": replace(SUPERVISED, backbone="conv"),
    "discriminator": TOLD,
    "discriminator_roll": replace(TOLD, prior="swiss_roll", backbone="savae"),
    "code": SEMI,
    "code_conv": replace(SEMI, backbone="conv", prior_scale=5.0),
    "code_savae": replace(SEMI, backbone="savae"),
}
BOTH = pytest.mark.parametrize("spec", [IMAGE, SIGNAL], ids=["image", "signal"])
ALL = pytest.mark.parametrize("system", CASES.values(), ids=CASES.keys())


def batch_of(trainer: SmallRun, update: str) -> Batch:
    """The first batch of that update, with its noise."""
    (planned,) = [one for one in trainer.plan(trainer.phases["aae"]) if one.step.update.name == update]
    return trainer.batch(planned)


@BOTH
@ALL
def test_each_update_changes_exactly_what_it_trains(system: AAE, spec: DataSpec) -> None:
    """Bit for bit, buffers included; and every parameter that it trains does change."""
    trainer = SmallRun(system, spec)
    updates = trainer.prepare("aae")
    names = [step.update.name for step in trainer.phases["aae"].optimizer_steps()]
    assert names == ["reconstruction", "discriminator", "generator", *(["label"] if system.label_to == "code" else [])]
    assert all(trained in trainer.networks for update in updates.values() for trained in update.update.trains)
    for planned in trainer.plan(trainer.phases["aae"]):
        before = trainer.weights()
        updates[planned.step.update.name].step(planned.step.loss_index, [trainer.batch(planned)], 0)
        changed = {name for name, state in trainer.weights().items() if not same(state, before[name])}
        assert changed == set(planned.step.update.trains)


@ALL
def test_every_parameter_learns(system: AAE) -> None:
    trainer = SmallRun(system)
    before = trainer.weights()
    trainer.run("aae", 4)
    for name, network in trainer.networks.items():
        for key, value in network.named_parameters():
            assert not torch.equal(value, before[name][key]), f"{name}.{key} never moved"
        assert bool(torch.cat([p.flatten() for p in network.parameters()] or [torch.ones(1)]).isfinite().all())


def test_the_generator_reaches_the_encoder_only_through_the_discriminators() -> None:
    """Of the whole code: the encoder's head has a gradient in its style rows and in its label rows."""
    trainer = SmallRun(SEMI)
    trainer.prepare("aae")["generator"].enter()
    terms = trainer.updates["generator"].parallel.forward(batch_of(trainer, "generator"))
    head = trainer.networks["encoder"].layers[-1].weight
    for term, rows, others in (("style", slice(0, 3), slice(3, None)), ("label", slice(3, None), slice(0, 3))):
        (gradient,) = torch.autograd.grad(terms[term], head, retain_graph=True)
        assert gradient[rows].abs().sum() > 0
        assert gradient[others].abs().sum() == 0
    assert all(not p.requires_grad for p in trainer.networks["discriminator"].parameters())


def closed_forms(trainer: SmallRun, update: str) -> dict[str, Tensor]:
    """The terms of an update, written out with log-probabilities."""
    nets, system, batch = trainer.networks, trainer.system, batch_of(trainer, update)
    outputs = nets["encoder"].outputs(batch.x)
    z, logits = outputs[:, :3], outputs[:, 3:]
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    y, labelled = batch.y, batch.y >= 0
    hot = torch.zeros(8, 4, dtype=torch.float64)
    hot[labelled, y[labelled]] = 1
    if update == "reconstruction":
        code = {"decoder": torch.cat([z, hot], 1), "code": torch.cat([z, p], 1)}.get(system.label_to, z)
        x_hat = nets["decoder"](code)
        if system.reconstruction == "bce":
            return {"rec": -(batch.x * x_hat.log() + (1 - batch.x) * (1 - x_hat).log()).mean()}
        return {"rec": (x_hat - batch.x).square().mean()}
    if update == "label":
        return {"cat": -p[labelled].log()[range(int(labelled.sum())), y[labelled]].mean()}
    slot = torch.cat([hot, (~labelled).double().unsqueeze(1)], 1)  # "no label" is the last

    def judged(part: Tensor) -> Tensor:
        return torch.cat([part, slot], 1) if system.label_to == "discriminator" else part

    def probability(name: str, part: Tensor) -> Tensor:
        return torch.sigmoid(nets[name](part))

    terms, infers = {}, system.label_to == "code"
    if update == "generator":
        terms["style"] = -probability("discriminator", judged(z)).log().mean()
        return terms | ({"label": -probability("label_discriminator", p).log().mean()} if infers else {})
    eps = batch.noise["prior"].double()
    real = eps[:, :3] if system.prior == "gaussian" else nets["prior"].style(eps, y)
    terms["style_real"] = -probability("discriminator", judged(real)).log().mean()
    terms["style_generated"] = -(1 - probability("discriminator", judged(z))).log().mean()
    if infers:
        one = torch.eye(4, dtype=torch.float64)[(torch.special.ndtr(eps[:, 4]) * 4).long()]
        terms["label_real"] = -probability("label_discriminator", one).log().mean()
        terms["label_generated"] = -(1 - probability("label_discriminator", p)).log().mean()
    return terms


@pytest.mark.parametrize("system", [UNSUPERVISED, SUPERVISED, TOLD, SEMI, replace(SEMI, reconstruction="bce")])
def test_losses_in_closed_form(system: AAE) -> None:
    trainer = SmallRun(system, dtype=torch.float64)
    for name, update in trainer.prepare("aae").items():
        update.enter()
        terms, expected = update.parallel.forward(batch_of(trainer, name)), closed_forms(trainer, name)
        assert terms.keys() == expected.keys()
        for term, value in expected.items():
            torch.testing.assert_close(terms[term], value, rtol=1e-6, atol=1e-9)  # the noise is float32


def test_the_iteration_written_out() -> None:
    """Three iterations of the semi-supervised member in plain torch give the same weights."""
    ours, literal = (SmallRun(replace(SEMI, backbone="conv"), dtype=torch.float64) for _ in range(2))
    ours.run("aae", 3)
    nets = {name: network.train() for name, network in literal.networks.items()}
    sets = {u.name: [p for t in u.trains for p in nets[t].parameters()] for u in literal.phases["aae"].updates}
    adams = {name: torch.optim.Adam(parameters, 1e-3) for name, parameters in sets.items()}
    for iteration in range(3):
        for planned in literal.plan(literal.phases["aae"], iteration):
            batch = literal.batch(planned)
            encoder, buffers = nets["encoder"], {k: v.clone() for k, v in nets["encoder"].named_buffers()}
            z, logits = encoder.parts(batch.x)
            p, name = logits.softmax(1), planned.step.update.name
            if name == "reconstruction":
                loss = F.mse_loss(nets["decoder"](torch.cat([z, p], 1)), batch.x)
            elif name == "discriminator":
                loss = torch.zeros((), dtype=torch.float64)
                eps = batch.noise["prior"].double()
                one = torch.eye(4, dtype=torch.float64)[(torch.special.ndtr(eps[:, 4]) * 4).long()]
                for net, real, generated in (("discriminator", eps[:, :3], z), ("label_discriminator", one, p)):
                    loss = loss + F.softplus(-nets[net](real)).mean() + F.softplus(nets[net](generated.detach())).mean()
                for key, value in encoder.named_buffers():  # the encoder is not trained here: its buffers stay
                    value.copy_(buffers[key])
            elif name == "generator":
                loss = F.softplus(-nets["discriminator"](z)).mean() + F.softplus(-nets["label_discriminator"](p)).mean()
            else:
                loss = F.cross_entropy(logits[batch.y >= 0], batch.y[batch.y >= 0])
            for network in nets.values():
                network.zero_grad()
            loss.backward()
            adams[name].step()
    for name in nets:
        assert distance(nets[name].state_dict(), ours.networks[name].state_dict()) < 1e-7, name


@pytest.mark.parametrize("system", [SEMI, TOLD, replace(UNSUPERVISED, clusters=5)], ids=["code", "told", "clusters"])
def test_accumulation_changes_nothing(system: AAE) -> None:
    whole, parts = (
        SmallRun(system, norm="group", dtype=torch.float64, split=BatchSplit(8, accumulate=n)) for n in (1, 4)
    )
    for trainer in (whole, parts):
        trainer.run("aae", 3)
    for name in whole.networks:
        assert distance(whole.networks[name].state_dict(), parts.networks[name].state_dict()) < 1e-7, name


@pytest.mark.parametrize("system", [SEMI, TOLD, SUPERVISED])
def test_batches_without_a_label_train_too(system: AAE) -> None:
    trainer = SmallRun(system)
    trainer.data.y[:] = -1
    trainer.run("aae", 2)
    assert all(bool(v.isfinite().all()) for state in trainer.weights().values() for v in state.values())


@pytest.mark.parametrize(
    ("system", "values", "words"),
    [
        (UNSUPERVISED, {"label_to": "code"}, r"system\.label_to=code: the labels of aae_unsupervised go to nothing"),
        (SEMI, {"label_to": "decoder"}, r"system\.label_to=decoder"),
        (SUPERVISED, {"label_to": "discriminator"}, r"system\.prior=gaussian has no modes"),
        (SEMI, {"clusters": 8}, r"system\.clusters=8"),
        (UNSUPERVISED, {"clusters": 1}, r"system\.clusters=1"),
        (UNSUPERVISED, {"latent_dim": 0}, r"system\.latent_dim"),
        (UNSUPERVISED, {"latent_dim": 1, "prior": "swiss_roll"}, r"system\.latent_dim must be at least 2"),
        (UNSUPERVISED, {"prior_modes": 0}, r"system\.prior_modes"),
        (UNSUPERVISED, {"prior_scale": 0.0}, r"system\.prior_scale"),
        (UNSUPERVISED, {"steps": -1}, r"system\.steps"),
    ],
)
def test_impossible_values_name_their_key(system: AAE, values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(system, **values)


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="needs labels"):
        SEMI.build(replace(IMAGE, classes=0), 4, "batch", 2)
    with pytest.raises(ValueError, match=r"networks\.norm=group"):
        replace(UNSUPERVISED, code_norm=True).build(IMAGE, 4, "group", 2)
    with pytest.raises(ValueError, match="mse for signals"):
        replace(SEMI, reconstruction="bce").build(SIGNAL, 4, "batch", 2)
    networks = replace(UNSUPERVISED, clusters=5).build(replace(IMAGE, classes=0), 4, "batch", 2)
    assert "classifier" not in networks  # no labels, no classes of clusters


def test_members_have_their_defaults_and_the_sizes_of_the_paper() -> None:
    for name, system in SYSTEMS.items():
        assert OmegaConf.structured(system).name == name
    assert load(["system.name=aae_supervised"]).system == AAE("aae_supervised", label_to="decoder", latent_dim=15)
    assert load(["system.name=aae_semi_supervised", "system.prior_scale=2"]).system.prior_scale == 2
    networks = SYSTEMS["aae_semi_supervised"].build(DataSpec("image", (1, 28, 28), 10, "unit"), 16, "batch", 2)
    sizes = {
        n: [m.out_features for m in net.modules() if isinstance(m, torch.nn.Linear)] for n, net in networks.items()
    }
    assert sizes["encoder"] == [1000, 1000, 20]
    assert sizes["decoder"] == [1000, 1000, 784]
    assert sizes["discriminator"] == sizes["label_discriminator"] == [1000, 1000, 1]


def test_the_convolutional_variant_is_all_convolutional() -> None:
    networks = replace(SEMI, backbone="conv").build(DataSpec("image", (1, 28, 28), 10, "unit"), 4, "batch", 2)
    for name in ("encoder", "decoder"):
        kinds = {type(m).__name__ for m in networks[name].modules() if not list(m.children())}
        assert kinds <= {"Conv2d", "ConvTranspose2d", "BatchNorm2d", "Identity"}
        assert "BatchNorm2d" in kinds


class Reads(Encoder):
    """The sample's first elements are its code."""

    def forward(self, x: Tensor) -> tuple[Posterior, list[Tensor]]:
        return Posterior.point(x.flatten(1)[:, :4]), []


def test_clusters_take_the_class_of_their_surest_labelled_sample() -> None:
    """Not that of the majority: cluster 0 has two samples of class 1, and a surer one of class 2."""
    codes = [
        ([0, 0.7, 0.2, 0.1], 1),
        ([0, 0.8, 0.1, 0.1], 1),
        ([0, 0.9, 0.1, 0.0], 2),
        ([0, 0.99, 0.01, 0.0], -1),  # surest of all, and unlabelled
        ([0, 0.1, 0.6, 0.3], 0),
        ([0, 0.0, 0.5, 0.5], 3),
    ]
    x, y = torch.tensor([code for code, _ in codes]).view(-1, 1, 2, 2), torch.tensor([label for _, label in codes])
    classifier = LabelPart(1, 3, 4, clusters=True)
    for batches in ([(x, y)], [(x[:2], y[:2]), (x[2:4], y[2:4]), (x[4:], y[4:])]):
        named = name_clusters(Reads(), classifier, batches)
        assert named.class_of.tolist() == [2, 0, 3]
    assert classifier.class_of.tolist() == [0, 1, 2]
    assert name_clusters(Reads(), named, [(x, torch.full((6,), -1))]).class_of.tolist() == [2, 0, 3]  # nothing to learn
    spec = DataSpec("image", (1, 2, 2), 4, "unit")
    pipeline = Pipeline({"encoder": Reads(), "classifier": named}, spec)
    found = report.evaluate(pipeline, [(x, y)])
    assert found["cluster_error"] == pytest.approx(
        3 / 5
    )  # the two of class 1, and the last: a tie between its clusters' classes
    assert found["accuracy"] == pytest.approx(2 / 5)
    assert found["kl"] is None
