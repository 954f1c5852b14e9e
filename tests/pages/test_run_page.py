"""The pages of runs: whole, escaped, and true to what was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.html_pages import check_page
from helpers.launching import SMALL, equal, status, weights

from savae_dist.data import pack
from savae_dist.pages.folder import RunFolder
from savae_dist.pages.run import write_run
from savae_dist.pages.settings import hyperparameters, settings
from savae_dist.run import results
from savae_dist.train import main
from tools import report

HOSTILE = "<script>alert(1)</script>"
STEPS = ["system.vec_steps=4", "system.decoder_steps=4", "max_steps=2", "checkpoint_every=2", "validate_every=1"]
SETS = {"image": ((90, 12, 12), np.uint8), "signal": ((90, 64), np.float32)}


def arguments(kind: str, folder: Path) -> list[str]:
    """A run on samples of a kind, one class of which has a hostile name."""
    shape, dtype = SETS[kind]
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, shape).astype(dtype)
    data = folder / f"{kind}s"
    names = (HOSTILE, "b", "c")
    pack(x, rng.integers(0, 3, len(x)), data, shard_size=40, block=16, class_names=names)
    return [*SMALL, *STEPS, f"data.train={data}", "data.hold_out=0.2", f"output={folder / kind}"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind of samples."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in SETS:
        assert main(arguments(kind, folder)) == 0
    return {kind: folder / kind for kind in SETS}


@pytest.mark.parametrize("kind", SETS)
def test_a_finished_run_has_a_page(kind: str, runs: dict[str, Path]) -> None:
    page = check_page(runs[kind] / "report.html")
    assert not [line for line in status(runs[kind])["warnings"] if "cannot be" in line]
    for words in ("Bad samples", "Shares of the gradient", "To repeat it", "accelerate launch", "class_mean_mse"):
        assert words in page.text
    assert HOSTILE in page.text  # as text
    assert "<script" not in page.source
    figures = {path.stem.replace("_", " ") for path in (runs[kind] / "figures").glob("*.png")}
    assert {str(image["alt"]) for image in page.all("img")} == figures
    assert "worst reconstructions" in figures
    titles = [drawing["aria-label"] for drawing in page.all("svg")]
    assert {"losses of vec", "losses of critic", "losses of decoder", "share of the gradient"} <= set(titles)


def test_it_tells_what_was_trained(runs: dict[str, Path]) -> None:
    """Two steps of each phase, not the four that the system asks for."""
    run = RunFolder(runs["image"])
    assert run.steps == {"vec": (2, 2), "decoder": (2, 2)}
    assert hyperparameters(run).chosen["vec_steps"] == 2
    assert run.config["system.vec_steps"] == 4
    about = json.loads((runs["image"] / "about.json").read_text())
    assert [name for _, name, _ in about["training_data"]["classes"]] == [HOSTILE, "b", "c"]
    assert about["training_data"]["count"] + about["validation_data"]["count"] == 90
    assert f"output={runs['image']}-again" in about["command"]


def test_keys_at_their_defaults_are_folded_and_none_is_lost(tmp_path: Path) -> None:
    changes = ["system.beta=0.5", "data.balance=0.5", "optimizers.critic.betas=[0.5,0.9]", "divergence.retries=0"]
    assert main([*arguments("image", tmp_path), *changes]) == 0
    run = RunFolder(tmp_path / "image")
    system, others = hyperparameters(run), settings(run)
    assert {"latent_dim", "beta", "vec_steps", "decoder_steps"} <= system.chosen.keys()
    assert {"spectral_weight", "alpha", "unlabelled_weight"} <= system.others.keys()
    assert others.chosen["optimizers.critic"] == "adam, lr 0.0001, betas [0.5,0.9], schedule constant"
    assert others.chosen["optimizers.vec"] == "adam, lr 0.001, schedule cosine"
    assert {"seed", "data.balance", "data.batch_size", "max_steps"} <= others.chosen.keys()
    assert {"divergence.retries", "hub.push", "optimizers.vec.betas", "data.weights"} <= others.others.keys()
    lines = {f"optimizers.{name}.{key}" for name in ("vec", "critic", "decoder") for key in ("name", "lr", "schedule")}
    shown = {f"system.{key}" for some in system for key in some} | {key for some in others for key in some}
    assert run.config.keys() - shown - lines == {
        *("system.name", "optimizers.critic.betas"),  # in the head and in the optimiser's line
        *("data.augment", "schedules", "adaptive"),  # tables without keys
    }
    page = (tmp_path / "image" / "report.html").read_text()
    opened, _, folded = page.partition("<h3>System</h3>")[2].partition("<details>")
    assert "<dt>beta</dt><dd>0.5</dd>" in opened
    assert "spectral_weight" not in opened
    assert "<dt>spectral_weight</dt>" in folded


def test_a_run_without_written_defaults_has_its_systems_keys_unfolded(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copyfile(runs["image"] / "config.yaml", tmp_path / "config.yaml")
    keys = hyperparameters(RunFolder(tmp_path))
    assert keys.others == {}
    assert "spectral_weight" in keys.chosen


def test_a_run_under_way(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As if it had died in its second phase: the last validation is shown, and how far it came."""
    run = tmp_path / "run"
    shutil.copytree(runs["image"], run)
    for name in ("summary.json", "report.html"):
        (run / name).unlink()
    stands = {"outcome": "Preempted", "message": "stopped", "phase": "decoder", "step": 1}
    (run / "status.json").write_text(json.dumps(stands))
    assert report.main([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert RunFolder(run).steps == {"vec": (2, 2), "decoder": (1, 2)}
    text = check_page(run / "report.html").text
    for words in ("Preempted", "at the last validation, after 4 steps in all", "reconstruction_mse"):
        assert words in text


def test_a_run_that_has_only_begun(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copyfile(runs["image"] / "config.yaml", tmp_path / "config.yaml")
    assert "Nothing was measured" in check_page(write_run(tmp_path)).text


def test_the_card_of_the_data_set_is_shown_as_a_page(runs: dict[str, Path], tmp_path: Path) -> None:
    text = (runs["image"] / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace(str(runs["image"].parent / "images"), str(tmp_path)))
    (tmp_path / "card.md").write_text(f"# The set\n\n| class | name |\n| --- | --- |\n| 0 | {HOSTILE} |\n")
    page = check_page(write_run(tmp_path))
    assert "<h3>The set</h3>" in page.source
    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt;</td>" in page.source
    assert "| --- |" not in page.text


def test_secrets_of_urls_are_not_told(runs: dict[str, Path], tmp_path: Path) -> None:
    text = (runs["image"] / "config.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("  train:")]
    at = lines.index("data:") + 1
    lines.insert(at, "  train: s3://me:hunter2@store/set?sig=abc")
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    page = write_run(tmp_path).read_text()
    assert "s3://store/set" in page
    assert "hunter2" not in page
    assert "sig=abc" not in page


@pytest.mark.faults
def test_a_page_that_cannot_be_written_ends_nothing(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments("image", tmp_path)
    (tmp_path / "image" / "checkpoints").mkdir(parents=True)  # by which the folder is known as a run's
    (tmp_path / "image" / "report.html").mkdir()
    (tmp_path / "image" / "about.json").mkdir()
    assert main(words) == 0
    ended = status(tmp_path / "image")
    assert ended["outcome"] == "done"
    failed = [line.split(" cannot")[0] for line in ended["warnings"] if " cannot be written" in line]
    assert failed == ["about.json", "report.html"]
    assert capsys.readouterr().err.count("report.html cannot be written") == 1
    assert equal(weights(tmp_path / "image"), weights(runs["image"]))  # and the numbers are those with one


def test_a_finished_run_that_is_started_again(runs: dict[str, Path], tmp_path: Path) -> None:
    """Its page is made anew, with the same numbers."""
    run = tmp_path / "run"
    shutil.copytree(runs["image"], run)
    config = run / "config.yaml"
    assert main([str(config), f"output={run}"]) == 0
    before, after = (check_page(folder / "report.html") for folder in (runs["image"], run))
    assert (
        before.text.partition("What was trained")[0].split(maxsplit=2)[2]
        == (after.text.partition("What was trained")[0].split(maxsplit=2)[2])
    )


def test_only_the_main_process_writes(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others leave `finish` before it."""
    from accelerate import PartialState

    run = tmp_path / "run"
    shutil.copytree(runs["image"], run)
    written: list[Path] = []
    monkeypatch.setattr(results, "write_run", lambda folder, outcome: written.append(folder))
    again = [str(run / "config.yaml"), f"output={run}"]
    assert main(again) == 0
    assert written == [run]
    monkeypatch.setattr(PartialState, "is_main_process", property(lambda state: False))
    assert main(again) == 0
    assert written == [run]


def test_two_runs_side_by_side(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "both.html"
    assert report.main([str(runs["image"]), str(runs["signal"]), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    page = check_page(out)
    keys, numbers = page.text.split("Keys that differ")[1].split("Metrics", 1)
    assert "data.train" in keys
    assert "seed" not in keys  # the same in both
    assert "output" not in keys
    assert "reconstruction_mse" in numbers
    assert "★" in numbers
    assert [str(image["alt"]) for image in page.all("img")].count("signal") == len(
        list((runs["signal"] / "figures").glob("*.png"))
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [(["nowhere"], "no run's folder"), (["{image}", "{image}"], "each once"), (["{image}", "no"], "no run's folder")],
)
def test_what_cannot_be_shown_is_one_line(
    given: list[str], words: str, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([one.format(**runs) for one in given]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert words in error[0]
