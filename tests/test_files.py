"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch

from savae_dist.files import (
    discard,
    draft_of,
    finite_or_null,
    publish,
    remove_drafts,
    remove_replaced,
    replaced,
    write_bytes,
    write_json,
)


def read(path: Path) -> object:
    return json.loads(path.read_text())


def test_write_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, None]})
    write_json(tmp_path / "a.json", {"x": 2})
    assert read(tmp_path / "a.json") == {"x": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def cut(self: Path, data: bytes) -> None:
        with self.open("wb") as file:
            file.write(data[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", cut)
        with pytest.raises(OSError, match="No space"):
            write_json(path, {"x": 2})
    with pytest.raises(TypeError):
        write_json(path, {"x": torch.zeros(1)})
    assert read(path) == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]  # and nothing that takes the last of the space


def test_numbers_that_json_does_not_know_become_null() -> None:
    assert finite_or_null({"nan": float("nan"), "inf": float("inf"), "one": 1.0}) == {
        "nan": None,
        "inf": None,
        "one": 1,
    }


def test_a_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    write_bytes(tmp_path / "b", b"")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_drafts_are_hidden_and_never_shared(tmp_path: Path) -> None:
    drafts = {draft_of(tmp_path / "a.json") for _ in range(20)}
    assert len(drafts) == 20
    assert all(draft.parent == tmp_path and draft.name.startswith(".a.json.") for draft in drafts)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is brought to the disk and what is renamed, in order."""
    steps: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def note_fsync(descriptor: int) -> None:
        steps.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        steps.append(("rename", Path(target).name))
        return replace(self, target)

    def note_rename(self: Path, target: Path) -> Path:
        steps.append(("rename", Path(target).name))
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    monkeypatch.setattr(Path, "rename", note_rename)
    return steps


def test_a_name_comes_after_its_content(tmp_path: Path, done: list[tuple[str, str]]) -> None:
    write_bytes(tmp_path / "a", b"1")
    assert done[0][1].startswith(".a.")
    assert done == [("fsync", done[0][1]), ("rename", "a"), ("fsync", tmp_path.name)]


def test_a_folder_takes_the_place_of_an_older_one(tmp_path: Path, done: list[tuple[str, str]]) -> None:
    for name, text in (("draft", "new"), ("target", "old")):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "file").write_text(text)
    publish(tmp_path / "draft", tmp_path / "target")
    (old,) = replaced(tmp_path / "target")
    assert (tmp_path / "target" / "inner" / "file").read_text() == "new"
    assert (old / "inner" / "file").read_text() == "old"
    assert [name for what, name in done if what == "fsync"] == ["file", "inner", "draft", tmp_path.name]
    assert [name for what, name in done if what == "rename"] == [old.name, "target"]
    assert done[-1] == ("fsync", tmp_path.name)
    remove_replaced(tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_a_folder_that_another_process_puts_there_meanwhile_is_replaced_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two packers of the demo's digits, on a file system without locks."""
    for name in ("draft", "theirs", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    rename = Path.rename

    def overtaken(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        if (tmp_path / "theirs").exists():
            rename(tmp_path / "theirs", tmp_path / "target")
        return moved

    monkeypatch.setattr(Path, "rename", overtaken)
    publish(tmp_path / "draft", tmp_path / "target")
    assert (tmp_path / "target" / "file").read_text() == "draft"
    assert sorted((old / "file").read_text() for old in replaced(tmp_path / "target")) == ["target", "theirs"]


def test_inside_a_draft_only_its_publication_flushes(tmp_path: Path, done: list[tuple[str, str]]) -> None:
    draft = draft_of(tmp_path / "target")
    draft.mkdir()
    for name in ("a.json", "b.json"):
        write_json(draft / name, {})
    assert [name for what, name in done if what == "fsync"] == []
    publish(draft, tmp_path / "target")
    assert sorted(name for what, name in done if what == "fsync")[1:] == ["a.json", "b.json", tmp_path.name]


def test_a_folder_that_goes_is_never_there_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda path: (_ for _ in ()).throw(OSError(errno.EBUSY, "busy")))
        with pytest.raises(OSError, match="busy"):
            discard(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    remove_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "raised"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_file_systems_that_cannot_flush_folders(
    number: int, raised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def refused(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refused)
    if raised:
        with pytest.raises(OSError, match=os.strerror(number)):
            write_bytes(tmp_path / "a", b"1")
    else:
        write_bytes(tmp_path / "a", b"1")
        assert (tmp_path / "a").read_bytes() == b"1"


def test_drafts_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in ("a.json", ".hidden", "a.draft", ".a.json.abcdef")]
    for path in (*kept, draft_of(tmp_path / "a.json"), draft_of(tmp_path / "labels.npy")):
        path.write_text("x")
    remove_drafts(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
