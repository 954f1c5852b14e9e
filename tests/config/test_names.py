"""Names are checked without torch, by the source of the systems, and in the words of the whole check."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields

import pytest
from helpers.launching import ROOT

from savae_dist.config import names
from savae_dist.config.arguments import PRESET_FOLDERS
from savae_dist.config.augmentations import AUGMENTATIONS
from savae_dist.config.identity import as_dict
from savae_dist.config.names import SystemNames, check, systems_by_source
from savae_dist.config.schema import OptimizerConfig
from savae_dist.errors import ConfigError
from savae_dist.load_config import load, registered
from savae_dist.systems import SYSTEMS, VAE
from savae_dist.train import main

PRESETS = sorted(path.stem for path in PRESET_FOLDERS[0].glob("*.yaml"))
MISSPELT = [
    "seeed=3",
    "system.latent_dimm=3",
    "system.name=savea",
    "system.name=vae system.critic_steps=2",
    "networks.widht=4",
    "data.batchsize=3",
    "data.augment.crp=0.1",
    "optimizers.vec.lrr=1",
    "optimizers.default.momentun=0.9",
    "ddp.bucket=3",
    "debug.check_rank=1",
    "demoo",
    "missing.yaml",
    "ava_ten_images system.name=vae system.lean=none",
]
# What a process does that has imported no more than the trainer's command line.
REFUSE = """
import sys
from savae_dist.train import main
code = main(sys.argv[1:])
print(code, "torch" in sys.modules)
"""


def message(function, arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        function(arguments.split())
    return str(caught.value)


def test_the_source_says_what_the_registry_holds() -> None:
    """Reading the class statements and `SYSTEMS` gives the names that importing them gives."""
    assert systems_by_source() == registered()
    for name, described in registered().items():
        assert described == SystemNames(type(SYSTEMS[name]).__name__, tuple(one.name for one in fields(SYSTEMS[name])))


@pytest.mark.parametrize("arguments", MISSPELT)
def test_both_checks_refuse_it_in_the_same_words(arguments: str) -> None:
    assert message(check, arguments) == message(load, arguments)


def test_the_nearest_right_name_is_told() -> None:
    assert message(check, "mnist_k2 systme.beta=1") == "systme: no such key (did you mean 'system'?)"
    assert message(check, "system.bete=1") == "system.bete: no such key (did you mean 'beta'?)"
    assert message(check, "debug.zzz=1") == "debug.zzz: no such key; known: check_ranks"


@pytest.mark.parametrize("arguments", MISSPELT)
def test_a_misspelt_name_is_refused_without_torch(arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REFUSE, *arguments.split()], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["2", "False"]
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("savae_dist: ")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_passes(preset: str) -> None:
    check([preset])
    assert "did you mean 'seed'?" in message(check, f"{preset} sed=1")


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_key_passes_for_every_system(name: str) -> None:
    """Those of a resolved run, in every section."""
    written = as_dict(load([f"system.name={name}"]))
    keys = [*written, *(f"data.augment.{one}" for one in AUGMENTATIONS)]
    keys += [f"optimizers.default.{one.name}" for one in fields(OptimizerConfig)]
    assert {f"system.{one.name}" for one in fields(SYSTEMS[name])} <= set(keys)
    changes = [f"{key}=1" for key in keys if key not in ("system.name", "data.augment")]
    check([f"system.name={name}", *changes])
    assert message(check, f"system.name={name} {changes[0]} system.nothing_like_it=1").startswith("system.nothing")


@dataclass(frozen=True)
class Own(VAE):
    name: str = "own"  # type: ignore[assignment]
    strength: float = 1.0


def test_a_system_of_one_s_own_is_never_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SYSTEMS, "own", Own())
    monkeypatch.setattr(names, "check", lambda _: pytest.fail("the source does not know it"))
    assert main(["system.name=own", "system.strength=2", "--print-config"]) == 0
    assert "strength: 2.0" in capsys.readouterr().out
    assert main(["system.name=own", "system.strenght=2", "--print-config"]) == 2
    assert "did you mean 'strength'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("system.alpha.x=1", "system.alpha: holds a list, system.alpha=[...], and no keys"),
        ("data.weights.x=1", "data.weights: holds a list, data.weights=[...], and no keys"),
        ("data.augment.crop.x=1", "data.augment.crop must be a number, not {'x': 1}"),
        ("ddp=3", "ddp: holds keys, ddp.NAME=..., not 3"),
    ],
)
def test_keys_where_none_belong_are_told(argument: str, told: str) -> None:
    assert message(load, argument) == told
