"""Sweep and evaluation from the command line, on tiny runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from helpers.launching import ROOT, shards

from savae_dist.config.identity import digest
from savae_dist.config.load import load
from savae_dist.errors import ConfigError
from savae_dist.evaluation import metrics, report
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.systems import SYSTEMS
from savae_dist.train import main as train
from tools import evaluate, sweep
from tools.trials import combine, split

CPU = str(ROOT / "launch_configs" / "accelerate" / "cpu_1.yaml")
SMALL = ["networks.width=4", "system.latent_dim=3", "data.batch_size=16", "max_steps=2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shards(tmp_path_factory.mktemp("data") / "shards", n=60)


@pytest.fixture(scope="module")
def judge(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("savae", data, tmp_path_factory.mktemp("judge") / "run")


@pytest.fixture(scope="module")
def generator(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained("dcgan", data, tmp_path_factory.mktemp("generator") / "run")


def trained(system: str, data: Path, output: Path) -> Path:
    assert train([f"system.name={system}", *SMALL, f"data.train={data}", f"output={output}"]) == 0
    return output


def test_values_are_split_outside_brackets() -> None:
    assert split("0,0.5") == ["0", "0.5"]
    assert split("[1,0.1],[0,1]") == ["[1,0.1]", "[0,1]"]
    assert split("{a: 1, b: [2,3]},none") == ["{a: 1, b: [2,3]}", "none"]
    assert split("") == [""]


def test_every_combination_has_a_folder_of_its_own(tmp_path: Path) -> None:
    found = combine("dcgan,wgan", tmp_path, ["seed=0,1", "max_steps=3"])
    named = [(config, seed) for seed in "01" for config in ("dcgan", "wgan")]
    assert [t.arguments for t in found] == [(config, f"seed={seed}", "max_steps=3") for config, seed in named]
    assert [t.varied for t in found] == [{"config": config, "seed": seed} for config, seed in named]
    assert [(t.resolved.system.name, str(t.resolved.seed)) for t in found] == named
    assert len({t.folder for t in found}) == 4
    longer = combine("dcgan,wgan", tmp_path, ["seed=0,1", "max_steps=4"])
    assert not {t.folder for t in found} & {t.folder for t in longer}  # other runs, though the same values vary
    assert found[0].folder.name == f"config=dcgan-seed=0-{digest(load(['dcgan', 'seed=0', 'max_steps=3']))}"


def test_a_comparison_names_its_runs(tmp_path: Path) -> None:
    """What is common goes before a run's own keys, and the command line after both."""
    file = tmp_path / "compare.yaml"
    file.write_text("common: [max_steps=3, seed=5]\ncompare: {ours: [dcgan], 'a, b': [wgan, max_steps=4, ema=0.5]}")
    found = combine(str(file), tmp_path, ["seed=0,1", "ema=0.9"])
    assert [t.varied for t in found] == [{"name": name, "seed": seed} for seed in "01" for name in ("ours", "a, b")]
    assert found[3].arguments == ("max_steps=3", "seed=5", "wgan", "max_steps=4", "ema=0.5", "seed=1", "ema=0.9")
    assert [(t.resolved.system.name, t.resolved.max_steps) for t in found[:2]] == [("dcgan", 3), ("wgan", 4)]
    assert (found[3].resolved.seed, found[3].resolved.ema) == (1, 0.9)
    assert found[1].folder.name.startswith("name=a_b-seed=0-")


@pytest.mark.parametrize(
    "content",
    ["compare: [dcgan]", "compare: {}", "compare: {a: dcgan}", "compare: {a: [1]}", "compare: {a: [wgan]}\nseed: 1"],
)
def test_a_wrong_comparison_is_one_line(content: str, tmp_path: Path) -> None:
    file = tmp_path / "compare.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"compare\.yaml: .*PRESET, key=value"):
        combine(str(file), tmp_path / "sweep", [])


@pytest.mark.parametrize("content", [b"compare: {a: [x=[1,2]}", b"\xff\xfe", b"compare: {a: [], a: []}"])
def test_a_file_that_is_no_yaml_is_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "compare.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"compare\.yaml cannot be read as YAML: .*"):
        combine(str(file), tmp_path / "sweep", [])


@pytest.mark.parametrize("file", sorted((ROOT / "launch_configs" / "comparisons").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_comparisons_that_come_along_resolve(file: Path, tmp_path: Path) -> None:
    found = combine(str(file), tmp_path, ["seed=0,1"])
    assert len(found) == 2 * len(yaml.safe_load(file.read_text())["compare"])
    if file.stem == "mnist":  # the same for all
        assert {t.resolved.system.name for t in found} == SYSTEMS.keys()
        assert {(t.resolved.networks.width, t.resolved.data.batch_size) for t in found} == {(8, 128)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=0,1", "seed=2"], "each key once"),
        (["output=here"], "the sweep's"),
        (["seed"], "each key once"),
        (["system.critic_stepz=1,2"], "critic_stepz"),
        (["system.critic_steps=1,0"], "critic_steps"),
        (["optimizers.default.lr=1e-3,1e-4"], "has no effect where every update has its own"),
        (["ema=0,0.0"], "are the same run"),
    ],
)
def test_a_wrong_sweep_ends_before_it_begins(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        combine("dcgan", tmp_path / "sweep", arguments)
    assert not (tmp_path / "sweep").exists()


def test_the_table_is_mean_and_deviation_over_seeds() -> None:
    rows = [
        {"system.name": name, "seed": seed, "exit_code": code, "outcome": outcome, "accuracy": value}
        for name, seed, code, outcome, value in (
            ("savae", "0", 0, "done", 0.9),
            ("savae", "1", 0, "done", 0.8),
            ("dcgan", "0", 0, "done", None),
            ("dcgan", "1", 70, "DivergedError", None),
        )
    ]
    lines = sweep.markdown(rows, ["system.name", "seed"], ["accuracy", "sharpness"]).splitlines()
    assert lines == [
        "| system.name | runs | accuracy |",
        "| --- | --- | --- |",
        "| savae | 2 | 0.85 ± 0.071 |",
        "| dcgan | 1, 1 DivergedError | - |",
    ]


def test_what_an_evaluation_did_not_measure_hides_no_baseline(tmp_path: Path) -> None:
    """evaluate.py is not given the training set; the run knows the baselines of its own validation set, no other's."""
    (trial,) = combine("mnist_k2", tmp_path, [f"data.validation={tmp_path / 'test'}"])
    (trial.folder / "evaluation").mkdir(parents=True)
    (trial.folder / "summary.json").write_text(json.dumps({"accuracy": 0.8, "class_mean_mse": 0.05}))
    (trial.folder / "evaluation" / "metrics.json").write_text(json.dumps({"accuracy": 0.9, "class_mean_mse": None}))
    for shards_, baseline in ((tmp_path / "test", 0.05), (tmp_path / "other", None)):
        (trial.folder / "evaluation" / "asked.json").write_text(json.dumps({"shards": str(shards_), "judge": None}))
        values = sweep.row(trial)
        assert (values["accuracy"], values.get("class_mean_mse")) == (0.9, baseline)


@pytest.mark.parametrize(
    ("outcome", "code", "ended"),
    [("done", 0, 0), ("DivergedError", 70, 70), ("DriftError", 70, None), ("Preempted", 75, None)],
)
def test_what_counts_as_an_end(outcome: str, code: int, ended: int | None, tmp_path: Path) -> None:
    """A divergence is a result; broken hardware is none."""
    (trial,) = combine("mnist_k2", tmp_path, [])
    trial.folder.mkdir(parents=True)
    (trial.folder / "status.json").write_text(json.dumps({"outcome": outcome, "exit_code": code}))
    assert trial.exit_code == ended


@pytest.mark.slow
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


def test_evaluate_says_what_does_not_apply(
    data: Path, judge: Path, generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A generator has samples to measure, and no reconstructions."""
    out = tmp_path / "out"
    arguments = [str(generator), str(data), str(out), "--judge", str(judge), "--training", str(data), "--samples", "20"]
    assert evaluate.main(arguments) == 0
    values = json.loads((out / "metrics.json").read_text())
    assert all(
        values[name] is None for name in ("accuracy", "reconstruction_mse", "kl", "class_flip_rate", "sharpness")
    )
    assert all(values[name] > 0 for name in ("class_mean_mse", "frechet_distance", "frechet_floor", "sample_sharpness"))
    assert {path.stem for path in (out / "figures").iterdir()} == {"samples"}
    printed = capsys.readouterr().out
    assert "frechet_distance" in printed
    assert "reconstruction_mse" in next(line for line in printed.splitlines() if line.startswith("does not apply"))


def test_evaluate_gives_the_metrics_of_the_package(data: Path, judge: Path, tmp_path: Path) -> None:
    assert evaluate.main([str(judge), str(data), str(tmp_path / "out")]) == 0
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())
    pipeline = Pipeline.from_pretrained(judge)
    reader = evaluate.open_reader(str(data), pipeline)
    expected = metrics.summarise(metrics.measure(pipeline, report.batches(reader)))
    assert {name: values[name] for name in expected} == expected
    assert expected["accuracy"] is not None
    assert values["class_mean_mse"] is None  # no training set was named
    assert "frechet_distance" not in values  # and no judge


@pytest.mark.parametrize("wrong", ["pipeline", "shards", "shape", "judge"])
def test_evaluate_ends_in_one_line(
    wrong: str, data: Path, generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from savae_dist.data import pack

    pack(np.zeros((4, 9, 9), np.uint8), np.zeros(4, np.int64), tmp_path / "other")
    arguments = {"pipeline": str(generator), "shards": str(data), "out": str(tmp_path / "out")}
    arguments |= {"shape": {"shards": str(tmp_path / "other")}, "judge": {}}.get(wrong, {wrong: str(tmp_path / "none")})
    judging = ["--judge", str(generator)] if wrong == "judge" else []
    assert evaluate.main([*arguments.values(), *judging]) != 0
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert error[0].startswith("evaluate: ")
