"""Keys that have no effect in the given combination are refused, each by what its field says that it needs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
from helpers.contract import OPTIONS, make

from savae_dist.config.arguments import PRESET_FOLDERS
from savae_dist.config.effect import NEEDS, needs, refuse_without_effect, without_effect
from savae_dist.config.identity import to_yaml
from savae_dist.config.schema import DataConfig, OptimizerConfig, RunConfig
from savae_dist.data import pack
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.sets import open_shards
from savae_dist.systems import SAVAE, SYSTEMS

PRESETS = sorted(path.stem for path in PRESET_FOLDERS[0].glob("*.yaml"))
# The class and the field that has a need; arguments under which it has no effect; those that are added so that it has.
RULES = [
    ("OptimizerConfig.betas", "optimizers.vec.betas=[0.5,0.9] optimizers.vec.name=sgd", "optimizers.vec.name=adamw"),
    ("OptimizerConfig.momentum", "optimizers.critic.momentum=0.9", "optimizers.critic.name=sgd"),
    ("OptimizerConfig.decay_every", "optimizers.critic.decay_every=10", "optimizers.critic.schedule=step"),
    ("OptimizerConfig.decay_factor", "optimizers.critic.decay_factor=0.1", "optimizers.critic.schedule=step"),
    ("SAVAE.unlabelled_weight", "system.unlabelled_weight=2", "system.unlabelled=entropy"),
    ("SAVAE.critic_label", "system.critic_label=2 system.adversarial=wasserstein", "system.adversarial=hinge"),
    ("SAVAE.penalty_weight", "system.penalty_weight=2", "system.critic_regulariser=gradient_penalty"),
    ("AAE.prior_modes", "system.name=aae_unsupervised system.prior_modes=4", "system.prior=mixture"),
    (
        "AAE.prior_modes",
        "system.name=aae_supervised system.prior_modes=4 system.prior=mixture system.label_to=discriminator",
        "system.label_to=decoder",
    ),
    ("AVA.lean", "system.name=ava3 system.lean=none", "system.name=ava5"),
    (
        "DFCVAE.feature_input",
        "system.name=dfc_vae system.feature_input=torchvision system.feature_network=runs/mnist_k100",
        "system.feature_network=weights/vgg19.safetensors",
    ),
    ("DFCVAE.label_value", "system.name=dfc_vae system.label_value=5", "system.adversarial=squared"),
    ("DFCVAE.critic_steps", "system.name=dfc_vae system.critic_steps=2", "system.adversarial=wasserstein"),
    ("DFCVAE.r1_weight", "system.name=dfc_vae system.r1_weight=2", "system.adversarial=wasserstein"),
    ("DFCVAE.batches", "system.name=dfc_vae system.batches=fresh", "system.adversarial=wasserstein"),
]


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(arguments)
    assert caught.value.code == 2
    return str(caught.value)


@pytest.mark.parametrize(("field", "without", "within"), RULES)
def test_each_rule(field: str, without: str, within: str) -> None:
    told = refusal(*without.split())
    key = field.rpartition(".")[2]
    assert f".{key}=" in told.split(" has no effect with ")[0]
    assert ": leave it out, or set " in told
    assert load([*without.split(), *within.split()])  # of a key that is given twice the last value counts


def test_every_need_that_a_field_states_has_its_row() -> None:
    sections = [type(value) for value in vars(RunConfig()).values()]
    classes = {OptimizerConfig, *sections, *map(type, SYSTEMS.values())} - {
        type(None),
        dict,
        list,
        int,
        float,
        bool,
        str,
    }
    stated = {f"{one.__name__}.{key.name}" for one in classes for key in fields(one) if NEEDS in key.metadata}
    assert {field for field, _, _ in RULES} == stated


def test_the_sentence() -> None:
    assert refusal("optimizers.critic.momentum=0.9") == (
        "optimizers.critic.momentum=0.9 has no effect with name=adam: leave it out, or set optimizers.critic.name=sgd"
    )
    assert refusal("optimizers.vec.name=sgd", "optimizers.vec.betas=[0.5,0.9]") == (
        "optimizers.vec.betas=[0.5,0.9] has no effect with name=sgd: leave it out, "
        "or set optimizers.vec.name=adam or adamw"
    )


def test_a_file_is_refused_as_the_command_line_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optimizers: {default: {decay_every: 5}}\n")
    assert "optimizers.default.decay_every=5 has no effect with schedule=constant" in refusal(str(path))
    assert load([str(path), "optimizers.default.schedule=step"]).optimizers["vec"].decay_every == 5


def test_for_all_updates_it_is_enough_that_one_can_use_it(tmp_path: Path) -> None:
    """The others keep their default, so that the resolved configuration loads."""
    refusal("optimizers.default.momentum=0.9")
    config = load(["mnist_k2", "optimizers.default.momentum=0.9", "optimizers.vec.name=sgd"])
    assert [config.optimizers[name].momentum for name in ("vec", "critic", "decoder")] == [0.9, 0.0, 0.0]
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load([str(path)]) == config


def test_what_the_system_says_of_an_update_is_no_key_of_the_user_s(tmp_path: Path) -> None:
    """DCGAN's betas, under another optimiser."""
    config = load(["dcgan", "optimizers.default.name=sgd", "optimizers.critic.momentum=0.5"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load([str(path)]) == config


def test_a_default_that_reaches_no_update_is_refused(tmp_path: Path) -> None:
    told = (
        "optimizers.default.lr=0.1 has no effect where every update has its own: leave it out, "
        "or set optimizers.critic.lr"
    )
    assert refusal("system.name=wgan", "optimizers.default.lr=0.1") == told
    assert refusal("dcgan", "optimizers.default.lr=0.1") == told  # the preset has the decoder's
    assert load(["system.name=savae", "optimizers.default.lr=0.1"]).optimizers["critic"].lr == 1e-4
    path = tmp_path / "mine.yaml"
    path.write_text("system: {name: vae}\noptimizers: {default: {lr: 0.1}}\n")
    assert load([str(path), "optimizers.vae.lr=0.2"]).optimizers["vae"].lr == 0.2  # over the file's


def test_a_weight_or_a_number_of_steps_of_0_rules_nothing_out() -> None:
    """A sweep may go through 0."""
    config = load(["system.beta=0", "system.adversarial=hinge", "system.critic_label=2", "optimizers.critic.lr=0.1"])
    assert config.system.beta == 0
    assert load(["savae_100_labels", "system.decoder_steps=0", "system.gamma=0.5"]).system.gamma == 0.5


def test_the_default_may_be_said() -> None:
    told = ["optimizers.critic.momentum=0", "system.penalty_weight=10", "optimizers.default.decay_every=1000"]
    assert to_yaml(load(["demo", *told])) == to_yaml(load(["demo"]))


@pytest.mark.parametrize("preset", PRESETS)
def test_no_preset_has_a_key_without_effect(preset: str) -> None:
    assert load([preset]).output == f"runs/{preset}"


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_option_that_changes_what_is_computed_is_refused(name: str) -> None:
    for row in range(len(OPTIONS[name])):
        refuse_without_effect("system", make(name, row), SYSTEMS[name])
    assert all(unmet.key not in OPTIONS[name][0] for unmet in without_effect(SYSTEMS[name]))


def test_the_normalisation_of_images_is_refused_with_the_shards(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.normalise=dataset has no effect on images, .*: leave it out$"):
        open_shards(DataConfig(normalise="dataset"))
    assert open_shards(DataConfig())[0].spec.kind == "image"
    pack(
        np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32), np.zeros(20, np.int64), tmp_path, rate=100.0
    )
    assert open_shards(DataConfig(train=str(tmp_path), normalise="dataset"))[0].spec.normalise == "dataset"


def test_several_needs_are_all_to_be_met() -> None:
    @dataclass
    class Lamp:
        power: str = "off"
        bulb: str = "none"
        colour: str = needs("white", power=("on",), bulb=("*led",))

    assert [unmet.other for unmet in without_effect(Lamp(bulb="led"))] == ["power"]
    assert [unmet.other for unmet in without_effect(Lamp("on"))] == ["bulb"]
    assert not list(without_effect(Lamp("on", "small led")))
    with pytest.raises(ConfigError, match=r"lamp\.colour=red has no effect with power=off: leave it out, or set"):
        refuse_without_effect("lamp", Lamp(colour="red"), Lamp())


@pytest.mark.parametrize("choice", ["constant", "cosine", "step"])
@pytest.mark.parametrize("preset", ["vae_wgan", "vae_wgan_mnist", "dfc_vae", "dfc_vae_mnist"])
def test_the_command_line_may_overrule_the_choice_of_a_preset(preset: str, choice: str) -> None:
    """What the preset set for the other choice goes unnoticed: the user cannot leave out what the preset says."""
    config = load([preset, f"optimizers.default.schedule={choice}"])
    usual = OptimizerConfig().decay_every
    assert {one.schedule for one in config.optimizers.values()} == {choice}
    assert all((one.decay_every == usual) == (choice != "step") for one in config.optimizers.values())


def test_the_command_line_may_overrule_the_choice_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "system: {name: savae, critic_regulariser: gradient_penalty, penalty_weight: 3}\n"
        "optimizers:\n  default: {name: sgd, momentum: 0.9}\n  vec: {schedule: step, decay_every: 7}\n"
    )
    assert load([str(file)]).optimizers["vec"].decay_every == 7
    other = ["optimizers.default.name=adam", "optimizers.vec.schedule=cosine", "system.critic_regulariser=none"]
    config = load([str(file), *other])
    assert config.optimizers["critic"].momentum == 0
    assert config.optimizers["vec"].decay_every == OptimizerConfig().decay_every
    assert config.system.penalty_weight == SAVAE().penalty_weight
    with pytest.raises(ConfigError, match=r"optimizers\.vec\.decay_every=5 has no effect with schedule=cosine"):
        load([str(file), *other, "optimizers.vec.decay_every=5"])


def test_the_advice_names_the_section_that_made_the_choice() -> None:
    with pytest.raises(ConfigError, match=r"or set optimizers\.decoder\.name=adam or adamw$"):
        load(["system.name=wgan", "optimizers.decoder.name=sgd", "optimizers.default.betas=[0.5,0.9]"])
