"""Source distribution and wheel: built one from the other, installed beside nothing of the checkout, and run."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest
from helpers.launching import ROOT

import savae_dist

pytestmark = pytest.mark.slow


def run(command: list[str | Path], folder: Path) -> str:
    """What a command prints that must succeed, in a folder, without the checkout on its path."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run([*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a new environment, into which the wheel was installed.

    Its dependencies are those of this environment, whose own .pth files, that of the checkout among them, are not read.
    """
    home = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-d", home]
    run([*build, "-t", "sdist"], ROOT)
    (source,) = home.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(home, filter="data")
    run([*build, "-t", "wheel"], home / source.name.removesuffix(".tar.gz"))
    (wheel,) = home.glob("*.whl")
    venv.create(home / "clean")
    (packages,) = (home / "clean" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    target = ["--python", home / "clean" / "bin" / "python", "install", "--no-deps", "--no-index", "-q", wheel]
    run([sys.executable, "-m", "pip", "--disable-pip-version-check", *target], home)
    return home / "clean" / "bin"


def test_it_is_run_from_an_empty_folder(programs: Path, tmp_path: Path) -> None:
    place = "import savae_dist; print(savae_dist.__file__, savae_dist.__version__)"
    told = run([programs / "python", "-c", place], tmp_path)
    assert told.startswith(str(programs.parent))
    assert told.split()[1] == savae_dist.__version__
    assert "done." in run([programs / "savae-train", "demo", "max_steps=2", "output=trained"], tmp_path)
    assert run([programs / "savae-predict", "--version"], tmp_path) == f"savae_dist {savae_dist.__version__}\n"
    run([programs / "savae-generate", "trained", "samples", "--count", "2", "--seed", "0"], tmp_path)
    assert len([*(tmp_path / "samples").glob("*.png")]) == 2


def test_launch_files_and_job_scripts_are_in_it(programs: Path, tmp_path: Path) -> None:
    (inside,) = programs.parent.glob("lib/python*/site-packages/savae_dist/launch_configs")
    held = {path.relative_to(inside) for path in inside.rglob("*") if path.is_file()}
    folder = ROOT / "launch_configs"
    assert held == {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert all((inside / path).read_bytes() == (folder / path).read_bytes() for path in held)
    told = run([programs / "savae-train", "--launch", "cpu_1.yaml", "demo", "--print-config"], tmp_path)
    assert "system:" in told
