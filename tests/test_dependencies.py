"""What is imported is declared in pyproject.toml and pinned in constraints.txt: no package comes only with another."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = sorted([*(ROOT / "savae_dist").rglob("*.py"), *(ROOT / "tools").glob("*.py")])
# The package that brings a module of another name.
BROUGHT_BY = {"PIL": "pillow", "cv2": "opencv-python-headless", "markdown_it": "markdown-it-py"}
BROUGHT_BY |= {"sklearn": "scikit-learn", "yaml": "pyyaml"}
HAND_WRITTEN = {"nets", "raw_torch"}  # of the folder that `benchmark.py --hand-written` is given
OURS = {"savae_dist", *HAND_WRITTEN, *(path.stem for path in (ROOT / "tools").glob("*.py"))}


def normalised(requirement: str) -> str:
    """The name alone, as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


def packages(source: str, at_once: bool) -> set[str]:
    """The third-party packages that a file imports; at_once: only those that it imports when it is itself imported."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found, nodes = set(), [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue  # only type checkers read it
        nodes += [child for child in ast.iter_child_nodes(node) if not (at_once and isinstance(child, functions))]
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).split(".")[0])
    return {normalised(BROUGHT_BY.get(name, name)) for name in found - OURS - sys.stdlib_module_names}


def undeclared(source: str) -> set[str]:
    """Imports of a file that no dependency declares; an extra's package may be imported in functions only."""
    core = {normalised(one) for one in PROJECT["dependencies"]}
    offered = [some for name, some in PROJECT["optional-dependencies"].items() if name != "dev"]
    extras = {normalised(one) for some in offered for one in some}
    return (packages(source, at_once=True) - core) | (packages(source, at_once=False) - core - extras)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_is_declared(path: Path) -> None:
    assert undeclared(path.read_text()) == set()


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ("import aiohttp.web", {"aiohttp"}),
        ("def f():\n    from pytest import raises", {"pytest"}),  # an extra for those who work on this package
        ("import onnx", {"onnx"}),
        ("def f():\n    import onnx", set()),
        ("if TYPE_CHECKING:\n    from _typeshed import DataclassInstance", set()),
        ("import yaml, json, PIL.Image\nfrom savae_dist.errors import DataError\nfrom . import pandas", set()),
    ],
)
def test_the_comparison_can_fail(source: str, missing: set[str]) -> None:
    assert undeclared(source) == missing


def test_what_ci_installs_is_pinned() -> None:
    extras = re.search(r"constraints\.txt -e \"\.\[(.*?)\]\"", (ROOT / "Makefile").read_text())
    assert extras is not None
    offered = PROJECT["optional-dependencies"]
    declared = [*PROJECT["dependencies"], *(one for name in extras[1].split(",") for one in offered[name])]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert {normalised(one) for one in declared} - {normalised(line) for line in lines if "==" in line} == set()
    assert normalised("Some_Thing[extra]>=1.2") == "some-thing"
