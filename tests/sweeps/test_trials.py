"""The runs of a sweep, before any is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from helpers.launching import ROOT

from savae_dist.config.identity import digest
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.sweeps.figure9.plan import is_plan
from savae_dist.sweeps.trials import combine, split
from savae_dist.systems import SYSTEMS


def test_values_are_split_outside_brackets() -> None:
    assert split("0,0.5") == ["0", "0.5"]
    assert split("[1,0.1],[0,1]") == ["[1,0.1]", "[0,1]"]
    assert split("{a: 1, b: [2,3]},none") == ["{a: 1, b: [2,3]}", "none"]
    assert split("") == [""]


def test_every_combination_has_a_folder_of_its_own(tmp_path: Path) -> None:
    found = combine("dcgan,wgan", tmp_path, ["seed=0,1", "max_steps=3"])
    named = [(config, seed) for seed in "01" for config in ("dcgan", "wgan")]
    assert [t.arguments for t in found] == [(config, f"seed={seed}", "max_steps=3") for config, seed in named]
    assert [t.varied for t in found] == [{"config": config, "seed": seed} for config, seed in named]
    assert [(t.resolved.system.name, str(t.resolved.seed)) for t in found] == named
    assert len({t.folder for t in found}) == 4
    longer = combine("dcgan,wgan", tmp_path, ["seed=0,1", "max_steps=4"])
    assert not {t.folder for t in found} & {t.folder for t in longer}  # other runs, though the same values vary
    assert found[0].folder.name == f"config=dcgan-seed=0-{digest(load(['dcgan', 'seed=0', 'max_steps=3']))}"


def test_a_comparison_names_its_runs(tmp_path: Path) -> None:
    """What is common goes before a run's own keys, and the command line after both."""
    file = tmp_path / "compare.yaml"
    file.write_text("common: [max_steps=3, seed=5]\ncompare: {ours: [dcgan], 'a, b': [wgan, max_steps=4, ema=0.5]}")
    found = combine(str(file), tmp_path, ["seed=0,1", "ema=0.9"])
    assert [t.varied for t in found] == [{"name": name, "seed": seed} for seed in "01" for name in ("ours", "a, b")]
    assert found[3].arguments == ("max_steps=3", "seed=5", "wgan", "max_steps=4", "ema=0.5", "seed=1", "ema=0.9")
    assert [(t.resolved.system.name, t.resolved.max_steps) for t in found[:2]] == [("dcgan", 3), ("wgan", 4)]
    assert (found[3].resolved.seed, found[3].resolved.ema) == (1, 0.9)
    assert found[1].folder.name.startswith("name=a_b-seed=0-")


@pytest.mark.parametrize(
    "content",
    ["compare: [dcgan]", "compare: {}", "compare: {a: dcgan}", "compare: {a: [1]}", "compare: {a: [wgan]}\nseed: 1"],
)
def test_a_wrong_comparison_is_one_line(content: str, tmp_path: Path) -> None:
    file = tmp_path / "compare.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"compare\.yaml: .*PRESET, key=value"):
        combine(str(file), tmp_path / "sweep", [])


@pytest.mark.parametrize("content", [b"compare: {a: [x=[1,2]}", b"\xff\xfe", b"compare: {a: [], a: []}"])
def test_a_file_that_is_no_yaml_is_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "compare.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"compare\.yaml cannot be read as YAML: .*"):
        combine(str(file), tmp_path / "sweep", [])


COMPARISONS = [
    file for file in sorted((ROOT / "launch_configs" / "comparisons").glob("*.yaml")) if not is_plan(str(file))
]


@pytest.mark.parametrize("file", COMPARISONS, ids=lambda p: p.stem)
def test_the_comparisons_that_come_along_resolve(file: Path, tmp_path: Path) -> None:
    found = combine(str(file), tmp_path, [])
    assert len(found) == len(yaml.safe_load(file.read_text())["compare"])
    own = {None} if file.stem == "game" else {"shards/mnist/test"}  # the game is played on the embedded digits
    if file.stem.startswith("cwru"):  # bearings that are never trained on
        own = {f"shards/{name}" for name in ("cwru_007/test", "cwru_014/test", "cwru_021/test", "cwru_fe")}
    assert {t.resolved.data.validation for t in found} <= own
    if file.stem == "mnist":  # the same for all
        assert {t.resolved.system.name for t in found} == SYSTEMS.keys() - {"classifier"}  # it judges the others
        assert {(t.resolved.networks.width, t.resolved.data.batch_size) for t in found} == {(8, 128)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=0,1", "seed=2"], "each key once"),
        (["output=here"], "the sweep's"),
        (["seed"], "each key once"),
        (["system.critic_stepz=1,2"], "critic_stepz"),
        (["system.critic_steps=1,0"], "critic_steps"),
        (["optimizers.default.lr=1e-3,1e-4"], "has no effect where every update has its own"),
        (["ema=0,0.0"], "are the same run"),
    ],
)
def test_a_wrong_sweep_ends_before_it_begins(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        combine("dcgan", tmp_path / "sweep", arguments)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("outcome", "code", "ended"),
    [("done", 0, 0), ("DivergedError", 70, 70), ("DriftError", 70, None), ("Preempted", 75, None)],
)
def test_what_counts_as_an_end(outcome: str, code: int, ended: int | None, tmp_path: Path) -> None:
    """A divergence is a result; broken hardware is none."""
    (trial,) = combine("mnist_k2", tmp_path, [])
    trial.folder.mkdir(parents=True)
    (trial.folder / "status.json").write_text(json.dumps({"outcome": outcome, "exit_code": code}))
    assert trial.exit_code == ended
