"""docs/own_systems.md: its system trains, resumes, is measured, exported and tested; what cannot work says so."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.launching import ROOT, environment, shards, status, weights

from savae_dist.errors import CheckpointError, ConfigError
from savae_dist.load_config import load
from savae_dist.networks import NETWORKS
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.systems import SYSTEMS
from savae_dist.systems.own import enter
from savae_dist.testing import check_system
from tools import evaluate, export_hub, sweep

PAGE = (ROOT / "docs" / "own_systems.md").read_text()
FILE, TEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(LINE,) = re.findall(r"```\n(savae_dist: .*)\n```", PAGE)
SMALL = ["demo", "system.name=two_critics", "networks.width=4", "data.batch_size=16", "log_every=1"]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The page's system in a file, and the registries as they were after the test."""
    systems, networks = dict(SYSTEMS), dict(NETWORKS)
    path = tmp_path / "two_critics.py"
    path.write_text(FILE)
    yield path
    for registry, before in ((SYSTEMS, systems), (NETWORKS, networks)):
        for name in registry.keys() - before.keys():
            registry.pop(name)
    sys.modules.pop(str(path), None)


def start(file: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(file), *SMALL, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(file: Path, *arguments: str) -> None:
    process = start(file, *arguments)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


@pytest.mark.slow
def test_it_trains_resumes_and_is_used(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, killed, whole = shards(tmp_path / "data"), tmp_path / "killed", tmp_path / "whole"
    sets = [f"data.train={data}", "system.steps=40", "checkpoint_every=5"]
    process = start(file, *sets, f"output={killed}")
    deadline = time.monotonic() + 90
    while not any((killed / "checkpoints").glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert status(killed)["outcome"] != "done"
    for output in (killed, whole):
        finish(file, *sets, f"output={output}")
    one, other = weights(killed), weights(whole)
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)

    with pytest.raises(
        CheckpointError, match=r"model_type 'spectrum_critic' is not in NETWORKS: first import the file"
    ):
        Pipeline.from_pretrained(killed)
    assert export_hub.main([str(killed), str(tmp_path / "refused")]) == 76
    assert evaluate.main([str(killed), str(data), str(tmp_path / "refused")]) == 76
    assert [line.count("--trainer FILE.py") for line in capsys.readouterr().err.splitlines()] == [1, 1]
    trainer = ["--trainer", str(file)]
    assert evaluate.main([str(killed), str(data), str(tmp_path / "measured"), *trainer]) == 0
    assert (tmp_path / "measured" / "metrics.json").is_file()
    assert export_hub.main([str(killed), str(tmp_path / "exported"), *trainer]) == 0
    assert "@misc{mine2026two," in (tmp_path / "exported" / "README.md").read_text()
    pipeline = Pipeline.from_pretrained(tmp_path / "exported")
    assert type(pipeline.networks["spectrum"]) is NETWORKS["spectrum_critic"]
    assert np.array_equal(pipeline.generate(2, seed=0), Pipeline.from_pretrained(whole).generate(2, seed=0))


@pytest.mark.slow
def test_a_sweep_measures_it(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = shards(tmp_path / "data"), tmp_path / "sweep"
    small = [
        "system.steps=3",
        "networks.width=4",
        "data.batch_size=16",
        "system.name=two_critics",
        f"data.train={data}",
    ]
    launch = ["--launch", str(ROOT / "launch_configs" / "accelerate" / "cpu_1.yaml")]
    assert sweep.main(["demo", str(out), *small, *launch, "--evaluate", str(data), "--trainer", str(file)]) == 0
    assert "reconstruction_mse" in capsys.readouterr().out
    assert len(list(out.glob("*/evaluation/metrics.json"))) == 1


@pytest.mark.distributed
def test_it_keeps_the_rules(file: Path) -> None:
    """As the page tests it, but on images alone, which are enough for one."""
    assert "check_system(TwoCritics(latent_dim=3), SIGNAL)" in TEST
    check_system(vars(enter(file))["TwoCritics"](latent_dim=3))
    assert "two_critics" in SYSTEMS


def test_a_plain_module_ends_with_the_line_of_the_page(file: Path, tmp_path: Path) -> None:
    assert "class SpectrumCritic(Critic):" in FILE
    file.write_text(FILE.replace("class SpectrumCritic(Critic):", "class SpectrumCritic(nn.Module):"))
    process = start(file, f"output={tmp_path / 'run'}")
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said.splitlines()[-1]) == (2, LINE)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_what_is_entered_is_known_and_entered_once(file: Path) -> None:
    assert enter(file) is enter(file)
    assert load(["system.name=two_critics", "system.beta=2"]).system.beta == 2


@pytest.mark.parametrize(
    ("source", "words"),
    [(None, "is no Python file"), ("1 / 0", "fails when it is imported (ZeroDivisionError: division by zero)")],
)
def test_a_file_that_cannot_be_entered_is_named(source: str | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    if source:
        path.write_text(source)
    with pytest.raises(ConfigError, match=re.escape(f"{path} {words}")):
        enter(path)
    assert str(path) not in sys.modules


def test_annotations_that_are_texts_are_understood(tmp_path: Path) -> None:
    """`from __future__ import annotations` makes them so; a configuration reads the types of the fields."""
    path = tmp_path / "late.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from typing import Literal\n"
        "from savae_dist.api import SYSTEMS\n"
        "@dataclass(frozen=True)\n"
        "class Late:\n"
        "    name: Literal['late'] = 'late'\n"
        "    size: int = 1\n"
        "    def phases(self):\n"
        "        return ()\n"
        "SYSTEMS['late'] = Late()\n"
    )
    try:
        enter(path)
        assert load(["demo", "system.name=late", "system.size=3"]).system.size == 3
    finally:
        SYSTEMS.pop("late", None)
