"""What the launcher's environment variables say, readable before the ranks are connected, and what is said to it.

Does not load torch.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

CODES = "SAVAE_DIST_CODES"  # set by our own launcher: the folder in which each rank leaves its exit code
TORCHS = "TORCHELASTIC_ERROR_FILE"  # set by torch's: the file from which its report takes the reason

# Noted when the program starts, because a process whose parent has ended gets another.
STARTED_BY = os.getppid()


def world_size() -> int:
    """How many ranks the launcher announced."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def ranks_of_node(ranks: int) -> int:
    """How many of the launch's `ranks` run on this node; all of them where no launcher says otherwise."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", ranks))


def is_main() -> bool:
    """Whether this is rank 0, which prints and writes for all."""
    return os.environ.get("RANK", "0") == "0"


def leave_word(code: int, line: str) -> None:
    """Tell the launcher how this process ends: ours takes the code of each rank, torch's shows why."""
    folder, file = os.environ.get(CODES), os.environ.get(TORCHS)
    with suppress(OSError):  # the exit code stays the same on a full disk
        if folder:
            (Path(folder) / os.environ.get("RANK", "0")).write_text(str(code))
        if file:
            Path(file).write_text(json.dumps({"message": f"savae_dist: {line}", "timestamp": int(time.time())}))


def word_left(folder: Path) -> int | None:
    """The code that the lowest rank which said so ended with; None if none has."""
    ranks = sorted((path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))
    codes = [path.read_text() for path in ranks]
    return next((int(code) for code in codes if code.isdecimal()), None)
