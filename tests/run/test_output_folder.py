"""Only a new folder, an empty one or a run's may be a run's output."""

from __future__ import annotations

from pathlib import Path

import pytest

from savae_dist.errors import ConfigError
from savae_dist.run.output_folder import check_output
from savae_dist.train import main

REST = {"status.json": "{}", "status-node1.json": "{}", ".lock": "", ".launch-0f": "", ".config.yaml.1f.draft": ""}


def filled(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text("")
    return folder


@pytest.mark.parametrize(
    "names", [(), ("config.yaml", "notes.txt"), ("checkpoints",), tuple(REST), ("lost+found", "slurm-7.out")]
)
def test_a_run_or_nothing_yet(names: tuple[str, ...], tmp_path: Path) -> None:
    check_output(tmp_path / "new")
    check_output(filled(tmp_path / "folder", *names))
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == sorted(names)


@pytest.mark.parametrize("name", [".bashrc", "photograph.jpg", "figures"])
def test_what_is_no_run_is_left_alone(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = filled(tmp_path / "home", name, "status.json")
    for more in ([], ["--check"]):
        assert main(["max_steps=1", f"output={folder}", *more]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert f"output={folder} is no run and not empty (it holds {name})" in said
    assert {path.name for path in folder.iterdir()} == {name, "status.json"}
    assert (folder / "status.json").read_text() == ""


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_output(tmp_path / "file")  # refused where it is opened, with the system's reason
    with pytest.raises(ConfigError):
        check_output(tmp_path)
