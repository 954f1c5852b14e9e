"""Who may import whom: imports go down only, and a new module needs a line in the table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "savae_dist"
ANY = frozenset({"*"})  # all but the rooms behind the tools

# A room of savae_dist -> the rooms that it may import from besides itself and `errors`. A room is a folder or a single
# module; a room named `a.b` is not a part of the room `a`.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "__init__": frozenset({"pipeline", "networks"}),  # what users import; the package itself imports the modules
    "errors": frozenset(),
    "files": frozenset(),
    "untrusted": frozenset(),
    "tool_command": frozenset(),
    "locks": frozenset(),
    "streams": frozenset(),
    "import_file": frozenset(),
    "latents": frozenset(),
    "colours": frozenset(),
    "spectra": frozenset(),
    "origin": frozenset({"untrusted"}),
    "preprocess": frozenset({"origin"}),
    "config": frozenset({"untrusted"}),  # and so nothing in it loads torch
    "precision": frozenset({"config"}),
    "networks": frozenset({"latents", "files", "untrusted"}),
    "data.formats": frozenset({"preprocess", "origin", "untrusted"}),
    "data.processes": frozenset(),
    "data.remote": frozenset({"config", "files", "locks"}),
    "data.index": frozenset(
        {"data.remote", "data.formats", "data.processes", "config", "preprocess", "files", "locks", "untrusted"}
        | {"origin"}
    ),
    "data.order": frozenset({"data.index"}),
    "data.reading": frozenset({"data.order", "data.index", "data.remote", "data.formats", "data.processes"}),
    "data.packing": frozenset(
        {"data.order", "data.index", "data.remote", "data.formats", "data.processes", "files", "locks"}
        | {"import_file", "origin", "tool_command"}
    ),
    "data": frozenset({"data.packing", "data.reading", "data.order", "data.index", "data.remote", "files"}),
    "distributed": frozenset({"config", "precision", "locks"}),
    "sets": frozenset({"data", "data.index", "config", "preprocess", "untrusted"}),
    "pipeline.inputs": frozenset({"preprocess", "origin", "data.formats", "data.packing"}),
    "pipeline.sampling": frozenset({"networks", "latents", "preprocess", "untrusted"}),
    "pipeline": frozenset(
        {"pipeline.inputs", "pipeline.sampling"}
        | {
            "networks",
            "latents",
            "preprocess",
            "origin",
            "spectra",
            "files",
            "untrusted",
            "data.formats",
            "data.packing",
        }
        | {"config"}  # the names of metrics
    ),
    "systems": frozenset({"pipeline", "networks", "latents", "preprocess", "config", "import_file"}),
    "load_config": frozenset({"config", "systems"}),
    "training": frozenset({"systems", "data", "networks", "latents", "precision", "preprocess", "config"}),
    "evaluation": frozenset(
        {"systems", "pipeline", "pipeline.sampling", "data", "networks", "latents", "preprocess", "spectra"}
        | {"colours"}
    ),
    "pages": frozenset({"config", "files", "colours"}),  # and so nothing in it loads torch
    "run": ANY,
    "testing": ANY,
    "train": ANY,
    "api": ANY,  # one import for systems of others; the package itself imports the modules
    # Behind the tools: benchmarks measure the trainer; sweeps start it as its users do, and import none of it.
    "benchmarks": frozenset(
        {"run", "training", "systems", "distributed", "data", "data.index", "networks", "config", "testing"}
    )
    | {"data.remote", "precision", "preprocess", "load_config"},
    "sweeps": frozenset(
        {"config", "load_config", "evaluation", "pipeline", "data", "data.index", "files", "preprocess", "tool_command"}
        | {"pages", "colours"}
    ),
}
USE_ACCELERATE = {"training", "run", "testing", "distributed", "train"}
BEHIND_TOOLS = {"benchmarks", "sweeps"}  # imported by tools alone
TRAINER = {"training", "run", "train"}  # tools import none of it: they measure or start it by way of the package


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Absolute names of everything imported anywhere below `tree`; `package` resolves relative imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]) if base else ".".join(parents)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def room(name: str) -> str:
    """The room of a dotted name below savae_dist: the longest row of the table that it begins with."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MAY_IMPORT), parts[0])


def ours(tree: ast.AST, package: str) -> set[str]:
    """The rooms of savae_dist that are imported, `*` for the bare package."""
    names = (name.partition(".") for name in imports(tree, package))
    return {room(rest) if rest else "*" for first, _, rest in names if first == PACKAGE} - {"__version__"}


def at_module_level(tree: ast.AST) -> Iterator[ast.AST]:
    """Import statements that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_module_level(node)


def violations(unit: str, source: str, package: str = PACKAGE, tool: bool = False) -> list[str]:
    """What a module of `unit` (or the tool of that name) imports against the rules, as sentences."""
    tree = ast.parse(source)
    roots = {name.split(".")[0] for name in imports(tree, package)}
    early = {name.split(".")[0] for node in at_module_level(tree) for name in imports(node, package)}
    if tool:
        wrong = ours(tree, package) & TRAINER
    elif MAY_IMPORT[unit] == ANY:
        wrong = ours(tree, package) & BEHIND_TOOLS
    else:
        wrong = ours(tree, package) - MAY_IMPORT[unit] - {unit, "errors"}
    found = [f"{unit} imports {PACKAGE}.{name}" for name in sorted(wrong)]
    if "accelerate" in roots and (tool or unit not in USE_ACCELERATE):
        found.append(f"{unit} imports accelerate")
    if "deepspeed" in early:
        found.append(f"{unit} imports deepspeed at module level")
    return found


def package_files() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def unit_of(path: Path) -> str:
    return room(".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts).removesuffix(".__init__"))


def test_every_module_stands_in_the_table():
    assert package_files()
    missing = sorted({unit_of(path) for path in package_files()} - MAY_IMPORT.keys())
    assert not missing, f"add {', '.join(missing)} to MAY_IMPORT in tests/test_layers.py: what may it import?"


@pytest.mark.parametrize("path", package_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_package_imports_go_down(path: Path):
    if unit_of(path) not in MAY_IMPORT:
        pytest.skip("named by test_every_module_stands_in_the_table")
    package = ".".join(path.relative_to(ROOT).parent.parts)
    assert violations(unit_of(path), path.read_text(), package) == []


def test_tools_use_the_package_and_not_the_trainer():
    found = {path.name: violations(path.stem, path.read_text(), tool=True) for path in (ROOT / "tools").glob("*.py")}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_the_table_has_no_cycle():
    done: set[str] = set()
    while level := {unit for unit, below in MAY_IMPORT.items() if unit not in done and below - ANY <= done}:
        done |= level
    assert done == MAY_IMPORT.keys()


@pytest.mark.parametrize(
    ("unit", "source", "package", "tool"),
    [
        ("data", "from savae_dist.training.engine import run_phase", "savae_dist.data", False),
        ("data", "def read():\n    from ..training.engine import run_phase", "savae_dist.data", False),
        ("data", "from .. import training", "savae_dist.data", False),
        ("data.index", "from savae_dist.data.order import order", "savae_dist.data.index", False),
        ("data.index", "from savae_dist.data import Order", "savae_dist.data.index", False),
        ("training", "from savae_dist.load_config import load", "savae_dist", False),
        ("latents", "import savae_dist.networks.conv", "savae_dist", False),
        ("latents", "import savae_dist", "savae_dist", False),
        ("latents", "from savae_dist import Pipeline", "savae_dist", False),
        ("training", "import savae_dist.evaluation as e", "savae_dist", False),
        ("systems", "from accelerate import Accelerator", "savae_dist", False),
        ("data", "def f():\n    import accelerate.utils", "savae_dist.data", False),
        ("training", "try:\n    import deepspeed\nexcept ImportError:\n    raise", "savae_dist", False),
        ("run", "from savae_dist.sweeps.trials import Trial", "savae_dist.run", False),
        ("sweeps", "from savae_dist.training.engine import run_phase", "savae_dist.sweeps", False),
        ("evaluate", "from savae_dist.train import main", "savae_dist", True),
        ("benchmark", "from savae_dist.training.engine import run_phase", "savae_dist", True),
        ("make_shards", "import accelerate", "savae_dist", True),
    ],
)
def test_the_rules_can_fail(unit: str, source: str, package: str, tool: bool):
    assert len(violations(unit, source, package, tool)) == 1


@pytest.mark.parametrize(
    ("unit", "source", "tool"),
    [
        (
            "data",
            "from .index import open\nfrom .reading.reader import Reader\nfrom savae_dist.errors import DataError",
            False,
        ),
        ("training", "import accelerate\ndef f():\n    import deepspeed", False),
        ("train", "from savae_dist import evaluation, training", False),
        ("benchmarks", "from savae_dist.training.engine import run_phase", False),
        (
            "benchmark",
            "from savae_dist.benchmarks import comparisons\nfrom savae_dist.sweeps.trials import named",
            True,
        ),
    ],
)
def test_the_rules_let_pass_what_is_right(unit: str, source: str, tool: bool):
    assert violations(unit, source, "savae_dist.data", tool) == []
