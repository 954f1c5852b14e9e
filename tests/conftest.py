"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from helpers import hub_stub
from helpers.launching import shards
from huggingface_hub import close_session, constants
from matplotlib.figure import Figure

from savae_dist.run.validation import TrainingFigures


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-shards", type=int, default=150, help="damaged shards that test_fuzz.py reads")


def pytest_configure() -> None:
    torch.set_num_threads(1)  # before any fixture, since sums differ in their last bits with the number of threads


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
        monkeypatch.setattr(TrainingFigures, "draw", lambda *asked, **options: {})  # most runs of tests


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 203 images of 12x12 in four classes, a third of them unlabelled."""
    return shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[hub_stub.Hub]:
    """A stub of the Hub on loopback, with a token at hand, for this process and those that it starts."""
    with hub_stub.running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for key, value in {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "home"),
        }.items():
            monkeypatch.setenv(key, value)
        monkeypatch.setenv("HF_TOKEN", hub_stub.TOKEN)
        yield hub
        close_session()  # its connections would stay open in this process
