from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from savae_dist.benchmarks import gpu_check
from tools import benchmark

TWO = (gpu_check.Cell((1, 28, 28), 2, "vec"), gpu_check.Cell((1, 1024), 2, "vec"))


def test_the_page_tells_what_was_measured_and_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_check, "CELLS", (*TWO, *gpu_check.CELLS))
    monkeypatch.setattr(gpu_check, "PEAK_SIDE", {"cpu": 32})
    words = ["gpu", str(tmp_path / "out"), "--device", "cpu", "--seconds", "0", "--batch", "4"]
    clock = iter([0.0, 1.0, 2.0, 99.0])  # at the begin, and before each cell
    monkeypatch.setattr(gpu_check, "monotonic", lambda: next(clock))
    assert benchmark.main([*words, "--limit", "50"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("28x28, width 2, vec: ")
    assert said[3] == f"left out, since 50 s have passed: {gpu_check.CELLS[2]}"
    numbers = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert list(numbers["cells"]) == [str(cell) for cell in TWO]
    assert len(numbers["left_out"]) == len(gpu_check.CELLS) - 2
    for one in numbers["cells"].values():
        assert one["memory"] is None
        assert min(one["samples_per_second"], one["bare"], one["share"], one["host_ms"]) > 0
        assert one["launches"] > one["bare_launches"] / 2 > 0
    page = (tmp_path / "out" / "gpu.md").read_text()
    assert page.count("| not measured |") == 2
    assert "- 128x128, width 64, decoder, compiled" in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["gpu", str(tmp_path / "out")]) == 2
    assert "no CUDA GPU is here: run it on one, or write the same page for this CPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
