"""Sweeps from the command line, on tiny runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import pytest
from helpers.html_pages import check_page
from helpers.launching import ROOT
from helpers.small_runs import SMALL

from savae_dist.systems import SYSTEMS
from tools import sweep

CPU = str(ROOT / "launch_configs" / "accelerate" / "cpu_1.yaml")


@pytest.mark.slow
@pytest.mark.rendered
def test_a_sweep_runs_evaluates_skips_and_tabulates(
    data: Path, judge: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two systems; what is finished is left alone, and the other is run again."""
    out = tmp_path / "sweep"
    arguments = ["demo", str(out), "system.name=dcgan,vae_gan", *SMALL, f"data.train={data}"]
    options = ["--launch", CPU, "--evaluate", str(data), "--judge", str(judge)]
    assert sweep.main([*arguments, *options]) == 0, [p.read_text() for p in out.glob("*.log")]
    first = capsys.readouterr().out
    assert "| system.name | runs | reconstruction_mse |" in first
    rows = {row["system.name"]: row for row in csv.DictReader((out / "results.csv").open())}
    assert rows.keys() == {"dcgan", "vae_gan"}
    for name, row in rows.items():
        assert row["outcome"] == "done"
        metrics = json.loads((Path(row["folder"]) / "evaluation" / "metrics.json").read_text())
        assert float(row["frechet_distance"]) == pytest.approx(metrics["frechet_distance"])
        assert float(row["training_seconds"]) > 0
        assert bool(row["reconstruction_mse"]) == (name == "vae_gan")
    picture = cv2.imread(str(out / "samples.png"))
    assert picture.std() > 10  # a row of each: wider than high
    assert picture.shape[1] > picture.shape[0] > 100
    page = check_page(out / "report.html")
    assert "Mean ± standard deviation over the seeds" in page.text
    assert "python tools/sweep.py demo" in page.text
    assert page.text.index("system.name") < page.text.index("Keys that differ")
    finished, broken = Path(rows["dcgan"]["folder"]), Path(rows["vae_gan"]["folder"])
    before = (finished / "status.json").stat().st_mtime_ns
    status = json.loads((broken / "status.json").read_text())
    (broken / "status.json").write_text(json.dumps({**status, "outcome": "Preempted", "exit_code": 75}))
    assert sweep.main([*arguments, *options, "--jobs", "2"]) == 0
    assert (finished / "status.json").stat().st_mtime_ns == before
    assert json.loads((broken / "status.json").read_text())["outcome"] == "done"
    assert capsys.readouterr().out.splitlines()[2] == first.splitlines()[2]
    assert sweep.main([*arguments, *options, "--columns", "class_balance,balance"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "| system.name | runs | class_balance |"
    assert "no run has `balance`" in said.err


@pytest.mark.slow
def test_a_sweep_of_one_s_own_system(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = tmp_path / "own.py"
    trainer.write_text(
        "import sys\n"
        "from dataclasses import dataclass\n"
        "from savae_dist.systems import SYSTEMS, VAE\n"
        "from savae_dist.train import main\n"
        "@dataclass(frozen=True)\n"
        "class Own(VAE):\n"
        "    name: str = 'own_vae'\n"
        "SYSTEMS['own_vae'] = Own()\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(main())\n"
    )
    arguments = ["demo", str(tmp_path / "sweep"), "system.name=own_vae,vae", *SMALL, f"data.train={data}"]
    try:
        assert sweep.main([*arguments, "--launch", CPU, "--trainer", str(trainer)]) == 0
    finally:
        SYSTEMS.pop("own_vae", None)
    table = capsys.readouterr().out
    assert table.count("| own_vae | 1 |") == table.count("| vae | 1 |") == 1


def test_a_judge_that_is_missing_shows_before_the_first_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["dcgan", str(tmp_path / "sweep"), *SMALL, f"data.train={data}", "--evaluate", str(data)]
    assert sweep.main([*arguments, "--judge", str(tmp_path / "none")]) != 0
    assert str(tmp_path / "none") in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_a_run_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sweep"
    assert sweep.main(["demo", str(out), f"data.train={tmp_path / 'nowhere'}", "--launch", CPU]) == 1
    (log,) = out.glob("*.log")
    assert str(log) in capsys.readouterr().err
    assert "nowhere" in log.read_text()
