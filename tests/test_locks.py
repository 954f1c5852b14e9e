"""One at a time: locks between processes, and what a fork makes of them."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import filelock
import pytest

from savae_dist.locks import PathLock, locked, try_lock


def test_one_has_a_path_lock(tmp_path: Path) -> None:
    first, second = PathLock(tmp_path / ".lock"), PathLock(tmp_path / ".lock")
    with first:
        assert not second.acquire(0.0)
        assert (first.held, second.held) == (True, False)
    assert second.acquire(0.0)
    second.release()
    second.release()  # once more does no harm


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_file_systems_without_locks_go_without(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: int) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(filelock._unix, "lock_fd_nonblocking", none)
    with PathLock(tmp_path / ".lock"), PathLock(tmp_path / ".lock") as second:
        assert not second.held
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_other_failures_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        PathLock(tmp_path / "file" / ".lock").acquire()


def test_a_lock_on_an_open_file(tmp_path: Path) -> None:
    with (tmp_path / "a").open("ab") as one, (tmp_path / "a").open("ab") as other:
        with locked(one):
            assert try_lock(one)  # again, which changes nothing
            assert not try_lock(other)
            (tmp_path / "a").rename(tmp_path / "b")
            assert not try_lock(other)
        assert try_lock(other)


@pytest.mark.parametrize("explicitly", [True, False])
def test_a_child_keeps_the_lock_until_it_is_given_back(explicitly: bool, tmp_path: Path) -> None:
    file, (read, write) = (tmp_path / "a").open("ab"), os.pipe()
    with locked(file) if explicitly else nullcontext():
        assert try_lock(file)
        child = os.fork()
        if not child:
            os.read(read, 1)
            os._exit(0)
    file.close()
    with (tmp_path / "a").open("ab") as other:
        assert try_lock(other) == explicitly
        os.write(write, b"x")
        os.waitpid(child, 0)
        assert try_lock(other)
