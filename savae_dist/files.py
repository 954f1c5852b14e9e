"""Files and folders that appear whole or not at all, even if the program is killed or the power fails.

Everything is written as a draft under another name, flushed to the disk and then renamed: a reader sees the old content
or the new, never a part. The draft lies beside the target, since a rename is atomic only within one file system; its
name begins with a dot.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

DRAFT = ".draft"  # the end of a draft's name
OLD = ".old"  # the end of the name that a folder gets when another takes its place


def write_json(path: Path, values: Any) -> None:
    """Write JSON-able values, whole or not at all."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is no file, or if it is damaged."""
    try:
        values = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def finite_or_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with None, JSON's null, for floats that are not finite: JSON has neither NaN nor infinity."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data`, whole or not at all; after an error the draft is removed."""
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
    return _hidden(path, DRAFT)


def remove_drafts(folder: Path) -> None:
    """Remove what killed writers left in a folder; only while no one else writes there, since a draft may be in use."""
    for draft in folder.glob(f".*{DRAFT}"):
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove a folder. If that is cut off, what is left has a draft's name: under its own name it was always whole."""
    draft = draft_of(folder)
    folder.rename(draft)
    shutil.rmtree(draft)


def publish(draft: Path, target: Path) -> None:
    """Give a finished file or folder its final name, once all of it is on the disk.

    A file replaces an older one. A folder cannot, so an older one is first renamed; `replaced` finds it and
    `remove_replaced` removes it. If the program is killed between the two renames, both folders remain, neither under
    the final name. Inside a folder that is itself a draft nothing is flushed, since that is done when it is published.
    """
    inside = any(is_draft(parent) for parent in target.parents)
    if not inside:
        flush(draft)
    _rename(draft, target)
    if not inside:
        _flush_one(target.parent)  # the name itself


def is_draft(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(DRAFT)


def replaced(target: Path) -> Iterator[Path]:
    """The older folders whose place `target` took, or was to take, under the names that they have now."""
    start = f".{target.name}."
    if target.parent.is_dir():
        yield from (p for p in target.parent.iterdir() if p.name.startswith(start) and p.name.endswith(OLD))


def remove_replaced(target: Path) -> None:
    """Remove the older folders whose place `target` took."""
    for old in replaced(target):
        shutil.rmtree(old)


def _hidden(path: Path, end: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(3)}{end}")


def _rename(draft: Path, target: Path) -> None:
    while True:
        if draft.is_dir() and target.exists():
            with suppress(FileNotFoundError):  # another process has just renamed it
                target.rename(_hidden(target, OLD))
        try:
            draft.replace(target)
        except OSError as error:
            # Another process has put its own folder there in between: that one is the older now.
            if not draft.is_dir() or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return


def make_folder(path: Path) -> None:
    """Make a folder, with those above it that are missing, and flush their names to the disk; its own in any case."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path, *missing):
        _flush_one(folder.parent)


def flush(path: Path) -> None:
    """Flush a file, or a folder with all that it holds, to the disk."""
    if path.is_dir():
        for entry in path.iterdir():
            flush(entry)
    _flush_one(path)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush a folder; whether a new name survives a crash is then up to them.
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
