"""Runs that are given no validation set: what is drawn and said all the same, and what `data.hold_out` changes."""

from __future__ import annotations

import gc
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.launching import SMALL, equal, scalars, weights
from matplotlib.figure import Figure

from savae_dist.config.identity import identity
from savae_dist.data import RawBatch, Reader, Request, Sequential, Shards, hold_out, pack
from savae_dist.load_config import load
from savae_dist.pipeline import Pipeline
from savae_dist.run.validation import UNMEASURED, TrainingFigures
from savae_dist.train import main

DRAW = TrainingFigures.draw  # as it is: `conftest` leaves it out, since most runs of tests have no validation set
TWO = ["max_steps=2", "validate_every=1"]
HELD = "data.hold_out=0.2"


@pytest.fixture(autouse=True)
def _as_users_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingFigures, "draw", DRAW)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def paths_in(text: str, output: Path) -> list[Path]:
    """Those below the run's folder that its last lines name."""
    words = text[text.rindex("done.") :].replace("'", " ").replace(")", " ").split()
    return [Path(word) for word in words if word.startswith(str(output))]


def test_a_run_without_a_validation_set_draws_training_samples(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names what is there and no more, gives no figures of merit, and trains the same weights."""
    drawn, output = [], tmp_path / "run"

    def draw(figures: TrainingFigures, *where: object) -> object:
        drawn.append(DRAW(figures, *where))  # type: ignore[arg-type]
        return drawn[-1]

    monkeypatch.setattr(TrainingFigures, "draw", draw)
    assert main([*SMALL, *TWO, "system.latent_dim=2", f"data.train={data}", f"output={output}"]) == 0
    said = capsys.readouterr().err
    assert "none for validation, so nothing is measured" in said
    assert "no validation set: reconstruction, accuracy and the like are not measured; data.hold_out=0.1" in said
    assert "accuracy" not in json.loads((output / "summary.json").read_text())
    assert not [name for name in scalars(output) if name.startswith("validation/")]
    named = paths_in(said, output)
    assert len(named) == 5
    assert all(path.exists() for path in named)
    pictures = {"latent_space", "reconstructions", "samples", "samples_by_class", "latent_grid"}
    assert {path.stem for path in (output / "figures").iterdir()} == {*pictures, "worst_reconstructions"}
    assert [len(figures) for figures in drawn] == [
        1,
        1,
        4,
        6,
    ]  # each phase in its middle and at its end; the posteriors come last
    whole = {name: figure.get_suptitle() or figure.axes[0].get_title() for name, figure in drawn[-1].items()}
    assert all(title.endswith("\nrun, step 4") for title in whole.values())  # two steps of each phase
    titles = {name: title.splitlines()[0] for name, title in whole.items()}
    assert {name for name, title in titles.items() if title.endswith(": training data")} == {
        "latent_space",
        "reconstructions",
        "latent_grid",
    }
    assert " of training data, error " in titles["worst_reconstructions"]
    measured = ["system.latent_dim=2", f"data.validation={data}", f"output={tmp_path / 'measured'}"]
    assert main([*SMALL, *TWO, *measured, f"data.train={data}"]) == 0
    assert equal(weights(output), weights(tmp_path / "measured"))


@pytest.mark.parametrize("more", [[], ["data.labelled_fraction=0.5", "data.cache=memory"]])
def test_what_is_held_out_is_measured_and_never_trained_on(
    more: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are means, posteriors, statistics of batch norm taken of it: every read of the run is looked at."""
    read, item = defaultdict(set), Reader.__getitem__

    def watched(reader: Reader, request: Request) -> RawBatch:
        raw = item(reader, request)
        read[isinstance(reader.order, Sequential)] |= set(raw.id.tolist())
        return raw

    monkeypatch.setattr(Reader, "__getitem__", watched)
    output = tmp_path / "run"
    words = [*SMALL, *more, HELD, "system.vec_steps=30", "system.decoder_steps=4", f"data.train={data}"]
    assert main([*words, f"output={output}"]) == 0
    said = capsys.readouterr().err
    train, held = hold_out(Shards.open(data), 0.2)
    assert f"{train.size} images 1x12x12, 4 classes" in said
    assert f"{held.size} for validation" in said
    assert "held out:   40 of 203 samples (19.7%); of the classes 0: " in said
    apart = {one for shard in range(6) for one in train.starts[shard] + np.flatnonzero(held.part.holds(shard))}  # type: ignore[union-attr]
    assert read[True] == apart
    assert read[False] == set(range(203)) - apart
    summary = json.loads((output / "summary.json").read_text())
    assert summary["reconstruction_mse"] > 0
    assert summary["training_data"] == {"samples": train.describe(), "index_sha256": train.digest}
    assert UNMEASURED not in said


def test_hold_out_belongs_to_the_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may not change when the run goes on; at 0 a run is the one that it was before the key came."""
    words = [*SMALL, "max_steps=1", f"data.train={data}", f"output={tmp_path / 'run'}"]
    assert main(words) == 0
    assert main([*words, HELD]) == 76
    assert "was trained with data.hold_out=0.0, not 0.2" in capsys.readouterr().err.splitlines()[-1]
    kept = json.loads(next((tmp_path / "run" / "checkpoints").iterdir()).joinpath("state.json").read_text())
    assert "data.hold_out" not in kept["config"]
    assert "data.hold_out" not in identity(load(["data.train=x", "output=y", "data.hold_out=0"]))
    assert identity(load(["data.train=x", "output=y", HELD]))["data.hold_out"] == 0.2
    by_recording = identity(load(["data.train=x", "output=y", HELD, "data.hold_out_by=recording"]))
    assert by_recording["data.hold_out_by"] == "recording"
    assert "data.hold_out_by" not in identity(load(["data.train=x", "output=y", HELD]))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["data.hold_out=0.6"], "data.hold_out is a share of data.train between 0 and 0.5, not 0.6"),
        (["data.hold_out=-0.1"], "between 0 and 0.5, not -0.1"),
        (["data.hold_out=nan"], "between 0 and 0.5, not nan"),
        ([HELD, "data.hold_out_by=group"], "data.hold_out_by=group: the shards name no groups; leave it out"),
        ([HELD, "data.hold_out_by=machine"], "data.hold_out_by"),
        (["data.hold_out_by=recording"], "data.hold_out_by=recording has no effect without data.hold_out"),
        ([HELD, "data.validation=x"], "data.hold_out=0.2 takes the place of data.validation=x: leave one out"),
        (["data.hold_out=0.001"], "data.hold_out=0.001 of 203 samples in 4 classes holds none out"),
    ],
)
def test_what_cannot_be_held_out(
    asked: list[str], said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, *asked, f"data.train={data}", f"output={tmp_path / 'run'}"]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_check_proposes_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SMALL, "--check", f"data.train={data}", f"output={tmp_path / 'run'}"]
    assert main(words) == 0
    assert "data.hold_out=0.1 holds a tenth of data.train out, whole groups or recordings" in capsys.readouterr().out
    assert main([*words, "data.hold_out=0.1"]) == 0
    report = capsys.readouterr().out
    assert UNMEASURED not in report
    assert "held out:   20 of 203 samples" in report
    assert report.count("\nsamples ") == 2


def test_windows_that_name_no_recording_are_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(60, 64)).astype(np.float32)
    pack(x, np.arange(60) % 2, tmp_path / "windows")
    words = [*SMALL, "--check", f"data.train={tmp_path / 'windows'}", f"output={tmp_path / 'run'}"]
    assert main([*words, HELD]) == 0
    assert "the shards name no recordings: windows of one may overlap" in capsys.readouterr().out


def test_the_embedded_digits_can_be_held_out_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Their own validation set is then left aside."""
    assert main([*SMALL, "--check", HELD, f"output={tmp_path / 'run'}"]) == 0
    assert "held out:   " in capsys.readouterr().out


def test_figures_of_earlier_drawings_are_not_held(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They refer to themselves, and Python alone may leave dozens of them about, of megabytes each."""
    alive, earlier = [], {id(one) for one in gc.get_objects() if type(one) is Figure}

    def draw(figures: TrainingFigures, pipeline: Pipeline, folder: Path, *asked: Any) -> dict[str, Figure]:
        alive.append(sum(type(one) is Figure and id(one) not in earlier for one in gc.get_objects()))
        return DRAW(figures, pipeline, folder, *asked)

    monkeypatch.setattr(TrainingFigures, "draw", draw)
    gc.disable()
    try:
        assert (
            main([*SMALL, "max_steps=3", "validate_every=1", f"data.train={data}", f"output={tmp_path / 'run'}"]) == 0
        )
    finally:
        gc.enable()
    assert len(alive) > 3
    assert not any(alive)
