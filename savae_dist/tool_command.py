"""How one program of ours starts another, takes its arguments, and ends by an error."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from savae_dist import __version__
from savae_dist.errors import ConfigError, UserError

# A wheel carries tools/ inside the package; a checkout has it beside the package.
FOLDERS = (Path(__file__).parent / "tools", Path(__file__).parents[1] / "tools")


def tool_command(name: str) -> list[str]:
    """The command that starts the tool of this name, in an installed wheel as in a checkout, from any folder."""
    script = next(path for folder in FOLDERS if (path := folder / f"{name}.py").is_file())
    return [sys.executable, str(script)]


def as_typed(tool: str, arguments: Sequence[str] | None) -> str:
    """The command line of a tool, to be typed again; arguments: what its `main` was given, None for the program's."""
    return shlex.join(["python", f"tools/{tool}.py", *(sys.argv[1:] if arguments is None else arguments)])


def tool_parser(description: str, **options: Any) -> argparse.ArgumentParser:
    """The parser of a tool's arguments; every tool says its version."""
    return with_version(argparse.ArgumentParser(description=description, **options))


def with_version(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser, with `--version`."""
    parser.add_argument("--version", action="version", version=f"savae_dist {__version__}")
    return parser


def ended_by(error: Exception, tool: str) -> int:
    """Print an error that a user can mend as one line, and return the exit code that it stands for."""
    print(f"{tool}: {' '.join(str(error).split())}", file=sys.stderr)
    return error.code if isinstance(error, UserError) else ConfigError.code
