"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-shards", type=int, default=150, help="damaged shards that test_fuzz.py reads")


@pytest.fixture(autouse=True)
def _fresh_process() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)  # else the first test's precision is everybody's
