"""Files beside the package: they name the version and the commands that there are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers.launching import ROOT

import savae_dist


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == savae_dist.__version__
    assert citation["references"][0]["doi"] in (ROOT / "README.md").read_text()


def test_workflows_run_what_is_there() -> None:
    """Each `make` target, console command and script that they start."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = set(re.findall(r"^(savae-[a-z-]+) =", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    words = []
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        jobs = yaml.safe_load(path.read_text())["jobs"].values()
        words += [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    started = "\n".join(words)
    assert set(re.findall(r"\bmake ([a-z]+)", started)) <= targets
    assert set(re.findall(r"\bsavae-[a-z-]+", started)) <= commands
    assert ".ci/run" in started
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


def test_issue_forms_ask_for_something() -> None:
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert forms
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert form["name"]
        assert any(field["validations"]["required"] for field in form["body"])


def instructions(name: str) -> list[str]:
    """What the Dockerfile's instructions of this name say, as Docker reads them."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "").splitlines()
    return [line.removeprefix(f"{name} ") for line in joined if line.startswith(f"{name} ")]


def built(command: str, folder: Path, **arguments: str) -> list[str]:
    """Run an instruction in `folder`, which stands for /home, and return what it starts: pip, useradd."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    log = folder / "started"
    for program, otherwise in (("python", f'exec {sys.executable} "$@"'), ("useradd", "exit 1")):
        (programs / program).write_text(
            f'#!/bin/sh\ncase "$1" in -m|--create-home) echo {program} "$@" >> {log};; *) {otherwise};; esac\n'
        )
        (programs / program).chmod(0o755)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", **arguments}
    shell = ["sh", "-ec", command.replace("/home/", f"{folder}/home/")]
    subprocess.run(shell, cwd=folder, env=environment, check=True, capture_output=True)
    return log.read_text().splitlines() if log.exists() else []


def test_a_change_of_the_source_rebuilds_only_the_last_layers() -> None:
    text = (ROOT / "Dockerfile").read_text()
    before, after = text.split("\nCOPY . .\n")
    assert instructions("COPY") == ["constraints.txt ./", "pyproject.toml ./", ". ."]
    assert "install -c constraints.txt -r requirements.txt" in before
    assert "useradd" in before
    assert re.findall(r"pip install .*", after) == ["pip install --no-deps . \\"]


def test_the_image_s_requirements_are_those_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (command,) = (one for one in instructions("RUN") if "requirements.txt" in one)
    for extras, more in (("", []), ("remote,onnx", ["remote", "onnx"])):
        built(command, tmp_path, EXTRAS=extras)
        wanted = [*project["dependencies"], *(one for name in more for one in project["optional-dependencies"][name])]
        assert (tmp_path / "requirements.txt").read_text().splitlines() == wanted


@pytest.mark.parametrize("index", ["", "https://packages.invalid/cpu"])
def test_the_image_takes_torch_from_a_further_index_where_asked(index: str, tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("numpy==2\ntorch==9.9.9\n")
    (command,) = (one for one in instructions("RUN") if "import torch" in one)
    first = command.replace("import torch", "import nothing_of_this_name").split(";")[0]
    (started,) = built(first, tmp_path, TORCH_INDEX=index)
    assert started.endswith(" torch==9.9.9")
    assert (f"--extra-index-url {index} torch==" in started) == bool(index)
    assert ("--extra-index-url" in started) == bool(index)


@pytest.mark.parametrize("user", ["10001", "0"])
def test_a_user_of_the_image_may_be_root(user: str, tmp_path: Path) -> None:
    (command,) = (one for one in instructions("RUN") if "useradd" in one)
    started = built(command, tmp_path, USER_ID=user)
    assert started == ([] if user == "0" else ["useradd --create-home --uid 10001 trainer"])
    assert (tmp_path / "home" / "trainer").is_dir() == (user == "0")
