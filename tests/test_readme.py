"""What README and docs promise: the own system runs as printed, and commands, keys and defaults exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.launching import ROOT, environment, status

from savae_dist.config.identity import FREE_KEYS, as_dict
from savae_dist.config.schema import OptimizerConfig, RunConfig
from savae_dist.config.terms import AdaptiveConfig, ScheduleConfig
from savae_dist.load_config import load
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.systems import SYSTEMS

README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
ALL = "\n".join(PAGES.values())
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()


def blocks(language: str, text: str = ALL) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_own_system_runs_as_printed(tmp_path: Path) -> None:
    (source,) = (block for block in blocks("python", README) if "class BetaVAE" in block)
    script = tmp_path / "beta_vae.py"
    script.write_text(source)
    run = tmp_path / "run"
    arguments = ["system.name=beta_vae", "system.steps=3", "networks.width=4", "data.batch_size=16", f"output={run}"]
    result = subprocess.run(
        [sys.executable, str(script), *arguments], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert status(run)["outcome"] == "done"
    assert Pipeline.from_pretrained(run).generate(2, seed=0).shape == (2, 8, 8)


def test_every_key_value_in_the_commands_is_a_key() -> None:
    commands = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    checked = 0
    for command in commands:
        if "-m savae_dist.train" not in command:
            continue
        arguments = command.split("-m savae_dist.train")[1].split("#")[0].split()
        load([a for a in arguments if not a.startswith("--")])
        checked += 1
    assert checked >= 3


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:tools|launch_configs|tests)/[\w/.]+\.(?:py|yaml)", ALL))))
def test_every_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)(.*?)\)", PAGES[page]):
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


def test_the_readme_stays_short() -> None:
    assert len(README.encode()) <= 8192, "the README is to be read in five minutes; docs/ has room"


def test_the_reference_has_every_key_with_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)`( \*)? \| (\S.*?) \| ", CONFIGURATION, re.MULTILINE)
    told = {
        key: None if default == "none" and key == "data.augment" else yaml.safe_load(default)
        for key, _, default in rows
    }
    by_term = {"schedules": {"TERM": ScheduleConfig()}, "adaptive": {"TERM": AdaptiveConfig()}}
    plain = as_dict(RunConfig(system=SYSTEMS["savae"], optimizers={"NAME": OptimizerConfig()}, **by_term))
    known = {key.removeprefix("optimizers.NAME."): value for key, value in plain.items()} | {"data.augment": None}
    known.pop("system.name")
    assert len(told) == len(rows)
    assert told == known
    lanes = {"data.lanes"}  # free for `auto` to be what the run began with
    assert {key for key, star, _ in rows if star} == FREE_KEYS - lanes
