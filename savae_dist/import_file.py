"""Import a Python file of the user's, which stands outside the package."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from savae_dist.errors import ConfigError


def import_file(file: str | Path, meant: str, name: str | None = None) -> ModuleType:
    """The module; it is imported once, and may import what lies beside it.

    What stands under `if __name__ == "__main__":` is left out. meant: what the file is for, for messages. name: of the
    module, its path if None. ConfigError if there is no such file, or it fails.
    """
    path = Path(file).resolve()
    name = name or str(path)
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"{file} is no Python file: give {meant}")
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
            raise ConfigError(f"{file} exits when it is imported: put what it starts under {guard}") from error
        if not isinstance(error, Exception):
            raise
        reason = " ".join(str(error).split())
        raise ConfigError(f"{file} fails when it is imported ({type(error).__name__}: {reason}): mend it") from error
    return module
