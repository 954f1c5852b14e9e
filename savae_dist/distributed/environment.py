"""What the launcher's environment variables say, readable before the ranks are connected. Does not load torch."""

from __future__ import annotations

import os

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
