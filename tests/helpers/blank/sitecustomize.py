"""Python runs this by itself in the programs that tests start: figures are built but left blank, as in `conftest`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class BlankFigures(MetaPathFinder):
    """Imports matplotlib's figures, which then draw nothing; whoever does not import them does not pay for them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path) if fullname == "matplotlib.figure" else None
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_blank(module: ModuleType) -> None:
                load(module)
                module.Figure.draw = lambda figure, renderer: None

            spec.loader.exec_module = load_blank  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, BlankFigures())
