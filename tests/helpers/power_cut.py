"""A disk that keeps no more than it must in a power cut: what was flushed, and of all else an arbitrary part.

A name (a new file or folder, a rename, a removal) is certain once its folder was flushed, the bytes of a file once the
file was. Uncertain bytes are there, or cut, or zeros, or none. Of the uncertain names any subset is there: POSIX
promises no more. Where the file system keeps a journal, as ext4 and xfs do, those up to some point are there, and to
flush anything makes all names before it certain.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

from helpers.file_operations import Operation


@dataclass(eq=False)
class Node:
    """A file or folder: `live` as programs see it, `safe` as it is on the disk for certain."""

    folder: bool
    live: bytearray = field(default_factory=bytearray)
    safe: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    safe_names: dict[str, Node] = field(default_factory=dict)


Change = list[tuple[Node, str, Node | None]]  # (folder, name, what it names now), all of them or none


class Disk:
    """What recorded operations make of an empty disk, with a journal or without."""

    def __init__(self, journal: bool = False) -> None:
        self.journal, self.root = journal, Node(True)
        self.files: dict[int, Node] = {}
        self.unsure: list[Change] = []  # in their order

    def _at(self, path: str) -> Node:
        node = self.root
        for name in path.split("/") if path else ():
            node = node.names[name]
        return node

    def _name(self, *entries: tuple[str, Node | None]) -> None:
        change: Change = []
        for path, node in entries:
            parent, _, name = path.rpartition("/")
            change.append((self._at(parent), name, node))
        for folder, name, node in change:
            _set(folder.names, name, node)
        self.unsure.append(change)

    def apply(self, operation: Operation) -> None:
        """Do as the program did."""
        kind, path, file = operation.kind, operation.path, self.files.get(operation.file)
        if kind in ("found", "create", "mkdir"):
            file = Node(folder=kind == "mkdir" or operation.to == "folder", live=bytearray(operation.data))
            self._name((path, file))
            self.files[operation.file] = file
        elif kind == "write":
            self.files[operation.file].live[operation.offset : operation.offset + len(operation.data)] = operation.data
        elif kind == "truncate":
            content = self.files[operation.file].live
            content[:] = content[: operation.offset].ljust(operation.offset, b"\0")
        elif kind == "rename":
            self._name((path, None), (operation.to, self._at(path)))
        elif kind in ("unlink", "rmdir"):
            self._name((path, None))
        elif kind == "fsync" and operation.file >= 0:
            self.files[operation.file].live[:] = operation.data
            self.files[operation.file].safe = operation.data
            self._make_sure([one for one in self.unsure if self.journal])
        elif kind == "fsync":
            flushed = self._at(path)
            self._make_sure([one for one in self.unsure if self.journal or any(at is flushed for at, _, _ in one)])
        if kind == "found":  # long ago
            self._make_sure(list(self.unsure))
            self.files[operation.file].safe = operation.data

    def _make_sure(self, changes: list[Change]) -> None:
        for change in changes:
            self.unsure.remove(change)
            for folder, name, node in change:
                _set(folder.safe_names, name, node)

    def cut(self, chance: random.Random, into: Path) -> None:
        """Write what is left on the disk after a power cut now; nothing else may be done with the disk afterwards."""
        if self.journal:
            self._make_sure(self.unsure[: chance.randrange(len(self.unsure) + 1)])
        else:
            share = chance.choice((0.0, 0.5, 1.0))  # of the uncertain names that are there
            self._make_sure([change for change in self.unsure if chance.random() < share])
        self._write(self.root, into, chance)

    def _write(self, folder: Node, into: Path, chance: random.Random | None) -> None:
        into.mkdir(parents=True, exist_ok=True)
        for name, node in (folder.safe_names if chance else folder.names).items():
            if node.folder:
                self._write(node, into / name, chance)
            else:
                (into / name).write_bytes(_left(node, chance) if chance else node.live)

    def write_live(self, into: Path) -> None:
        """Write everything as programs see it: it must equal the folder that was recorded."""
        self._write(self.root, into, None)


def _set(names: dict[str, Node], name: str, node: Node | None) -> None:
    names.pop(name, None)
    if node is not None:
        names[name] = node


def _left(file: Node, chance: random.Random) -> bytes:
    """The bytes of a file after a cut: the certain ones, or any state of what was not flushed."""
    live = bytes(file.live)
    if live == file.safe:
        return live
    part = chance.randrange(len(live) + 1)
    return chance.choice((file.safe, live, live[:part], live[:part].ljust(len(live), b"\0"), bytes(len(live)), b""))


def same_files(a: Path, b: Path) -> bool:
    """Whether two folders hold the same files and folders."""
    return _content(a) == _content(b)


def _content(folder: Path) -> dict[str, bytes | None]:
    return {os.path.relpath(path, folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
