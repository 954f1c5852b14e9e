"""The trainer as a program: how runs end, and what they say."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.launching import SMALL, figures, scalars, shards, status

from savae_dist.data import pack
from savae_dist.train import main

TWO = ["max_steps=2", "validate_every=1"]


def test_steps_without_a_finite_gradient_end_with_70(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate that throws the weights away: no step is taken any more, and the run says which update it was."""
    output = tmp_path / "run"
    wild = ["optimizers.vec.lr=1e30", "nonfinite_limit=4", "system.vec_steps=50"]
    assert main([*SMALL, *wild, f"data.train={data}", f"output={output}"]) == 70
    ended = status(output)
    assert (ended["outcome"], ended["exit_code"], ended["phase"]) == ("DivergedError", 70, "vec")
    assert "optimizers.vec.lr" in ended["message"]
    assert ended["message"] in capsys.readouterr().err
    assert max(scalars(output)["vec/skipped"].values()) >= 3


def test_a_collapse_is_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A KL that outweighs everything: the posterior is the prior, the classifier at chance."""
    output = tmp_path / "run"
    heavy = ["system.kl_weight=1000", "system.vec_steps=40", "system.decoder_steps=0", "validate_every=40"]
    labelled = shards(tmp_path / "labelled", unlabelled=False)
    main([*SMALL, *heavy, f"data.train={labelled}", f"data.validation={labelled}", f"output={output}"])
    assert "the posterior has collapsed" in capsys.readouterr().err


def test_a_network_that_was_not_trained_is_not_handed_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor measured: its numbers would look like results. One that was brought along is both."""
    first, then = tmp_path / "first", tmp_path / "then"
    sets = [f"data.train={data}", f"data.validation={data}"]
    assert main([*SMALL, *sets, "system.vec_steps=2", "system.decoder_steps=0", f"output={first}"]) == 0
    assert {path.name for path in (first / "pipeline").iterdir() if path.is_dir()} == {"encoder", "classifier"}
    summary = json.loads((first / "summary.json").read_text())
    assert (summary["reconstruction_mse"], summary["class_flip_rate"]) == (None, None)
    assert summary["accuracy"] is not None
    assert "no decoder: nothing is reconstructed" in capsys.readouterr().err
    assert main([*SMALL, *sets, *TWO, f"output={tmp_path / 'whole'}"]) == 0
    given = f"networks.initial={tmp_path / 'whole' / 'pipeline'}"
    assert main([*SMALL, *sets, "system.vec_steps=0", "system.decoder_steps=0", given, f"output={then}"]) == 0
    assert (then / "pipeline" / "decoder").is_dir()
    assert json.loads((then / "summary.json").read_text())["reconstruction_mse"] is not None


def test_a_decoder_alone_for_an_encoder_that_is_trained(data: Path, tmp_path: Path) -> None:
    """Phase 2 of another run's phase 1, as docs/configuration.md has it. Started again it only measures again."""
    first, then = tmp_path / "first", tmp_path / "then"
    assert main([*SMALL, f"data.train={data}", "max_steps=2", "system.decoder_steps=0", f"output={first}"]) == 0
    second = [*SMALL, f"data.train={data}", f"data.validation={data}", "max_steps=2", "system.vec_steps=0"]
    second += [f"networks.initial={first}", f"output={then}"]
    assert main(second) == 0
    for name in ("encoder", "classifier"):
        files = (run / "pipeline" / name / "model.safetensors" for run in (first, then))
        assert len({file.read_bytes() for file in files}) == 1
    assert (then / "pipeline" / "decoder").is_dir()
    drawn = figures(then)
    assert drawn
    time.sleep(1.1)  # event files are ordered by the second in their names
    assert main(second) == 0
    assert figures(then) == drawn


def test_classes_that_were_not_trained_on_are_measured_without_their_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 12, 12)).astype(np.uint8), np.arange(60) % 4
    for name, labels in (("four", y), ("three", np.minimum(y, 2)), ("none", np.full(60, -1))):
        pack(x, labels, tmp_path / name, shard_size=30, block=8)
    words = [*SMALL, "max_steps=2", f"data.validation={tmp_path / 'four'}"]
    for number, (system, train) in enumerate((("savae", "three"), ("vae", "none"))):
        output = tmp_path / f"run{number}"
        assert main([*words, f"system.name={system}", f"data.train={tmp_path / train}", f"output={output}"]) == 0
        beyond = 15 if train == "three" else 60
        assert f"60 for validation ({beyond} of classes that data.train has none of, so" in capsys.readouterr().err
        summary = json.loads((output / "summary.json").read_text())
        assert summary["reconstruction_mse"] > 0
        assert (summary["accuracy"] is None) == (system == "vae")


def test_a_judge_that_does_not_fit_is_refused_at_the_start(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SMALL, "max_steps=2", f"data.train={data}", f"data.validation={data}"]
    assert main([*words, "system.name=vae", f"output={tmp_path / 'vae'}"]) == 0
    capsys.readouterr()
    assert main([*words, f"judge={tmp_path / 'vae'}", f"output={tmp_path / 'run'}"]) == 2
    assert "classifier" in capsys.readouterr().err.splitlines()[-1]
    assert status(tmp_path / "run")["outcome"] == "ConfigError"


@pytest.mark.parametrize("spec", ["rgb", "signal"])
def test_other_kinds_of_samples(spec: str, tmp_path: Path) -> None:
    """Colour images that are not square; signals of two channels, most of them unlabelled."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    if spec == "rgb":
        x = rng.integers(0, 256, (90, 10, 14, 3)).astype(np.uint8)
    else:
        x, y[6:] = rng.normal(size=(90, 2, 66)).astype(np.float32), -1
    pack(x, y, tmp_path / "shards", shard_size=40, block=16, rate=0.0 if spec == "rgb" else 1000.0)
    output, shards_ = tmp_path / "run", tmp_path / "shards"
    assert main([*SMALL, *TWO, f"data.train={shards_}", f"data.validation={shards_}", f"output={output}"]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["reconstruction_mse"] > 0
    assert (summary["log_spectral_distance"] is None) == (spec == "rgb")
    assert (output / "figures" / "reconstructions.png").is_file()


def test_without_a_validation_set(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert main([*SMALL, *TWO, f"data.train={data}", f"output={output}"]) == 0
    assert "accuracy" not in json.loads((output / "summary.json").read_text())
    assert (output / "pipeline" / "posteriors.safetensors").is_file()


def test_check_leaves_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "run"
    assert main([*SMALL, "--check", f"data.train={data}", f"output={output}"]) == 0
    said = capsys.readouterr().out
    assert "203 images 1x12x12, 4 classes, 68 unlabelled" in said
    assert "first batch: (16, 1, 12, 12)" in said
    assert said.splitlines()[-1].startswith("time:        not measured here; --plan, in one process, predicts it")
    assert not output.exists()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("data.batch_size=1", "two samples per process"),
        ("networks.initial=/nowhere", "networks.initial=/nowhere"),
        ("judge=/nowhere", "/nowhere"),
        ("data.train=/nowhere", "/nowhere"),
    ],
)
def test_what_does_not_fit_is_one_line(
    argument: str, words: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    code = main([*SMALL, f"data.train={data}", f"data.validation={data}", argument, f"output={output}"])
    said = capsys.readouterr().err.strip().splitlines()
    assert code in (2, 65, 76)
    assert len([line for line in said if "it/s" not in line]) == 1, said
    assert words in said[-1]
    assert status(output)["exit_code"] == code


def test_proportions_reach_the_batches(data: Path, tmp_path: Path) -> None:
    """With none but labelled samples, every batch has a label loss; with none labelled, none has."""
    other = shards(tmp_path / "other", n=120)
    sets = [f"data.train=[{data},{other}]", "data.weights=[1,3]"]
    for fraction, balance in ((1, 1), (0, 0)):
        output = tmp_path / f"run{fraction}"
        asked = [*sets, f"data.labelled_fraction={fraction}", f"data.balance={balance}"]
        assert main([*SMALL, *TWO, *asked, f"output={output}"]) == 0
        losses = scalars(output)["vec/cat"].values()
        assert all((loss > 0) == (fraction == 1) for loss in losses)


def test_check_tells_what_is_there_and_how_it_is_drawn(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["data.labelled_fraction=0.25", "data.shuffle_window=3", "data.lanes=6"]
    assert main([*SMALL, *asked, "--check", f"data.train={data}", f"output={tmp_path / 'run'}"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if " " in line)
    assert lines["samples"].startswith("203 images 1x12x12, 4 classes, 68 unlabelled")
    assert lines["dropped"] == lines["bad"].removesuffix(" known") == "none"
    assert lines["shares"] == "unlabelled 75.0%, labelled 25.0%"
    assert lines["lanes"] == "6 for 1 rank (a rank may need every shard), windows of 3 shards"
    assert lines["memory"].endswith("with data.cache=memory")
