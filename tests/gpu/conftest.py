"""Tests that need a GPU; SAVAE_GPU_TESTS_DEVICE=cpu runs them on a CPU, as far as possible."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from savae_dist.precision import set_tf32

# cuBLAS sums in a fixed order only if this is set before the first product, also in processes that tests start.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The device to test, float32 exact as in a run."""
    assert "gpu" in request.keywords, "mark it, else `make gpu-check` does not run it"
    asked = os.environ.get("SAVAE_GPU_TESTS_DEVICE", "cuda")
    if asked != "cpu" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU is here")
    set_tf32("fp32")
    yield torch.device(asked)
    set_tf32("fp32")


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Use kernels that sum in a fixed order; torch warns if it has none."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
