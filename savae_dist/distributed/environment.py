"""What the launcher's environment says of this process, before the processes know each other. Nothing loads torch."""

from __future__ import annotations

import os


def world_size() -> int:
    """How many ranks the launcher announced."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process speaks for all."""
    return os.environ.get("RANK", "0") == "0"
