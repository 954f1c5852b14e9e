"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from helpers.launching import shards
from matplotlib.figure import Figure

from savae_dist.run.validation import TrainingFigures


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-shards", type=int, default=150, help="damaged shards that test_fuzz.py reads")


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)  # else the first test's precision is everybody's


@pytest.fixture(autouse=True)
def _blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are built but left blank, and of training samples not built: that is most of a short run's time."""
    if "rendered" not in request.keywords:
        monkeypatch.setattr(Figure, "draw", lambda figure, renderer: None)
        monkeypatch.setattr(TrainingFigures, "draw", lambda figures, pipeline, folder: {})  # most runs of tests


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 203 images of 12x12 in four classes, a third of them unlabelled."""
    return shards(tmp_path_factory.mktemp("data") / "shards")
