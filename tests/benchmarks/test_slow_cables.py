"""`benchmark.py hosts`: a slow cable slows a run down, and the prediction knows it."""

from __future__ import annotations

import subprocess

import pytest
from helpers.launching import environment

from savae_dist.testing.two_hosts import why_not
from savae_dist.tool_command import tool_command

REASON = why_not()
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]


def test_what_is_predicted_and_what_is_measured() -> None:
    words = ["--width=4", "--batch=16", "--seconds=2", "--rounds=1", "--gbit=0.02,10", "precision=fp32"]
    done = subprocess.run(
        [*tool_command("benchmark"), "hosts", *words], env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    _, head, one, slow, fast = done.stdout.splitlines()
    assert "vec: predicted" in head
    assert "decoder: predicted" in head
    assert one.startswith("one process")
    assert slow.startswith("0.02 Gbit/s")
    assert fast.startswith("10 Gbit/s")
    for in_slow, in_fast in zip(slow.split()[2:], fast.split()[2:], strict=True):
        assert 0 < 2 * float(in_slow) < float(in_fast)
