"""Fault frequencies beside the multiples of shaft speed that Case Western Reserve University publishes."""

from __future__ import annotations

import pytest

from savae_dist.evaluation.signals.bearings import BEARINGS, fault_frequencies


@pytest.mark.parametrize(
    ("name", "inner", "outer", "cage", "twice_element"),
    [("6205", 5.4152, 3.5848, 0.39828, 4.7135), ("6203", 4.9469, 3.0530, 0.3817, 3.9874)],
)
def test_published_frequencies(name: str, inner: float, outer: float, cage: float, twice_element: float) -> None:
    found = fault_frequencies(BEARINGS[name], 60)  # one turn a second
    assert found["BPFI"] == pytest.approx(inner, rel=1e-3)
    assert found["BPFO"] == pytest.approx(outer, rel=1e-3)
    assert found["FTF"] == pytest.approx(cage, rel=1e-3)
    assert 2 * found["BSF"] == pytest.approx(twice_element, rel=1e-3)
    assert fault_frequencies(BEARINGS[name], 1797)["BPFO"] == pytest.approx(found["BPFO"] * 1797 / 60)
