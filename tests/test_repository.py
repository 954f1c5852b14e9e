"""Files beside the package: they name the version and the commands that there are."""

from __future__ import annotations

import re

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
