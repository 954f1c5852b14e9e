"""Systems and networks of one's own, from a file outside the package."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from savae_dist.errors import ConfigError


def enter(file: str | Path, name: str | None = None) -> ModuleType:
    """Import a Python file, which enters its systems in SYSTEMS and its networks in NETWORKS; nothing is trained.

    It is imported once, and may import what lies beside it. What stands under `if __name__ == "__main__":` is left out.
    name: of the module, its path if None. ConfigError if there is no such file, or it fails.
    """
    path = Path(file).resolve()
    name = name or str(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{file} is no Python file: give the one that enters your systems and networks")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]  # it is imported in part only
        if isinstance(error, SystemExit):
            guard = '`if __name__ == "__main__":`'
            raise ConfigError(f"{file} exits when it is imported: start the training under {guard}") from error
        if not isinstance(error, Exception):
            raise
        reason = " ".join(str(error).split())
        raise ConfigError(f"{file} fails when it is imported ({type(error).__name__}: {reason}): mend it") from error
    return module
