from __future__ import annotations

import json
import tempfile
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from savae_dist.benchmarks import gpu_check
from savae_dist.benchmarks.apart import apart
from tools import benchmark

CELLS = tuple(gpu_check.Cell(shape, 2, "vec") for shape in ((1, 28, 28), (1, 1024)))
WORDS = ["--device", "cpu", "--seconds", "0", "--batch", "4"]


def test_the_page_tells_what_was_measured_and_what_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell that fails takes no other along, here one of a phase that there is not."""
    fails = gpu_check.Cell((1, 28, 28), 2, "no phase")
    monkeypatch.setattr(gpu_check, "CELLS", (fails, *CELLS))
    assert benchmark.main(["gpu", str(tmp_path / "out"), *WORDS]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("28x28") or "1024," in line]
    assert said[0] == f"{fails}: not measured, since its process ended with an error"
    assert said[1].startswith("28x28, width 2, vec: ")
    numbers = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert list(numbers["cells"]) == [str(cell) for cell in CELLS]
    assert numbers["failed"] == {str(fails): "its process ended with an error"}
    assert numbers["left_out"] == []
    for one in numbers["cells"].values():
        assert one["memory"] is None
        assert one["share"] is None
        assert min(one["samples_per_second"], one["bare"], one["host_ms"]) > 0
        assert one["launches"] > one["bare_launches"] / 2 > 0
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert page.count("| not measured |") == 4
    assert f"- {fails}: its process ended" in page


def test_a_cell_that_hangs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "CELLS", CELLS[:1])
    monkeypatch.setattr(gpu_check, "CELL_SECONDS", 0.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert benchmark.main(["gpu", str(tmp_path / "out"), *WORDS]) == 0
    assert f"{CELLS[0]}: not measured, since it took over 0 s" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "gpu.json").read_text())["failed"] == {str(CELLS[0]): "it took over 0 s"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no samples are left behind


def test_the_limit_ends_what_is_under_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert benchmark.main(["gpu", str(tmp_path / "out"), *WORDS, "--limit", "0.5"]) == 0
    assert time.monotonic() - began < 20
    assert f"left out, since 0.5 s have passed: {gpu_check.CELLS[0]}" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out" / "gpu.json").read_text())["left_out"]) == len(gpu_check.CELLS)
    assert "- 128x128, width 64, decoder, compiled" in (tmp_path / "out" / "gpu.md").read_text()


def test_work_apart_can_neither_hang_nor_end_this_process(capfd: pytest.CaptureFixture[str]) -> None:
    with apart(map, int, ["3", "four"]) as result:
        assert result(60) == 3
        with pytest.raises(EOFError):
            result(60)
    assert "invalid literal for int() with base 10: 'four'" in capfd.readouterr().err
    with apart(map, time.sleep, [0, 60]) as result:
        assert result(60) is None
        with pytest.raises(TimeoutError):
            result(0.1)
    assert not active_children()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["gpu", str(tmp_path / "out")]) == 2
    assert "no CUDA GPU is here: run it on one, or write the same page for this CPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
