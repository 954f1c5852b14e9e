"""Every operation of this process on the files below a folder: counted, recorded, or the one before which it dies.

Python's own functions are replaced, so what compiled code writes is not seen: safetensors' writer is replaced too. A
record is whole if `power_cut.Disk` makes the folder from it again.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from savae_dist.run.checkpoints import checkpoint
from savae_dist.run.results import Results

CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Operation:
    """kind: `found` (there from the start), `create`, `open` (to write what is there), `write`, `truncate`, `fsync`,
    `rename`, `unlink`, `mkdir`, `rmdir`; or `promise`, which is none: `path` was now told to be safe.

    file: a number of the file itself, whatever its name. data: what is written at `offset`; at `fsync` all of it.
    writer: whether the thread that writes checkpoints did it.
    """

    kind: str
    path: str
    to: str = ""
    file: int = -1
    offset: int = 0
    data: bytes = b""
    writer: bool = False


class Watch:
    """Replaces the functions that change files by ones that call `begin` first; with `deadly` the process is killed
    before that operation, counted from 0, with `half` in the midst of it if it writes. With `writer` those count that
    the thread does which writes checkpoints, else those of all others.

    Nothing is flushed to the disk in truth: that takes long, and what is killed is not affected by it.
    """

    def __init__(self, folder: Path, deadly: int = -1, half: bool = False, writer: bool = False) -> None:
        self.folder, self.deadly, self.half, self.writer = str(folder), deadly, half, writer
        self.operations: list[Operation] = []
        self.count, self._files, self._inodes = 0, 0, dict[int, int]()
        self.lock = threading.RLock()  # TensorBoard writes in a thread

    def inside(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path below the folder, "" for the folder itself; None if it lies elsewhere."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        elif dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), os.fsdecode(path))
        whole = os.path.abspath(os.fsdecode(path))
        return whole[len(self.folder) + 1 :] if whole == self.folder or whole.startswith(self.folder + "/") else None

    def number(self, status: os.stat_result, new: bool = False) -> int:
        """The number of a file; inodes alone would not do, since those of removed files are given out again."""
        if new or status.st_ino not in self._inodes:
            self._inodes[status.st_ino] = self._files
            self._files += 1
        return self._inodes[status.st_ino]

    def look_around(self) -> None:
        """Note what is there already."""
        for here, folders, files in os.walk(self.folder):
            for name in folders:
                self.operations.append(Operation("found", str(self.inside(os.path.join(here, name))), to="folder"))
            for name in files:
                path = Path(here, name)
                number = self.number(path.stat())
                self.operations.append(Operation("found", str(self.inside(path)), file=number, data=path.read_bytes()))

    @contextmanager
    def begin(self, operation: Operation) -> Iterator[None]:
        """Around the operation itself: count it, perhaps die, and note it when it is done."""
        with self.lock:
            if self.due() and not (self.half and operation.kind == "write"):
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += in_writer() == self.writer
            yield
            self.operations.append(replace(operation, writer=in_writer()))

    def due(self) -> bool:
        """Whether this thread is at the operation before which the process dies."""
        return self.count == self.deadly and in_writer() == self.writer

    def promise(self, what: str) -> None:
        with self.lock:
            self.operations.append(Operation("promise", what))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """To the end of the process: nothing is put back."""
        self.look_around()
        _replace_open(self)
        _replace_os(self)
        yield


def _replace_open(watch: Watch) -> None:
    plain, plain_os = io.open, os.open

    class File(io.FileIO):
        """A file that is written; `truncate` changes its size as well."""

        file: int

        def write(self, data: Any) -> int:
            content = bytes(data)
            with watch.lock:
                dies = watch.half and watch.due()
                if dies:
                    super().write(content[: len(content) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                end = os.fstat(self.fileno()).st_size if "a" in self.mode else self.tell()
                name = watch.inside(self.fileno()) or ""
                with watch.begin(Operation("write", name, file=self.file, offset=end, data=content)):
                    return super().write(content)

        def truncate(self, size: int | None = None) -> int:
            wanted = self.tell() if size is None else size
            with watch.begin(Operation("truncate", watch.inside(self.fileno()) or "", file=self.file, offset=wanted)):
                return super().truncate(wanted)

    def opened(path: Any, mode: str, opener: Any = None) -> File:
        name, new = watch.inside(path) or "", not os.path.lexists(path)
        with watch.lock:
            with watch.begin(Operation("create" if new else "open", name)):
                raw = File(path, mode.translate({ord("b"): None, ord("t"): None}), opener=opener)
            raw.file = watch.number(os.fstat(raw.fileno()), new)
            watch.operations[-1] = replace(watch.operations[-1], file=raw.file)
            if "w" in mode and not new:
                watch.operations.append(Operation("truncate", name, file=raw.file))
        return raw

    def open_(
        path: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if isinstance(path, int) or not set(mode) & set("wax+") or watch.inside(path) is None:
            return plain(path, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = opened(path, mode, opener)
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

    def open_descriptor(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = watch.inside(path, dir_fd)
        if name is None or not flags & CHANGES:
            return plain_os(path, flags, mode, dir_fd=dir_fd)
        new = not os.path.lexists(os.path.join(watch.folder, name))
        with watch.lock:
            with watch.begin(Operation("create" if new else "open", name)):
                descriptor = plain_os(path, flags, mode, dir_fd=dir_fd)
            number = watch.number(os.fstat(descriptor), new)
            watch.operations[-1] = replace(watch.operations[-1], file=number)
        return descriptor

    def serialize_file(tensors: Any, path: Any, metadata: Any = None) -> None:
        with open_(path, "wb") as file:
            file.write(safetensors.serialize(tensors, metadata))

    io.open = builtins.open = open_
    os.open = open_descriptor
    safetensors.torch.serialize_file = serialize_file


def _replace_os(watch: Watch) -> None:
    def fsync(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path, content = watch.inside(number) if os.fstat(number).st_nlink else None, b""
        if path is None:
            return
        whole, key = Path(watch.folder, path), -1
        if whole.is_file():
            content, key = whole.read_bytes(), watch.number(os.fstat(number))
        with watch.begin(Operation("fsync", path, file=key, data=content)):
            return

    def of_one_path(kind: str, plain: Any) -> Any:
        def changed(path: Any, *rest: Any, dir_fd: int | None = None, **more: Any) -> None:
            name = watch.inside(path, dir_fd)
            if name is None:
                plain(path, *rest, dir_fd=dir_fd, **more)
                return
            with watch.begin(Operation(kind, name)):
                plain(path, *rest, dir_fd=dir_fd, **more)

        return changed

    def renaming(plain: Any) -> Any:
        def renamed(source: Any, target: Any, **folders: Any) -> None:
            name = watch.inside(source, folders.get("src_dir_fd"))
            if name is None:
                plain(source, target, **folders)
                return
            with watch.begin(Operation("rename", name, watch.inside(target, folders.get("dst_dir_fd")) or "")):
                plain(source, target, **folders)

        return renamed

    os.fsync = os.fdatasync = fsync
    os.rename, os.replace = renaming(os.rename), renaming(os.replace)
    os.unlink = os.remove = of_one_path("unlink", os.unlink)
    os.mkdir, os.rmdir = of_one_path("mkdir", os.mkdir), of_one_path("rmdir", os.rmdir)


def in_writer() -> bool:
    """Whether this is the thread that writes checkpoints."""
    return threading.current_thread().name.startswith("checkpoint")


@dataclass(frozen=True)
class KilledBefore:
    """Kill the process before its operation `number`, or `half` way through it; -1: never.

    writer: before that of the thread that writes checkpoints, whatever the others have done by then.
    """

    folder: Path
    number: int = -1
    half: bool = False
    writer: bool = False

    def __call__(self) -> Any:
        return Watch(self.folder, self.number, self.half, self.writer).installed()


@dataclass(frozen=True)
class Recorded:
    """Write all operations, and what was promised when, to the file `record` in the end."""

    folder: Path
    record: Path

    @contextmanager
    def __call__(self) -> Iterator[None]:
        watch = Watch(self.folder)
        written, finished = checkpoint.write, Results.finish

        def write(*arguments: Any, **more: Any) -> Path:
            path = written(*arguments, **more)
            watch.promise(path.name)
            return path

        def finish(*arguments: Any) -> None:
            finished(*arguments)
            watch.promise("pipeline")

        checkpoint.write, Results.finish = write, finish
        with watch.installed():
            yield
        lines = [json.dumps({**asdict(one), "data": one.data.decode("latin-1")}) for one in watch.operations]
        self.record.write_text("\n".join(lines))


def read_record(record: Path) -> list[Operation]:
    found = [json.loads(line) for line in record.read_text().splitlines()]
    return [Operation(**{**one, "data": one["data"].encode("latin-1")}) for one in found]
