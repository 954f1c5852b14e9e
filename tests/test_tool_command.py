"""The tools start one another wherever they lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.launching import ROOT

from savae_dist.tool_command import tool_command

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
