"""Configuration: precedence, errors in one line, the resolved YAML, and where a run goes."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from savae_dist.config import arguments as module
from savae_dist.config.arguments import read_yaml
from savae_dist.config.identity import FREE_KEYS, NEVER, as_dict, digest, identity, plain, to_yaml, without_it
from savae_dist.config.nearest import nearest
from savae_dist.config.schema import OptimizerConfig
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.systems import SYSTEMS, VAE
from savae_dist.systems.phases import Phase
from savae_dist.train import main


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(arguments)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    assert caught.value.code == 2
    return message


# Values and their order of precedence.


def test_no_argument_is_the_demo_preset() -> None:
    """As the preset says of itself."""
    assert to_yaml(load([])) == to_yaml(load(["demo"]))


def test_defaults_of_a_file_that_says_nothing(tmp_path: Path) -> None:
    config = load([write(tmp_path / "empty.yaml", "")])
    assert config.system.name == "savae"
    assert (config.system.latent_dim, config.networks.width, config.data.batch_size) == ("auto", 16, 128)
    assert config.data.train is None
    assert config.data.lanes == "auto"
    assert (config.precision, config.resume, config.max_steps) == ("fp32", "auto", None)
    assert set(config.optimizers) == {"vec", "critic", "decoder"}


def test_defaults_below_the_file_below_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", "seed: 5\nnetworks: {width: 9}\nsystem: {beta: 0.5}\n")
    config = load([path, "networks.width=4", "system.gamma=0"])
    assert (config.seed, config.networks.width, config.networks.pools) == (5, 4, "auto")
    assert (config.system.beta, config.system.gamma) == (0.5, 0.0)


def test_the_command_line_may_come_first_and_the_last_word_counts() -> None:
    config = load(["seed=1", "demo", "seed=2"])
    assert (config.seed, config.networks.width) == (2, 8)


def test_a_pattern_that_the_shell_has_expanded_is_refused() -> None:
    """Of a key that is given twice the last word counts: the run would silently train on one shard."""
    expanded = [f"data.train=s3://bucket/shard-{n}.tar" for n in range(3)]
    with pytest.raises(ConfigError, match=r"data\.train names 3 tars: a pattern needs quotes"):
        load(expanded)
    assert load(["data.train=elsewhere", expanded[0]]).data.train == "s3://bucket/shard-0.tar"


def test_a_preset_is_its_file() -> None:
    path = module.PRESET_FOLDERS[0] / "mnist_k100.yaml"
    assert to_yaml(load(["mnist_k100"])) == to_yaml(load([str(path)]))


def test_presets_of_an_installed_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / "own.yaml", "seed: 8\n")
    monkeypatch.setattr(module, "PRESET_FOLDERS", (tmp_path / "missing", tmp_path))
    assert load(["own"]).seed == 8


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("data.train=[a,b]", "data.train", ["a", "b"]),
        ("data.train=shards-{000000..000009}.tar", "data.train", "shards-{000000..000009}.tar"),
        ("data.lanes=4", "data.lanes", 4),
        ("data.lanes=auto", "data.lanes", "auto"),
        ("max_steps=null", "max_steps", None),
        ("compile=graphs", "compile", "graphs"),
        ("compile=true", "compile", "update"),  # as older files say it
        ("compile=false", "compile", "none"),
        ("optimizers.vec.betas=[0.5,0.9]", "optimizers.vec.betas", [0.5, 0.9]),
        ("optimizers.vec.lr=1e-5", "optimizers.vec.lr", 1e-5),
        ("optimizers.vec.clip_norm=2", "optimizers.vec.clip_norm", 2.0),
        ("system.alpha=[1,2,3]", "system.alpha", [1.0, 2.0, 3.0]),
        ("networks.norm=none", "networks.norm", "none"),
        ("output=a=b", "output", "a=b"),
    ],
)
def test_values(argument: str, key: str, value: object) -> None:
    assert as_dict(load([argument]))[key] == value


# Optimisers.


def test_optimizers_merge_in_their_order(tmp_path: Path) -> None:
    """The class's defaults < optimizers.default < what the system says of the update < optimizers.NAME."""
    untouched = load([]).optimizers
    assert (untouched["vec"].lr, untouched["critic"].lr) == (1e-3, 1e-4)  # the critic's stands in the system

    everywhere = load(["optimizers.default.lr=0.5", "optimizers.default.warmup=7"]).optimizers
    assert {name: (o.lr, o.warmup) for name, o in everywhere.items()} == {
        "vec": (0.5, 7),
        "critic": (1e-4, 7),
        "decoder": (0.5, 7),
    }
    path = write(tmp_path / "o.yaml", "optimizers: {default: {lr: 0.5}, critic: {lr: 0.25, warmup: 3}}\n")
    named = load([path, "optimizers.critic.warmup=4"]).optimizers
    assert (named["critic"].lr, named["critic"].warmup) == (0.25, 4)
    assert (named["vec"].lr, named["vec"].warmup) == (0.5, 0)


def test_updates_do_not_share_an_optimiser_configuration() -> None:
    optimizers = load(["optimizers.default.lr=0.5"]).optimizers
    optimizers["vec"].lr = 1.0
    assert optimizers["decoder"].lr == 0.5


# Errors.


def test_a_misspelt_setting_that_a_system_gives_its_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Odd(VAE):
        name: str = "odd"

        def phases(self) -> tuple[Phase, ...]:
            (phase,) = super().phases()
            return (replace(phase, updates=(replace(phase.updates[0], optimizer={"warmpu": 3}),)),)

    monkeypatch.setitem(SYSTEMS, "odd", Odd())
    with pytest.raises(ConfigError, match=r"^optimizers\.vae\.warmpu: no such key \(did you mean 'warmup'\?\)"):
        load(["system.name=odd"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        # unknown keys, with the nearest right one
        ("seeed=3", ["seeed", "'seed'"]),
        ("system.latent_dimm=3", ["system.latent_dimm", "'latent_dim'"]),
        ("networks.widht=4", ["networks.widht", "'width'"]),
        ("data.batchsize=3", ["data.batchsize", "'batch_size'"]),
        ("optimizers.critc.lr=1", ["optimizers.critc", "'critic'", "decoder"]),
        ("optimizers.vec.lrr=1", ["optimizers.vec.lrr", "'lr'"]),
        ("optimizers.default.lrr=1", ["lrr", "'lr'"]),
        ("optimizers.lr=1", ["optimizers.lr", "default", "vec"]),
        ("--foo=3", ["--foo"]),
        ("data[0]=3", ["data"]),
        # keys that stand elsewhere
        ("beta=3", ["beta", "'system.beta'"]),
        ("width=4", ["width", "'networks.width'"]),
        ("lr=1", ["lr", "'optimizers.default.lr'"]),
        ("data.seed=3", ["data.seed", "'seed'"]),
        ("optimizers.vec.beta=1", ["optimizers.vec.beta", "'system.beta'"]),
        # names of things
        ("system.name=savea", ["system.name", "'savae'"]),
        ("system.name=3", ["system.name", "savae"]),
        ("system.name=null", ["system.name", "savae"]),
        ("demoo", ["demoo", "'demo'", "mnist_k2"]),
        ("nopreset", ["nopreset", "mnist_k2"]),
        ("missing.yaml", ["missing.yaml", "does not exist"]),
        ("demo mnist_k2", ["mnist_k2", "one preset"]),
        ("data.train", ["data.train"]),
        # wrong types
        ("seed=abc", ["seed", "abc"]),
        ("seed=null", ["seed"]),
        ("seed=1.5", ["seed", "1.5"]),
        ("seed=true", ["seed"]),
        ("seed.x=3", ["seed"]),
        ("seed=${nothing}", ["seed", "nothing"]),
        ("compile=maybe", ["compile", "maybe"]),
        ("compile=graphs accumulate=2", ["compile=graphs", "accumulate=1", "compile=update"]),
        ("compile=update networks.checkpoint_activations=true", ["networks.checkpoint_activations", "compile=update"]),
        ("max_steps=abc", ["max_steps"]),
        ("data.train=3", ["data.train"]),
        ("data.lanes=x", ["data.lanes", "auto"]),
        ("data=3", ["data:"]),
        ("data=null", ["data"]),
        ("networks=null", ["networks"]),
        ("optimizers=3", ["optimizers.NAME"]),
        ("optimizers.vec.lr=abc", ["optimizers.vec.lr"]),
        ("optimizers.vec.betas=0.9", ["optimizers.vec.betas"]),
        ("system.alpha=1", ["system.alpha"]),
        # not one of the choices
        ("precision=fp8", ["precision", "fp8", "bf16"]),
        ("resume=always", ["resume", "auto", "never"]),
        ("networks.norm=bach", ["networks.norm", "batch"]),
        ("data.cache=disk", ["data.cache", "memory"]),
        ("system.batches=frsh", ["system.batches", "fresh"]),
        ("optimizers.vec.name=adamax", ["optimizers.vec.name", "adamw"]),
        ("optimizers.vec.schedule=cosin", ["optimizers.vec.schedule", "cosine"]),
        # impossible values
        *[(f"checkpoint_minutes={bad}", ["checkpoint_minutes", "positive"]) for bad in ("0", "-1", ".inf")],
        *[(f"{key}=0", [key, "at least 1"]) for key in ("accumulate", "max_steps", "log_every", "validate_every")],
        *[(f"{key}=0", [key, "at least 1"]) for key in ("checkpoint_every", "keep_checkpoints", "nonfinite_limit")],
        *[(f"{key}=0", [key, "at least 1"]) for key in ("data.batch_size", "data.shuffle_window", "data.lanes")],
        ("networks.width=0", ["networks.width", "at least 1"]),
        ("networks.pools=7", ["networks.pools", "6"]),
        ("networks.pools=-1", ["networks.pools", "0"]),
        ("data.workers=-1", ["data.workers"]),
        ("data.bad_budget=2", ["data.bad_budget"]),
        ("data.bad_budget=nan", ["data.bad_budget"]),
        ("data.labelled_fraction=1.5", ["data.labelled_fraction"]),
        ("data.labelled_fraction=nan", ["data.labelled_fraction"]),
        ("data.balance=-0.5", ["data.balance"]),
        ("data.weights=[1,1]", ["data.weights", "each set"]),
        ("debug.check_ranks=-1", ["debug.check_ranks"]),
        ("timeout=0", ["timeout", "seconds"]),
        ("timeout=inf", ["timeout"]),
        ("ema=1", ["ema", "[0, 1)"]),
        ("ema=nan", ["ema"]),
        ("accumulate=3", ["data.batch_size=128", "accumulate=3"]),
        ("optimizers.vec.lr=0", ["optimizers.vec.lr"]),
        ("optimizers.critic.clip_norm=0", ["optimizers.critic.clip_norm"]),
        ("system.latent_dim=0", ["system.latent_dim"]),
        ("system.alpha=[1,1]", ["system.alpha", "3"]),
        ("system.beta=-1", ["system.beta"]),
        ("system.vec_steps=-1", ["system.vec_steps"]),
    ],
)
def test_refused_in_one_line_that_names_the_key(arguments: str, named: list[str]) -> None:
    message = refusal(*arguments.split())
    assert [word for word in named if word not in message] == []


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        # no mapping where one belongs
        ("system=3", "system:"),
        ("system=savae", "system"),
        ("system=null", "system"),
        ("system.name=[1]", "system.name"),
        ("system.name.x=3", "system.name"),
        ("debug=3", "debug"),
        ("optimizers.vec=3", "optimizers.vec"),
        ("optimizers.default=3", "optimizers.default"),
        ("optimizers.vec.betas=[0.9]", "optimizers.vec.betas"),
        ("optimizers.vec.betas=[[1],0.9]", "optimizers.vec.betas"),
        ("data.train=[[a],b]", "data.train"),
        # no YAML behind the equals sign
        ("seed=[", "seed"),
        ("data.train={", "data.train"),
        # a value that is asked for and not given is not a default
        ("seed=???", "seed"),
        ("output=???", "output"),
        ("system.name=???", "system.name"),
        ("optimizers.vec.lr=???", "optimizers.vec.lr"),
        # numbers with which nothing can be trained
        ("seed=99999999999999999999999", "seed"),
        ("system.beta=nan", "system.beta"),
        ("system.kl_weight=inf", "system.kl_weight"),
        ("system.alpha=[1,nan,1]", "system.alpha"),
        ("optimizers.vec.weight_decay=nan", "optimizers.vec.weight_decay"),
    ],
)
def test_refused_too(argument: str, named: str) -> None:
    assert named in refusal(argument)


def test_a_value_for_all_updates_is_named_as_it_was_given() -> None:
    assert "optimizers.default.lr" in refusal("optimizers.default.lr=-1")


@pytest.mark.parametrize(
    "text",
    [
        "3\n",
        "- a\n- b\n",
        "seed: [1\nx: }\n",
        "seed: 1\nseed: 2\n",
        "a: b: c\n",
        "seed: !!python/object/apply:os.getcwd []\n",
    ],
)
def test_a_file_that_holds_no_mapping_is_named(text: str, tmp_path: Path) -> None:
    assert "odd.yaml" in refusal(write(tmp_path / "odd.yaml", text))


def test_a_file_of_bytes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(b"seed: \xff\xfe\xe9")
    assert "odd.yaml" in refusal(str(path))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert "folder.yaml" in refusal(str(tmp_path / "folder.yaml"))


def test_keys_in_a_file_are_checked_like_arguments(tmp_path: Path) -> None:
    assert "networks.widht" in refusal(write(tmp_path / "a.yaml", "networks: {widht: 3}\n"))
    assert "precision" in refusal(write(tmp_path / "b.yaml", "precision: off\n"))  # YAML's False
    assert "optimizers" in refusal(write(tmp_path / "c.yaml", "optimizers: [1]\n"))


SECRET = "wJalrXUtnFEMI"


@pytest.mark.parametrize(
    "value",
    [
        *("${oc.env:OUR_SECRET}", "http://x/${oc.env:OUR_SECRET}/a.tar", "[a, 'http://x/${oc.env:OUR_SECRET}']"),
        *("'\\${oc.env:OUR_SECRET}'", '"\\x24{oc.env:OUR_SECRET}"', "${data.train}", "${oc.env:OUR_SECRET", "${}"),
    ],
)
def test_nothing_is_filled_in_from_the_environment(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret would go to whatever server a preset of somebody else's names."""
    monkeypatch.setenv("OUR_SECRET", SECRET)
    path = write(tmp_path / "mine.yaml", f"data:\n  validation: {value}\n")
    for arguments in ([path], [f"data.validation={value}"], ["demo", f"output={value}"]):
        assert SECRET not in refusal(*arguments)
        assert main([*arguments, "--print-config"]) == 2  # also before torch and the systems are loaded


def test_a_comparison_fills_nothing_in(tmp_path: Path) -> None:
    file = write(tmp_path / "c.yaml", "compare: {ours: [demo, 'data.train=s3://x/${oc.env:OUR_SECRET}']}")
    with pytest.raises(ConfigError, match=r"c\.yaml: compare\.ours=.*not filled in"):
        read_yaml(Path(file))


def test_nearest() -> None:
    assert nearest("widht", ["width", "norm"]) == " (did you mean 'width'?)"
    assert nearest("zzz", ["width", "norm"]) == ""


# Data of one's own.


def test_other_training_data_do_not_take_the_preset_s_validation_set(tmp_path: Path) -> None:
    """They would be measured on samples of another kind, or normalised for another set."""
    mine = write(tmp_path / "mine.yaml", "data: {train: theirs, validation: theirs/test, batch_size: 8}")
    ours = load([mine, "data.train=ours"]).data
    assert (ours.train, ours.validation, ours.batch_size) == ("ours", None, 8)
    assert load([mine, "data.train=ours", "data.validation=ours/test"]).data.validation == "ours/test"
    for same in ([mine], [mine, "data.train=theirs"], [mine, "seed=1"]):
        assert load(same).data.validation == "theirs/test"
    assert load([mine, "data.train=ours", "system.name=vae"]).data.validation is None
    assert load([mine, "data.train=null"]).data.validation is None  # the embedded digits have their own


# The resolved configuration.


def round_trip(arguments: list[str]) -> None:
    config = load(arguments)
    with tempfile.TemporaryDirectory() as folder:
        again = load([write(Path(folder) / "resolved.yaml", to_yaml(config))])
    assert again == config
    assert to_yaml(again) == to_yaml(config)
    assert digest(again) == digest(config)


@settings(max_examples=8, deadline=None)
@given(
    lr=st.floats(1e-12, 1e3),
    beta=st.floats(0, 10),
    alpha=st.tuples(*[st.floats(0, 1e6)] * 3),
    lanes=st.one_of(st.just("auto"), st.integers(1, 99)),
    clip=st.one_of(st.none(), st.floats(1e-6, 1e6)),
    train=st.one_of(st.none(), st.lists(st.text("abc/{}. :#'", min_size=1), min_size=1, max_size=3)),
    seed=st.integers(0, 2**31),
)
def test_the_resolved_yaml_is_the_configuration(
    lr: float, beta: float, alpha: tuple[float], lanes: object, clip: float | None, train: list[str] | None, seed: int
) -> None:
    asked = {
        "system": {"beta": beta, "alpha": list(alpha)},
        "data": {"lanes": lanes, "train": train},
        "optimizers": {"default": {"lr": lr}, "critic": {"clip_norm": clip}},
        "seed": seed,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "asked.yaml", OmegaConf.to_yaml(OmegaConf.create(asked)))
        config = load([path])
        assert (config.system.beta, config.system.alpha, config.data.train) == (beta, alpha, train)
        assert (config.optimizers["vec"].lr, config.optimizers["critic"].clip_norm) == (lr, clip)
        round_trip([path])


@pytest.mark.parametrize("arguments", [["demo"], ["mnist_k2", "seed=3"], ["cwru", "data.lanes=4", "output=x"]])
def test_the_resolved_yaml_of_presets(arguments: list[str]) -> None:
    round_trip(arguments)
    assert load(arguments).system.name == "savae"


# Identity and the output folder.


def test_the_output_folder_is_a_function_of_the_arguments() -> None:
    assert load(["demo"]).output == "runs/demo"
    one = load(["demo", "seed=1"]).output
    assert one == load(["demo", "seed=1"]).output
    assert re.fullmatch(r"runs/demo-[0-9a-f]{8}", str(one))
    assert re.fullmatch(r"runs/vae-[0-9a-f]{8}", str(load(["system.name=vae"]).output))
    others = [load(["demo", f"{change}"]).output for change in ("seed=2", "system.beta=0.5", "optimizers.vec.lr=0.5")]
    assert len({one, "runs/demo", *others}) == 5
    assert load(["demo", "seed=1", "output=here"]).output == "here"


FREE_CHANGES = [
    "data.workers=2",
    "log_every=7",
    "resume=never",
    "checkpoint_every=9",
    "data.cache=memory",
    "compile=true",
    "compile=graphs",
    "networks.checkpoint_activations=true",
    "timeout=9",
    "debug.check_ranks=1",
    "data.cache_bytes=1000000",
    "posterior_cache=0",
]


@pytest.mark.parametrize("change", FREE_CHANGES)
def test_operational_keys_keep_the_output_folder(change: str) -> None:
    assert load(["demo", "seed=1", change]).output == load(["demo", "seed=1"]).output


def test_operational_keys_alone_keep_the_preset_s_folder() -> None:
    """Else the same run with another number of workers would silently start anew elsewhere."""
    assert {load(["demo", change]).output for change in FREE_CHANGES} == {"runs/demo"}


def test_identity_is_all_but_the_free_keys() -> None:
    config = load(["demo", "system.latent_dim=5", "optimizers.critic.lr=0.5"])
    everything, kept = as_dict(config), identity(config)
    assert set(FREE_KEYS) <= everything.keys()
    later = {key for key in everything if without_it(key, NEVER) is not NEVER}  # these have their defaults
    assert kept.keys() == everything.keys() - set(FREE_KEYS) - later
    assert {"data.hold_out", "optimizers.critic.start"} <= later
    assert identity(load(["data.train=a", "data.hold_out=0.1"]))["data.hold_out"] == 0.1
    assert (kept["system.latent_dim"], kept["optimizers.critic.lr"]) == (5, 0.5)
    assert not any(isinstance(value, tuple | dict) for value in kept.values())  # as JSON gives them back


def test_plain_is_a_system_as_json_gives_it() -> None:
    values = plain(load([]).system)
    assert values["name"] == "savae"
    assert values["alpha"] == [1.0, 0.1, 0.01]


# The command line.


def test_print_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-config", "mnist_k2", "seed=4", "optimizers.vec.betas=[0.5,0.9]"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    again = load([write(tmp_path / "printed.yaml", printed.out)])
    assert again == load(["mnist_k2", "seed=4", "optimizers.vec.betas=[0.5,0.9]"])
    assert main(["mnist_k2", "--print-config", "seed=4"]) == 0  # anywhere


@pytest.mark.parametrize("arguments", [["networks.widht=3"], ["nopreset"], ["optimizers.vec.lr=0"], ["precision=x"]])
def test_a_bad_key_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("savae_dist: ")


def test_only_the_first_process_says_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["networks.widht=3"]) == 2
    assert capsys.readouterr().err == ""


def test_a_start_that_fails_is_told_in_status_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the run has a folder."""
    assert main(["data.train=/nowhere", f"output={tmp_path / 'new'}"]) == 65
    assert "/nowhere" in capsys.readouterr().err.splitlines()[-1]
    assert '"exit_code": 65' in (tmp_path / "new" / "status.json").read_text()


def test_weights_belong_to_the_sets_of_a_list() -> None:
    assert load(["data.train=[a,b]", "data.weights=[3,1]"]).data.weights == [3.0, 1.0]
    for weights in ("[1]", "[1,-1]", "[0,0]", "[1,nan]", "[1,inf]"):
        assert "data.weights" in refusal("data.train=[a,b]", f"data.weights={weights}")


def test_another_paper_takes_nothing_of_the_preset_s() -> None:
    """`system` and `optimizers` are hyperparameters of a paper; where and on what it trains are not."""
    preset, other = load(["ava_ten_images"]), load(["ava_ten_images", "system.name=vae"])
    assert other.system == SYSTEMS["vae"]
    assert other.optimizers == load(["system.name=vae"]).optimizers
    assert other.data == preset.data
    # Not the preset's folder, though SAVAE is what a preset that says nothing is.
    assert load(["vae_mnist", "system.name=savae"]).output != load(["vae_mnist"]).output


def test_another_member_of_the_family_takes_what_the_members_share(tmp_path: Path) -> None:
    preset, member = load(["ava_ten_images"]), load(["ava_ten_images", "system.name=ava5"])
    assert member.system == replace(preset.system, name="ava5") != SYSTEMS["ava5"]
    assert member.optimizers["code_critic"] == preset.optimizers["vae"] != OptimizerConfig()
    assert member.output != preset.output
    # What makes the member: Makhzani's places for labels, Hou's critic.
    assert load(["aae_unsupervised", "system.name=aae_supervised"]).system.label_to == "decoder"
    resolved = tmp_path / "config.yaml"
    resolved.write_text(to_yaml(load(["vae_wgan_mnist"])).replace("critic:", "default:"))
    plain = load(["dfc_vae_mnist"]).system
    assert load([str(resolved), "system.name=dfc_vae"]).system == plain
    resolved.write_text(to_yaml(load(["dfc_vae_mnist"])))
    with pytest.raises(ConfigError, match=r"optimizers say nothing of critic, an update of vae_wgan that dfc_vae"):
        load([str(resolved), "system.name=vae_wgan"])
    whole = load([str(resolved), "system.name=vae_wgan", "optimizers.critic.lr=0.1"])
    assert (whole.system.adversarial, whole.optimizers["critic"].lr) == ("wasserstein", 0.1)
