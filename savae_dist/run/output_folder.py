"""Whether a folder may be a run's `output`."""

from __future__ import annotations

from pathlib import Path

from savae_dist.errors import ConfigError

RUN = ("config.yaml", "checkpoints")  # either of them makes a folder a run's
# Files that may stand here before these: of a launch that was refused, of a job script, or of a faster rank.
BEFORE = ("status.json", "status-node*.json", "flight", ".lock", ".launch-*", ".*.draft", "*.log", "*.out", "*.err")
NEW_VOLUME = "lost+found"


def check_output(folder: Path) -> None:
    """ConfigError if there is something in the folder and it is no run's: a home, say, or a folder of photographs."""
    if folder.is_dir() and not any((folder / name).exists() for name in RUN):
        for path in folder.iterdir():
            if not any(path.match(pattern) for pattern in (*BEFORE, NEW_VOLUME)):
                raise ConfigError(
                    f"output={folder} is no run and not empty (it holds {path.name}): give a new or an empty folder"
                )
