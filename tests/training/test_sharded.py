"""Weights that are cut into slices (`training.sharded`), on two processes; whole runs: tests/distributed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from savae_dist.testing.ranks import run_ranks

pytestmark = pytest.mark.distributed

WORKER = Path(__file__).parents[1] / "helpers" / "sharded_worker.py"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    output = run_ranks(2, str(WORKER))[0]
    return dict(json.loads(output.splitlines()[-1]))


def test_a_layout_keeps_values_and_memory(found: dict[str, Any]) -> None:
    assert found["layout"] == {"values": True, "memory": True, "mean": True}


def test_gradients_are_those_of_the_mean_loss(found: dict[str, Any]) -> None:
    """Also of a loss that has a gradient in it, of spectral norm, and of a bias that only one rank has a slice of."""
    assert found["gradients"] < 1e-14


def test_a_graph_keeps_no_whole_weight(found: dict[str, Any]) -> None:
    of = found["bytes"]
    assert of["kept"] > of["weight"]
    assert of["freed"] < of["weight"] / 100
    assert of["penalty"] < of["weight"] / 10  # of three weights, in the graph of a gradient
    assert of["slices"] < of["weight"] / 2 * 1.01


def test_networks_are_whole_inside_and_slices_after(found: dict[str, Any]) -> None:
    assert all(found["whole"].values()), found["whole"]


def test_statistics_are_those_of_ddp(found: dict[str, Any]) -> None:
    assert found["statistics"] < 1e-10
