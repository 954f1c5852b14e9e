"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Atomically: a reader sees the old content or the new one. JSON knows no NaN: it becomes null."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    draft.write_text(json.dumps(plain, indent=1) + "\n")
    draft.replace(path)
