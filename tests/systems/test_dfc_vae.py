"""DFC-VAE and VAE-WGAN: Hou's equations by hand, Algorithm 1's critic, the calibration, and what a checkpoint keeps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.features import saved, vgg19, vgg19_weights
from helpers.launching import SMALL as RUN
from helpers.launching import cut, shards, status, train, weights
from safetensors.torch import load_file, save_file
from torch import Tensor

from savae_dist.config.schema import OptimizerConfig
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.networks import ConvEncoder, HouEncoder, Network
from savae_dist.preprocess import DataSpec
from savae_dist.systems import DFCVAE
from savae_dist.systems.phases import Batch
from savae_dist.testing.small_run import IMAGE, SIGNAL, Samples, SmallRun, distance, same
from savae_dist.train import main
from savae_dist.training.batches import BatchSplit, training_plan

OPTIONS = [
    {},
    {"backbone": "savae", "alpha": 0.0},
    {"adversarial": "wasserstein"},
    {"adversarial": "squared", "feature_scale": "calibrated"},
    {"adversarial": "wasserstein", "critic_steps": 2, "batches": "fresh"},
    {"adversarial": "wasserstein", "beta": 0.0},
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A VGG-19 of width 4, and trained encoders (in name) of images and signals."""
    folder = tmp_path_factory.mktemp("features")
    save_file(vgg19_weights(), folder / "vgg19.safetensors")
    torch.manual_seed(1)
    found = {"vgg": str(folder / "vgg19.safetensors")}
    for spec in (IMAGE, SIGNAL):
        found[spec.kind] = saved(ConvEncoder(spec.shape, 2, width=4), spec, folder / spec.kind)
    return found


def trainer_of(
    source: str, spec: DataSpec = IMAGE, options: dict[str, object] | None = None, **more: object
) -> SmallRun:
    system = DFCVAE(latent_dim=3, steps=3, feature_network=source)
    return SmallRun(replace(system, **(options or {})), spec, **more)


def batch_of(trainer: SmallRun, number: int = 0) -> Batch:
    planned = trainer.plan(trainer.phases["vae"])[number]
    return trainer.batch(planned)


def x_hat_of(trainer: SmallRun, batch: Batch) -> Tensor:
    (mean, log_variance), _ = trainer.networks["encoder"](batch.x)
    return trainer.networks["decoder"](mean + (0.5 * log_variance).exp() * batch.noise["z"])


def grey_vgg19(x: Tensor, last: int) -> dict[str, Tensor]:
    tensors = {name: value.to(x.dtype) for name, value in vgg19_weights().items()}
    return vgg19(x.expand(-1, 3, -1, -1), tensors, "caffe", last)


@pytest.mark.parametrize("source", ["vgg", "image", "signal"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())) or "default")
def test_each_update_changes_exactly_what_it_trains(
    options: dict[str, object], source: str, sources: dict[str, str]
) -> None:
    """Bit for bit, buffers included; the feature network never, though gradients pass through it."""
    trainer = trainer_of(sources[source], SIGNAL if source == "signal" else IMAGE, options)
    start_weights = trainer.weights()
    phase, updates = trainer.phases["vae"], trainer.prepare("vae")
    for planned in trainer.plan(phase):
        before = trainer.weights()
        batch = trainer.batch(planned)
        updates[planned.step.update.name].step(planned.step.loss_index, [batch], 0)
        changed = {name for name, state in trainer.weights().items() if not same(state, before[name])}
        assert changed == set(planned.step.update.trains)
    trained = {name for update in phase.updates for name in update.trains}
    assert trainer.networks.keys() - trained == {"features", "tap_weights"}
    for name in trained:
        for key, value in trainer.networks[name].named_parameters():
            assert not torch.equal(value, start_weights[name][key]), f"{name}.{key} never moved"
    assert not any(p.requires_grad for p in trainer.networks["features"].parameters())
    wrapped = {id(p) for update in updates.values() for p in update.parameters.values()}
    assert not wrapped & {id(p) for p in trainer.networks["features"].parameters()}


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.5), (0.01, 1.0)])
def test_equations_5_to_7_in_float64(alpha: float, beta: float, sources: dict[str, str]) -> None:
    """On one-channel images, which VGG-19 sees as grey ones; C is each tap's number of filters."""
    trainer = trainer_of(sources["vgg"], options={"alpha": alpha, "beta": beta}, dtype=torch.float64)
    batch = batch_of(trainer)
    nets = SimpleNamespace(**trainer.networks)
    terms = trainer.system.vae_loss(nets, batch)

    (mean, log_variance), _ = nets.encoder(batch.x)
    x_hat = x_hat_of(trainer, batch)
    sizes = {"relu1_1": 4, "relu2_1": 8, "relu3_1": 16, "relu4_1": 32, "relu5_1": 32}
    expected = torch.zeros((), dtype=torch.float64)
    for name, channels in sizes.items():
        if name == "relu5_1":  # here of a 1x1 input, which a plain VGG-19 would pool to nothing
            phi, phi_hat = (nets.features(x, (name,))[name] for x in (batch.x, x_hat))
        else:
            phi, phi_hat = (grey_vgg19(x, last=19)[name] for x in (batch.x, x_hat))
        c, h, w = phi.shape[1:]
        assert c == channels
        layer = (phi - phi_hat).square().sum((1, 2, 3)) / (2 * c * w * h)  # eq 5
        expected = expected + 100 / c**2 * layer.mean()  # eq 6
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()
    torch.testing.assert_close(terms, {"kl": alpha * kl, "rec": beta * expected}, rtol=1e-6, atol=1e-8)


def test_single_layers(sources: dict[str, str]) -> None:
    """Section 4.2.3: one tap; and only what is asked for counts."""
    every = trainer_of(sources["image"], dtype=torch.float64)
    single = [trainer_of(sources["image"], options={"layers": (f"stage{i}",)}, dtype=torch.float64) for i in (1, 2, 3)]
    losses = [t.system.vae_loss(SimpleNamespace(**t.networks), batch_of(t))["rec"] for t in (every, *single)]
    torch.testing.assert_close(losses[0], torch.stack(losses[1:]).sum())
    for layers in (("stage9",), ("stage1", "stage1")):
        with pytest.raises(ConfigError, match=r"system\.layers.*of stage1, stage2, stage3"):
            trainer_of(sources["image"], options={"layers": layers})


@pytest.mark.parametrize("label", [10.0, 1.0])
@pytest.mark.parametrize("form", ["wasserstein", "squared"])
def test_the_labels_of_the_critic_in_float64(form: str, label: float, sources: dict[str, str]) -> None:
    """The critic's loss and, against it, the decoder's, on the features of the first tap."""
    options = {"adversarial": form, "label_value": label}
    trainer = trainer_of(sources["vgg"], options=options, dtype=torch.float64)
    nets, batch = SimpleNamespace(**trainer.networks), batch_of(trainer)
    real, fake = (nets.critic(grey_vgg19(x, last=1)["relu1_1"]) for x in (batch.x, x_hat_of(trainer, batch)))
    if form == "wasserstein":
        critic, decoder = label * (fake.mean() - real.mean()), -label * fake.mean()
    else:
        critic = ((real - label) ** 2).mean() + ((fake + label) ** 2).mean()
        decoder = ((fake - label) ** 2).mean()
    terms = trainer.system.critic_loss(nets, batch)
    torch.testing.assert_close(sum(terms.values()), critic, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(trainer.system.vae_loss(nets, batch)["adv"], decoder, rtol=1e-6, atol=1e-6)


def test_the_decoder_raises_the_score_that_the_critic_lowers(sources: dict[str, str]) -> None:
    """Eq 8 and Algorithm 1 disagree in sign; they must play against each other."""
    trainer = trainer_of(sources["image"], options={"adversarial": "wasserstein"}, dtype=torch.float64)
    nets, batch = SimpleNamespace(**trainer.networks), batch_of(trainer)
    score = nets.critic(nets.features(x_hat_of(trainer, batch), ("stage1",))["stage1"]).mean()
    parameters = list(nets.decoder.parameters())
    rising = torch.autograd.grad(score, parameters, retain_graph=True)
    loss = trainer.system.vae_loss(nets, batch)["adv"]
    falling = torch.autograd.grad(loss, parameters)
    pairs = list(zip(rising, falling, strict=True))
    assert all(torch.allclose(-10 * up, down, atol=1e-12) for up, down in pairs)
    lowered = trainer.system.critic_loss(nets, batch)["generated"]
    torch.testing.assert_close(lowered, 10 * score)


@pytest.mark.parametrize("clip", ["weights", "gradients"])
def test_weights_are_clipped_and_not_gradients_unless_asked(clip: str, sources: dict[str, str]) -> None:
    """One step of plain gradient descent by hand, in float64."""
    config = OptimizerConfig("sgd", lr=0.1, **({"clip_weights": 0.01} if clip == "weights" else {"clip_value": 0.01}))
    trainer = trainer_of(
        sources["image"], options={"adversarial": "wasserstein"}, dtype=torch.float64, optimizers={"critic": config}
    )
    trainer.prepare("vae")
    nets, batch = SimpleNamespace(**trainer.networks), batch_of(trainer, 1)
    start = {k: v.detach().clone() for k, v in nets.critic.named_parameters()}
    trainer.updates["critic"].enter()
    loss = sum(trainer.system.critic_loss(nets, batch).values())
    gradients = dict(zip(start, torch.autograd.grad(loss, nets.critic.parameters()), strict=True))
    assert max(g.abs().max() for g in gradients.values()) > 0.02
    trainer.updates["critic"].step(0, [batch], 0)
    for name, value in nets.critic.named_parameters():
        if clip == "weights":
            expected = (start[name] - 0.1 * gradients[name]).clamp(-0.01, 0.01)
        else:
            expected = start[name] - 0.1 * gradients[name].clamp(-0.01, 0.01)
        torch.testing.assert_close(value.detach(), expected)


def test_the_defaults_of_algorithm_1() -> None:
    config = load(["system.name=vae_wgan", "data.batch_size=64"])
    assert config.system == DFCVAE("vae_wgan", adversarial="wasserstein")
    assert (config.system.alpha, config.system.beta, config.system.label_value) == (1.0, 0.5, 10.0)
    assert (config.optimizers["vae"].lr, config.optimizers["vae"].clip_weights) == (5e-4, None)
    assert (config.optimizers["critic"].lr, config.optimizers["critic"].clip_weights) == (5e-4, 0.01)
    text = load(["system.name=vae_wgan", "optimizers.critic.clip_weights=null", "optimizers.critic.clip_value=0.01"])
    assert (text.optimizers["critic"].clip_weights, text.optimizers["critic"].clip_value) == (None, 0.01)
    (phase,) = config.system.phases()
    assert [(u.name, u.trains) for u in phase.updates] == [("vae", ("encoder", "decoder")), ("critic", ("critic",))]
    plan = training_plan(phase, BatchSplit(64), first=3, last=4, origin=0)
    assert {planned.position for planned in plan} == {3 * 64}  # one batch for the iteration
    assert load(["system.name=dfc_vae"]).system == DFCVAE()
    assert [u.name for u in DFCVAE().phases()[0].updates] == ["vae"]


@pytest.mark.parametrize("source", ["vgg", "image", "signal"])
@pytest.mark.parametrize("beta", [0.5, 3.0])
def test_the_mean_image_costs_100_nats(beta: float, source: str, sources: dict[str, str]) -> None:
    """Exactly on the data of the calibration; and each tap counts by its variance over the samples."""
    spec = SIGNAL if source == "signal" else IMAGE
    options = {"feature_scale": "calibrated", "beta": beta}
    trainer = trainer_of(sources[source], spec, options, dtype=torch.float64)
    nets = SimpleNamespace(**{name: network.eval() for name, network in trainer.networks.items()})
    x = Samples(spec, n=48, dtype=torch.float64).x
    with torch.no_grad():
        trainer.phases["vae"].prepare(nets, iter(x.split(16)))
        features, of_mean = (nets.features(v, nets.features.taps) for v in (x, x.mean(0, keepdim=True)))
        each = torch.stack([0.5 * (features[k] - of_mean[k]).square().mean() for k in features])
        variances = torch.stack([f.var(0, correction=0).mean() for f in features.values()])
    assert float(beta * (nets.tap_weights() * each).sum()) == pytest.approx(100, rel=1e-9)
    ratios = nets.tap_weights() * variances
    torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


def test_a_tap_that_never_changes_is_named(sources: dict[str, str]) -> None:
    trainer = trainer_of(sources["image"], options={"feature_scale": "calibrated"})
    nets = SimpleNamespace(**trainer.networks)
    with torch.no_grad(), pytest.raises(ConfigError, match=r"system\.layers: stage1 is the same for all"):
        trainer.phases["vae"].prepare(nets, iter([torch.zeros(4, *IMAGE.shape)]))


def test_only_a_calibrated_loss_is_calibrated(sources: dict[str, str]) -> None:
    for options in ({}, {"feature_scale": "calibrated", "beta": 0.0, "adversarial": "wasserstein"}):
        assert trainer_of(sources["image"], options=options).phases["vae"].prepare is None


def test_accumulation_changes_nothing(sources: dict[str, str]) -> None:
    """Under plain gradient descent; Adam makes large steps of gradients that are all rounding."""
    options = {"adversarial": "wasserstein", "critic_steps": 2}
    sgd = {name: OptimizerConfig("sgd", lr=1e-3) for name in ("vae", "critic")}
    whole, parts = (
        trainer_of(
            sources["image"],
            options=options,
            norm="group",
            dtype=torch.float64,
            optimizers=sgd,
            split=BatchSplit(8, accumulate=accumulate),
        )
        for accumulate in (1, 4)
    )
    start = whole.weights()
    whole.run("vae", 3), parts.run("vae", 3)
    for name in ("encoder", "decoder", "critic"):
        assert distance(whole.networks[name].state_dict(), start[name]) > 1e-4
        assert distance(whole.networks[name].state_dict(), parts.networks[name].state_dict()) < 1e-10, name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"latent_dim": 0}, r"system\.latent_dim"),
        ({"beta": -1.0}, r"system\.beta"),
        ({"beta": 0.0}, "would have no loss"),
        ({"adversarial": "squared", "label_value": 0.0}, r"system\.label_value"),
    ],
)
def test_impossible_values_name_their_key(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DFCVAE(**options)


# Runs.

STEPS = ["system.name=vae_wgan", "system.feature_scale=calibrated", "system.steps=6", "checkpoint_every=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run on images of 12x12, and its arguments but for `output`."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(2)
    network = HouEncoder((1, 12, 12), 2, width=4)
    features = saved(network, DataSpec("image", (1, 12, 12), 4, "unit"), folder / "features")
    arguments = [*RUN, *STEPS, f"data.train={shards(folder / 'shards')}", f"system.feature_network={features}"]
    assert main([*arguments, f"output={folder / 'whole'}", "keep_checkpoints=9"]) == 0
    return folder / "whole", arguments


def test_a_checkpoint_has_the_feature_network_s_digest_only(run: tuple[Path, list[str]]) -> None:
    folder, arguments = run
    (end,) = (folder / "checkpoints").glob("step-00000006")
    assert sorted(p.name for p in (end / "networks").iterdir()) == ["critic", "decoder", "encoder", "tap_weights"]
    stored = json.loads((end / "state.json").read_text())["features"]["features"]
    config = load([*arguments, f"output={folder}"])
    assert stored == config.system.build(DataSpec("image", (1, 12, 12), 4, "unit"), 4, "batch", 2)["features"].digest()
    calibrated = load_file(end / "networks" / "tap_weights" / "model.safetensors")["weight"]
    assert not torch.allclose(calibrated, torch.tensor([100 / c**2 for c in (4, 8, 16, 32)]))
    assert sorted(p.name for p in (folder / "pipeline").iterdir() if p.is_dir()) == ["decoder", "encoder"]


@pytest.mark.parametrize("step", [2, 4])
def test_going_on_is_exact(
    step: int, run: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the calibration that the checkpoint has; it is not done again."""
    folder, arguments = run
    monkeypatch.setattr(DFCVAE, "calibrate", lambda *_: pytest.fail("calibrated again"))
    cut(folder, tmp_path / "run", step)
    assert main([*arguments, f"output={tmp_path / 'run'}", "keep_checkpoints=9"]) == 0
    resumed, whole = weights(tmp_path / "run"), weights(folder)
    assert resumed.keys() == whole.keys()
    assert all((resumed[k] == whole[k]).all() for k in whole)


def test_other_features_are_refused(
    run: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same path with other weights behind it."""
    folder, arguments = run
    source = Path(next(a for a in arguments if a.startswith("system.feature_network=")).partition("=")[2])
    kept = source.with_name("kept")
    shutil.copytree(source, kept)
    shutil.copytree(folder, tmp_path / "run")
    network = Network.from_pretrained(source / "encoder")
    with torch.no_grad():
        next(network.parameters()).add_(0.1)
    try:
        network.save_pretrained(source / "encoder")
        assert main([*arguments, f"output={tmp_path / 'run'}"]) == 76
    finally:
        shutil.rmtree(source)
        kept.rename(source)
    assert "sha256 of features" in capsys.readouterr().err
    assert status(folder)["outcome"] == "done"


@pytest.mark.distributed
def test_two_processes_calibrate_as_one(run: tuple[Path, list[str]], tmp_path: Path) -> None:
    """And train as one: the weights differ by rounding, the calibration not at all.

    On SAVAE's networks: Hou's begin with 1x1 here, where a group of a group norm is two numbers, a sign.
    """
    _, arguments = run
    more = [
        "networks.norm=group",
        "system.backbone=savae",
        *(f"optimizers.{name}.name=sgd" for name in ("vae", "critic")),
    ]
    more += [f"optimizers.{name}.lr=1e-5" for name in ("vae", "critic")]
    for processes in (1, 2):
        done = train(processes, *arguments, *more, "data.lanes=8", f"output={tmp_path / str(processes)}")
        assert done.returncode == 0, done.stderr
    one, two = (weights(tmp_path / str(n)) for n in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        if "tap_weights" in name:
            assert (value == two[name]).all()
        assert abs(value - two[name]).max(initial=0) < 1e-6, name
