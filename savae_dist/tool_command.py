"""How one program of ours starts another."""

from __future__ import annotations

import sys
from pathlib import Path

# A wheel carries tools/ inside the package; a checkout has it beside the package.
FOLDERS = (Path(__file__).parent / "tools", Path(__file__).parents[1] / "tools")


def tool_command(name: str) -> list[str]:
    """The command that starts the tool of this name, in an installed wheel as in a checkout, from any folder."""
    script = next(path for folder in FOLDERS if (path := folder / f"{name}.py").is_file())
    return [sys.executable, str(script)]
