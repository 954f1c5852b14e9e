"""Figure 9: its grid, what is measured, the rule by which it is read, and the whole of it on tiny runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.launching import ROOT, shards
from matplotlib.patches import Rectangle

from savae_dist.errors import ConfigError
from savae_dist.files import read_object, write_json
from savae_dist.load_config import load
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.run.reporting.tracker import Tracker
from savae_dist.sweeps import running
from savae_dist.sweeps.figure9 import classes, measured, plan, report
from savae_dist.sweeps.figure9.decision import Decision, decide
from savae_dist.sweeps.figure9.measured import MEASURES, Point
from savae_dist.sweeps.trials import Trial
from savae_dist.train import main as train
from tools import sweep

PLANS = sorted((ROOT / "launch_configs" / "comparisons").glob("figure9*.yaml"))
TINY = """
figure9:
  judge: [judge_mnist, system.steps=2]
  phase_1: {{K=2: [mnist_k2, system.vec_steps=2]}}
  phase_2: [system.decoder_steps=2, validate_every=1, data.batch_size=4]
  common: [data.train={data}, data.hold_out=0.5, networks.width=4, data.batch_size=8, precision=fp32]
  beta: [0.1]
  gamma: [0, 0.1]
  seeds: {{K=2: [0]}}
  test: {data}
"""


@pytest.mark.parametrize("file", PLANS, ids=lambda file: file.stem)
def test_the_plans_that_come_along_resolve(file: Path, tmp_path: Path) -> None:
    asked = plan.read(file)
    first = {name: seeds[:1] for name, seeds in asked.seeds.items()}
    grid = plan.grid(replace(asked, seeds=first), tmp_path)
    assert len(grid.cells) == len(first) * len(asked.axes) * len(asked.beta) * len(asked.gamma)
    assert len({trial.folder for trial in grid.runs}) == len(grid.runs)
    cell = grid.cells[-1]
    judge, start = grid.needs(cell)
    assert (cell.resolved.judge, cell.resolved.networks.initial) == (str(judge.folder), str(start.folder))
    assert (start.resolved.system.decoder_steps, cell.resolved.system.vec_steps) == (0, 0)
    held_out = {(trial.resolved.data.validation, trial.resolved.data.hold_out) for trial in grid.runs}
    assert len(held_out) == 1  # nobody sees what the settings are chosen by
    assert held_out != {(None, 0.0)}


def test_a_change_of_phase_2_is_a_row_of_its_own(tmp_path: Path) -> None:
    """Each change is made in its own cells and in nothing before them, and is read by itself."""
    file = tmp_path / "plan.yaml"
    file.write_text(TINY.format(data="data") + "  axes: {'': [], n_dis 2: [system.critic_steps=2]}\n")
    grid = plan.grid(plan.read(file), tmp_path)
    assert [(plan.row_of(cell), cell.resolved.system.critic_steps) for cell in grid.cells] == [
        *[("2", 1)] * 2,
        *[("2, n_dis 2", 2)] * 2,
    ]
    assert len(grid.runs) == 1 + 1 + 4
    assert grid.cells[2].folder.name.startswith("K=2-axis=n_dis_2-beta=0.1-gamma=0-seed=0-")
    file.write_text(TINY.format(data="data"))
    assert [cell.folder.name for cell in plan.grid(plan.read(file), tmp_path).cells] == [
        cell.folder.name for cell in grid.cells[:2]
    ]
    points = measured.points(grid.cells, {cell.folder: dict.fromkeys(MEASURES, 0.5) for cell in grid.cells})
    assert report.decisions(points).keys() == {"2", "2, n_dis 2"}


def test_a_moved_folder_is_known_again(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(TINY.format(data="data"))
    here, there = (plan.grid(plan.read(file), tmp_path / name) for name in ("here", "there"))
    assert [trial.folder.name for trial in here.runs] == [trial.folder.name for trial in there.runs]
    assert here.cells[0].folder != there.cells[0].folder


def test_what_another_judge_saw_is_not_read(tmp_path: Path) -> None:
    plans = [tmp_path / "one.yaml", tmp_path / "other.yaml"]
    for file, word in zip(plans, ("", ", seed=5")):
        text = TINY.format(data="data")
        line = next(one for one in text.splitlines() if one.strip().startswith("judge:"))
        file.write_text(text.replace(line, line.replace("]", f"{word}]")))
    here, there = (plan.grid(plan.read(file), tmp_path / "out") for file in plans)
    assert not {trial.folder for trial in here.runs} & {trial.folder for trial in there.runs}


@pytest.mark.parametrize(
    ("before", "after"),
    [("test:", "tests:"), ("seeds: {{K=2", "seeds: {{K=3"), ("figure9:", "x: 1\nfigure9:"), ("K=2", "2")],
)
def test_a_wrong_plan_is_one_line(before: str, after: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(TINY.replace(before, after).format(data="data"))
    with pytest.raises(ConfigError, match=r"plan\.yaml: `"):
        plan.read(file)


def point(beta: str, gamma: str, flips: Sequence[float], sharpness: float) -> Point:
    return Point("2", beta, gamma, tuple({"judge_flip_rate": one, "sharpness": sharpness} for one in flips))


def test_the_rule_by_hand() -> None:
    grid = [
        point("0", "0", [0.02, 0.04], 0.1),
        point("0.01", "0", [0.06, 0.04], 0.5),  # below (.1 + 1) / 2
        point("0.03", "0", [0.20, 0.08], 0.9),  # 11 points more than at beta 0
        point("0.1", "0", [0.9, 0.2], 1.1),
        point("0.03", "0.1", [0.07, 0.07], 0.8),
        point("0.1", "0.1", [0.5, 0.5], 1.0),
    ]
    assert decide(grid) == Decision("0.03", "0.03", "0.1", ("0.03", "0.1"))
    assert decide(grid[:2]) == Decision(None, None, None, ("0.01", "0"))


def test_distances_of_centroids_by_hand() -> None:
    """Centroids 3, 4 and 5 apart; every sample is 2 from its own, and an unlabelled one is far from all."""
    centres, y = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 0, 1, 1, 2, 2, -1])
    codes = torch.cat([centres.repeat_interleave(2, 0) + torch.tensor([[2.0, 0.0], [-2.0, 0.0]]).repeat(3, 1)])
    codes = torch.cat([codes, torch.full((1, 2), 1000.0)])
    found = classes.distances(codes, y, 3)
    assert found.tolist() == [[0, 1.5, 2], [1.5, 0, 2.5], [2, 2.5, 0]]
    assert classes.table(found, "abc")[2] == "| a | b 1.50 | c 2.00 |"


def test_a_figure_is_the_mean_of_the_last_five_validations(tmp_path: Path) -> None:
    """The last is in summary.json, and counts once; of a step that a resumed run validated again the later counts."""
    trial = Trial((), {}, load(["judge_mnist"]), tmp_path)
    assert measured.selection(trial) is None
    write_json(tmp_path / "status.json", {"outcome": "done", "exit_code": 0})
    write_json(tmp_path / "summary.json", {**dict.fromkeys(MEASURES, 1.0), "steps": {"decoder": 7}})
    for launch, steps in enumerate([(1, 2, 3, 4), (4, 5, 6), (7,)]):
        tracker = Tracker(tmp_path / "tensorboard", 9, steps[0] - 1, main=True)
        for step in steps:
            tracker.scalars({f"validation/{name}": 10.0 * step + launch for name in MEASURES}, step)
        tracker.close()
    expected = (30 + 41 + 51 + 61 + 1) / 5
    assert measured.selection(trial) == pytest.approx(dict.fromkeys(MEASURES, expected))


def test_the_whole_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Cells go on from the shared phase 1 to the bit, the report is there, and nothing is run or scored twice."""
    started: list[str] = []

    def run(trial: Trial, launch: str | None = None) -> None:
        if trial.exit_code is None:
            started.append(trial.folder.name)
            assert train([*trial.arguments, f"output={trial.folder}"]) == 0

    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(running, "for_each", lambda trials, work, jobs: [work(trial) for trial in trials])
    file, out = tmp_path / "figure9.yaml", tmp_path / "out"
    file.write_text(TINY.format(data=shards(tmp_path / "data", n=60)))
    assert sweep.main([str(file), str(out), "--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 1 + 1 + 2
    assert f"{file} {out} --cell 3  # K=2-beta=0.1-gamma=0.1-seed=0-" in listed[3]
    assert sweep.main([str(file), str(out), "--cell", "3"]) == ConfigError.code
    assert "run --cell 0 first" in capsys.readouterr().err
    assert sweep.main([str(file), str(out), "--cell", "0"]) == 0

    assert sweep.main([str(file), str(out)]) == 0
    told = capsys.readouterr()
    assert "minutes for what is left of 4 runs" in told.err
    assert started[0].startswith("judge-")
    assert len(started) == len(set(started)) == 5  # the trial run for the cost, too
    assert told.out.count("| 2 | 0.1 | 0 | 1 |") == 2  # on held-out and on test samples
    assert {path.name for path in out.glob("*.png")} == {"selection-2.png", "test-2.png", "images-2.png"}
    assert set(json.loads((out / "decision.json").read_text())) == {"2"}

    grid = plan.grid(plan.read(file), out)
    first = Pipeline.from_pretrained(grid.phase_1["K=2", "0"].folder).networks
    for cell in grid.cells:
        networks = Pipeline.from_pretrained(cell.folder).networks
        for role in ("encoder", "classifier"):
            pairs = zip(first[role].state_dict().values(), networks[role].state_dict().values(), strict=True)
            assert all((a == b).all() for a, b in pairs), role
        assert set(read_object(cell.folder / "test.json")) == {"shards", *MEASURES}
    assert sweep.main([str(file), str(out)]) == 0
    assert len(started) == 5

    judge = Pipeline.from_pretrained(grid.judge.folder)
    with pytest.raises(ConfigError, match=r"test\.json is of .*data, not of other, and the test set is scored once"):
        measured.test(grid.cells[0], "other", judge)
    monkeypatch.setattr(report, "decision", lambda judge, x: (x.flatten(1).mean(1) * 100).long())
    drawn = []
    monkeypatch.setattr(report.figures, "save", lambda figure, path: drawn.append(figure) or path)
    report.draw_images(grid.cells, str(tmp_path / "data"), judge, out)
    frames = [len([p for p in axes.patches if isinstance(p, Rectangle)]) for axes in drawn[0].axes]
    assert frames[0] == frames[2] == 0  # none around the images themselves
    assert frames[1] > 0
