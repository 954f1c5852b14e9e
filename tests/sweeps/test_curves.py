"""The picture of several runs' curves."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.tensorboard import summary

from savae_dist.files import write_json
from savae_dist.pages.curves import read as curves_of
from savae_dist.run.reporting.events import EventFile
from savae_dist.sweeps import curves


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two logs and a validation of a run that was warned."""
    events = EventFile(tmp_path / "tensorboard", first=1)
    for step, value in ((10, 1.0), (20, 0.5)):
        tags = ("critic/real", "critic/lr", "decoder/rec", "gradient_share/rec", "generated/variance")
        events.append([summary.scalar(tag, value) for tag in tags], step)
    events.append([summary.scalar(f"validation/{name}", 0.25) for name in ("accuracy", "kl")], 20)
    told = {"a": "decoder step 20: class lost: more flips", "b": "vec step 9: class lost: again"}
    write_json(tmp_path / "summary.json", {"warnings": list(told.values())})
    return tmp_path


def test_each_row_has_its_curves(run: Path) -> None:
    read = curves_of(run)
    assert read["critic/real"] == ([10, 20], [1.0, 0.5])
    assert {row: list(curves.of_row(read, row)) for row in curves.ROWS} == {
        "critic's loss": ["real"],
        "share of the gradient": ["rec"],
        "generated against real": ["variance"],
        "validation": ["accuracy"],
    }


def test_a_column_for_each_run(run: Path, tmp_path: Path) -> None:
    figure = curves.draw([("sick", run), ("not begun", tmp_path / "none")])
    axes = figure.axes
    assert len(axes) == 2 * len(curves.ROWS)
    assert axes[0].get_title() == "sick\nclass lost"  # each sign once
    assert axes[1].get_title() == "not begun\nno warning"
    assert [list(line.get_ydata()) for line in axes[0].lines] == [[1.0, 0.5]]
    assert not axes[1].lines
