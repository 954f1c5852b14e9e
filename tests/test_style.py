"""The things that must never appear, each as a rule over the syntax tree, each shown able to fail."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_FUNCTION, MAX_FILE = 50, 300
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

Rule = Callable[[ast.Module], Iterator[ast.AST]]  # yields the nodes that break it


def called(node: ast.AST) -> str:
    """Dotted name of what a call calls, `.name` behind any other expression, empty for everything else."""
    if not isinstance(node, ast.Call):
        return ""
    names, target = [], node.func
    while isinstance(target, ast.Attribute):
        names.append(target.attr)
        target = target.value
    names.append(target.id if isinstance(target, ast.Name) else "")
    return ".".join(reversed(names))


def updates_networks(tree: ast.Module) -> Iterator[ast.AST]:
    """Freezing, backpropagating and stepping have one home, training/engine.py."""
    for node in ast.walk(tree):
        name = called(node)
        input_of_penalty = ast.unparse(node).endswith(".detach().requires_grad_()")
        updates = "." in name and name.split(".")[-1] in {"step", "zero_grad", "requires_grad_", "backward"}
        if updates and not input_of_penalty:
            yield node
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and node.attr == "requires_grad":
            yield node


def pickles(tree: ast.Module) -> Iterator[ast.AST]:
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            broken = bool(modules & {name.split(".")[0] for name in names})
        elif isinstance(node, ast.keyword):
            broken = node.arg == "allow_pickle" and ast.unparse(node.value) != "False"
        else:
            broken = called(node) in {"torch.load", "torch.save"} or called(node).endswith("read_pickle")
        if broken:
            yield node


def probes(tree: ast.Module) -> Iterator[ast.AST]:
    """Objects say what they are; by name one may look up a dataclass's own fields, and what `fields` names."""
    allowed = {
        inner
        for node in ast.walk(tree)
        for subject, name in looked_up(node)
        for inner in ast.walk(node)
        if called(inner) == "getattr" and re.fullmatch(rf"getattr\({subject}, {name}\)", ast.unparse(inner))
    }
    for node in ast.walk(tree):
        if called(node) in {"getattr", "hasattr", "setattr", "delattr"} and node not in allowed:
            yield node
        loaded = isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load)
        if loaded and re.fullmatch(r"vars\(.*\)|.*\.__dict__", ast.unparse(node.value)):  # the same in other words
            yield node


def looked_up(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What may be looked up by name below `node`, and by which names, both as patterns."""
    if isinstance(node, ast.ClassDef):
        if any(ast.unparse(decorator).startswith("dataclass") for decorator in node.decorator_list):
            yield "self", "[^,]+"
    elif isinstance(node, ast.For):
        yield from of_fields(node)
    elif isinstance(node, ast.DictComp | ast.ListComp | ast.SetComp | ast.GeneratorExp):
        for loop in node.generators:
            yield from of_fields(loop)


def of_fields(loop: ast.For | ast.comprehension) -> Iterator[tuple[str, str]]:
    if called(loop.iter) == "fields":
        yield re.escape(ast.unparse(loop.iter.args[0])), re.escape(f"{ast.unparse(loop.target)}.name")


def renames(tree: ast.Module) -> Iterator[ast.AST]:
    """What gets its final name by a rename must be on the disk before: files.publish sees to that."""
    for node in ast.walk(tree):
        name = called(node)
        method = name.endswith((".rename", ".replace")) and len(node.args) == 1 and not node.keywords
        if name in {"os.replace", "os.rename", "os.renames", "shutil.move"} or method:
            yield node


def locks(tree: ast.Module) -> Iterator[ast.AST]:
    """Locks between processes have one home, locks.py."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if {"fcntl", "filelock"} & {name.split(".")[0] for name in names}:
                yield node


def loads_by_path(tree: ast.Module) -> Iterator[ast.AST]:
    """Classes are found in literal registries, not by a dotted path."""
    return (node for node in ast.walk(tree) if called(node).split(".")[-1] in {"import_module", "__import__"})


def swallows(tree: ast.Module) -> Iterator[ast.AST]:
    broad = {"Exception", "BaseException"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else broad
            silent = all(isinstance(s, ast.Pass | ast.Continue) for s in node.body)
            if node.type is None or (caught & broad and silent):
                yield node
        elif called(node).endswith("suppress") and broad & {ast.unparse(arg) for arg in node.args}:
            yield node


def leaves_undone(tree: ast.Module) -> Iterator[ast.AST]:
    """Code may catch what a library has not implemented, but raises no such error itself."""
    raised = (node for one in ast.walk(tree) if isinstance(one, ast.Raise) for node in ast.walk(one))
    return (node for node in raised if isinstance(node, ast.Name) and node.id == "NotImplementedError")


def has_long_functions(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and node.end_lineno - node.lineno + 1 > MAX_FUNCTION:
            yield node


def branches_on_system(tree: ast.Module) -> Iterator[ast.AST]:
    subjects = re.compile(r"(^|\.)system(_name|\.name)?$")
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(subjects.search(ast.unparse(s)) for s in sides) and any(isinstance(s, ast.Constant) for s in sides):
                yield node


def makes_trainers(tree: ast.Module) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and "Trainer" in node.name)


def asserts_nothing(tree: ast.Module) -> Iterator[ast.AST]:
    """Tests without `assert`, `pytest.raises`, `assert_...()` or a helper `check_...()`."""

    def shows(node: ast.AST) -> bool:
        name = called(node)
        return (
            isinstance(node, ast.Assert)
            or name == "pytest.raises"
            or name.split(".")[-1].startswith(("assert", "check_"))
        )

    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and node.name.startswith("test_") and not any(map(shows, ast.walk(node))):
            yield node


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


CODE = files("savae_dist", "tools")
PACKAGE = files("savae_dist")
# Strategies backpropagate for the engine; the bare loop does by hand what the engine does, to be compared with it.
STEPPING = {
    ROOT / "savae_dist" / path for path in ("training/engine.py", "training/strategies.py", "benchmarks/bare_loop.py")
}
OUTSIDE_ENGINE = [path for path in PACKAGE if path not in STEPPING]
OUTSIDE_FILES = [path for path in PACKAGE if path != ROOT / "savae_dist" / "files.py"]
OUTSIDE_LOCKS = [path for path in PACKAGE if path != ROOT / "savae_dist" / "locks.py"]
TESTS = files("tests")

# rule, files it holds for, a snippet that breaks it, a snippet that does not
RULES: list[tuple[Rule, list[Path], str, str]] = [
    (updates_networks, OUTSIDE_ENGINE, "optimizer.step()", "step(x)\nloss.step"),
    (updates_networks, OUTSIDE_ENGINE, "self.net[0].requires_grad_(False)", "x.detach().requires_grad_()"),
    (updates_networks, OUTSIDE_ENGINE, "p.requires_grad = False", "p.grad = None"),
    (updates_networks, OUTSIDE_ENGINE, "loss(x).backward()", "def backward(ctx, g): ..."),
    (updates_networks, OUTSIDE_ENGINE, "o.zero_grad(set_to_none=True)", "zero_grad"),
    (pickles, CODE, "import pickle", "import json"),
    (pickles, CODE, "from joblib import load", "from safetensors.torch import load_file"),
    (pickles, CODE, "torch.load(path, weights_only=True)", "load(path)"),
    (pickles, CODE, "np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=False)"),
    (probes, PACKAGE, "getattr(x, 'a', None)", "object.__setattr__(self, 'a', 1)"),
    (probes, PACKAGE, "if hasattr(x, 'a'): pass", "@dataclass\nclass A:\n    def f(self): getattr(self, name)"),
    (probes, PACKAGE, "class A:\n    def f(self): getattr(self, name)", "[getattr(x, one.name) for one in fields(x)]"),
    (probes, PACKAGE, "@dataclass\nclass A:\n    def f(self): getattr(self, 'a', 1)", "x.a"),
    (probes, PACKAGE, "[getattr(y, one.name) for one in fields(x)]", "for f in fields(x): getattr(x, f.name)"),
    (probes, PACKAGE, "vars(x)['a']", "vars(x)"),
    (probes, PACKAGE, "x.__dict__['a']", "self.__dict__['nets'] = nets"),
    (renames, OUTSIDE_FILES, "draft.rename(path)", "text.replace('a', 'b')"),
    (renames, OUTSIDE_FILES, "draft.replace(path)", "replace(options, seed=1)"),
    (renames, OUTSIDE_FILES, "os.replace(draft, path)", "publish(draft, path)"),
    (locks, OUTSIDE_LOCKS, "import fcntl", "from savae_dist.locks import locked"),
    (locks, OUTSIDE_LOCKS, "def f():\n    from filelock import FileLock", "import filecmp"),
    (loads_by_path, CODE, "importlib.import_module(name)", "import importlib"),
    (swallows, CODE + TESTS, "try: f()\nexcept: raise", "try: f()\nexcept OSError: pass"),
    (swallows, CODE + TESTS, "try: f()\nexcept (OSError, Exception): pass", "try: f()\nexcept Exception: raise"),
    (swallows, CODE + TESTS, "with contextlib.suppress(Exception): f()", "with contextlib.suppress(OSError): f()"),
    (leaves_undone, CODE, "raise NotImplementedError", "raise ValueError"),
    (has_long_functions, CODE, "def f():\n" + "    x\n" * MAX_FUNCTION, "def f():\n" + "    x\n" * (MAX_FUNCTION - 1)),
    (branches_on_system, CODE, "if config.system.name == 'savae': pass", "if system.beta == 0: pass"),
    (makes_trainers, CODE, "class VAETrainer: pass", "class Update: pass"),
    (asserts_nothing, TESTS, "def test_a(): f()", "def test_a(): check_all()"),
    (asserts_nothing, TESTS, "def test_a(): x == 1", "def test_a():\n    with pytest.raises(ValueError): f()"),
]
BY_RULE = {rule.__name__: (rule, paths) for rule, paths, _, _ in RULES}


@pytest.mark.parametrize("name", BY_RULE)
def test_never(name: str):
    rule, paths = BY_RULE[name]
    assert paths
    found = [f"{p.relative_to(ROOT)}:{node.lineno}" for p in paths for node in rule(ast.parse(p.read_text()))]
    assert found == [], f"{name}: {rule.__doc__ or 'see CONTRIBUTING.md'}"


@pytest.mark.parametrize(("rule", "bad", "good"), [(rule, bad, good) for rule, _, bad, good in RULES])
def test_each_rule_can_fail(rule: Rule, bad: str, good: str):
    assert list(rule(ast.parse(bad)))
    assert not list(rule(ast.parse(good)))


def derived_systems(sources: list[str]) -> list[str]:
    """Classes among `sources` that inherit a class defined in them and registered as a system (a frozen dataclass)."""
    classes = [n for source in sources for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef)]
    systems = {c.name for c in classes if any(isinstance(n, FUNCTIONS) and n.name == "phases" for n in c.body)}
    return [c.name for c in classes if systems & {ast.unparse(base).split(".")[-1] for base in c.bases}]


def test_no_system_inherits_a_system():
    assert derived_systems([path.read_text() for path in files("savae_dist/systems")]) == []
    system = "class A:\n    def phases(self): ...\n"
    assert derived_systems([system, "class B(savae.A): ..."]) == ["B"]


def too_long(text: str) -> bool:
    return len(text.splitlines()) > MAX_FILE


def test_files_are_short():
    assert [str(path.relative_to(ROOT)) for path in CODE if too_long(path.read_text())] == []
    assert too_long("x\n" * (MAX_FILE + 1))
    assert not too_long("x\n" * MAX_FILE)


UNDONE = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")


def test_nothing_is_left_for_later():
    assert [str(path.relative_to(ROOT)) for path in CODE + TESTS if UNDONE.search(path.read_text())] == []
    assert UNDONE.search("# " + "TO" + "DO: later")
