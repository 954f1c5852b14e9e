"""Systems and networks of one's own, from a file outside the package."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from savae_dist.import_file import import_file


def enter(file: str | Path, name: str | None = None) -> ModuleType:
    """Import a Python file, which enters its systems in SYSTEMS and its networks in NETWORKS; nothing is trained."""
    return import_file(file, "the one that enters your systems and networks", name)
