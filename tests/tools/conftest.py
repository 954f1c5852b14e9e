"""What the tests of sweeps and of evaluation share."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.launching import shards
from helpers.small_runs import trained


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few samples, since each run is evaluated on all of them."""
    return shards(tmp_path_factory.mktemp("data") / "shards", n=60)


@pytest.fixture(scope="package")
def judge(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose pipeline has an encoder and a classifier."""
    return trained("savae", data, tmp_path_factory.mktemp("judge") / "run")
