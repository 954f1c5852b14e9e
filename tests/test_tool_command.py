"""The tools start one another wherever they lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.launching import ROOT

import savae_dist
from savae_dist.tool_command import tool_command
from savae_dist.train import main as train

START = """
import subprocess, sys
from savae_dist.tool_command import tool_command
sys.exit(subprocess.run([*tool_command("index_shards"), "--help"]).returncode)
"""


def inside() -> dict[str, str]:
    """Folder of the checkout -> its place in a wheel, as the build hook has it."""
    tree = ast.parse((ROOT / "hatch_build.py").read_text())
    (value,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "INSIDE")
    return ast.literal_eval(value)


def test_every_tool_is_a_command_of_one_naming_and_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    commands = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    of_a_checkout = {"tables"}  # writes its docs
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")} - of_a_checkout
    assert {name: target for name, target in commands.items() if name != "savae-train"} == {
        f"savae-{tool.replace('_', '-')}": f"savae_dist.tools.{tool}:main" for tool in tools
    }
    for main in (train, *(importlib.import_module(f"tools.{tool}").main for tool in sorted(tools | of_a_checkout))):
        with pytest.raises(SystemExit, match=r"^0$"):
            main(["--version"])
        assert capsys.readouterr().out == f"savae_dist {savae_dist.__version__}\n"


def test_a_checkout_has_them_beside_the_package() -> None:
    assert tool_command("evaluate") == [sys.executable, str(ROOT / "tools" / "evaluate.py")]


def test_a_wheel_has_them_inside(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "site-packages", tmp_path / "empty"
    for source, target in {"savae_dist": "savae_dist", **inside()}.items():
        shutil.copytree(ROOT / source, home / target, ignore=shutil.ignore_patterns("__pycache__"))
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(home)}
    start = [sys.executable, "-c", START]
    done = subprocess.run(start, env=environment, cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: index_shards")
