"""Files and folders that appear whole or not at all, even if the program is killed or the power fails.

Everything is written under another name first, brought to the disk and then renamed: a reader sees what stood there
before or what is new, never a part. That other name, the draft's, begins with a dot and lies beside the target, since
a rename is one step only within one file system.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, values: Any) -> None:
    """Write JSON-able values, whole or not at all."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def finite_or_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with None, JSON's null, for floats that are not finite: JSON has neither NaN nor infinity."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data`, whole or not at all; OSError where it cannot be, and then nothing of it stays."""
    draft = draft_of(path)
    try:
        draft.write_bytes(data)
        publish(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def draft_of(path: Path) -> Path:
    """A new name beside `path` to write it under; each call gives another, so writers do not share a draft.

    The process number would not do: in two containers that share the folder it is often the same.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(3)}")


def publish(draft: Path, target: Path, aside: Path | None = None) -> None:
    """Give a finished file or folder its final name, once all of it is on the disk.

    A file takes the place of an older one. A folder cannot: `aside` is the name that an older one gets first, which the
    caller then removes. Killed between the two renames, the program leaves both folders, none under the final name.
    """
    flush(draft)
    if aside is not None and target.exists():
        target.rename(aside)
    draft.replace(target)
    _flush_one(target.parent)  # the name itself


def flush(path: Path) -> None:
    """Bring a file, or a folder with all that it holds, to the disk."""
    if path.is_dir():
        for entry in path.iterdir():
            flush(entry)
    _flush_one(path)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems on the network cannot flush a folder; names are as safe there as they make them.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
