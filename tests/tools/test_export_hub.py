from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from scipy.io import wavfile

from savae_dist import Decoder, Encoder, Pipeline
from savae_dist.networks import ConvCritic, ConvDecoder, ConvEncoder, DcganDecoder, DenseClassifier
from savae_dist.origin import PictureFiles, Recordings
from savae_dist.pipeline.card.card_data import CardFacts
from savae_dist.pipeline.card.card_limits import shortcomings
from savae_dist.pipeline.card.model_card import model_card
from savae_dist.pipeline.sampling.posteriors import PosteriorBank
from savae_dist.preprocess import DataSpec, Pictures, normalise
from savae_dist.systems import SYSTEMS
from savae_dist.systems.papers import citation_of
from tools.export_hub import main

IMAGES = DataSpec("image", (3, 8, 9), 2, "unit", class_names=("cat", "dog"))
SIGNALS = DataSpec("signal", (1, 40), 2, "dataset", mean=(1.5,), std=(2.5,), rate=12000.0)


def make_run(folder: Path, spec: DataSpec) -> Pipeline:
    torch.manual_seed(0)
    output = "sigmoid" if spec.kind == "image" else "linear"
    networks = {
        "encoder": ConvEncoder(spec.shape, 2, width=2),
        "decoder": ConvDecoder(spec.shape, 2, width=2, output=output),
        "classifier": DenseClassifier(2, 2, hidden=8),
        "critic": ConvCritic(spec.shape, width=2),
    }
    bank = PosteriorBank(torch.randn(4, 2), torch.randn(4, 2), torch.tensor([0, 1, 0, 1]))
    pipeline = Pipeline(
        networks, spec, bank, {"name": "savae", "latent_dim": 2, "vec_steps": 4000, "alpha": [1.0, 0.1, 0.01]}
    )
    pipeline.save_pretrained(folder / "pipeline")
    summary = {
        "accuracy": 0.875,
        "judge_flip_rate": None,
        "samples_per_second": {"vec": 321.0},
        "steps": {"vec": 150},
        "seed": 3,
        "warnings": ["decoder step 2: the critic has won"],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return pipeline


@pytest.mark.parametrize("spec", [IMAGES, SIGNALS], ids=["images", "signals"])
def test_every_card_runs_as_it_reads(spec, tmp_path, monkeypatch):
    pipeline = make_run(tmp_path / "run", spec)
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    cards = sorted((tmp_path / "out").rglob("README.md"))
    assert {card.parent.name for card in cards} == {"out", *pipeline.networks}
    for card in cards:
        (snippet,) = re.findall(r"```python\n(.*?)```", card.read_text(), re.DOTALL)
        monkeypatch.chdir(card.parent)
        names: dict = {}
        exec(compile(snippet, str(card), "exec"), names)
        assert names["pipeline"].spec == spec
        if card.parent.name == "encoder":
            by_hand = names["encoder"](normalise(torch.from_numpy(names["x"]), spec))[0]
            torch.testing.assert_close(names["posterior"].mean, by_hand.mean)
        if card.parent.name == "decoder":
            assert np.array_equal(names["x"], pipeline.generate(4, seed=0))
        if card.parent.name == "out":
            assert names["x_hat"].shape == names["x"].shape


FROM_FILES = {
    "photo.jpg": replace(IMAGES, origin=PictureFiles((8, 9), "crop", "rgb")),
    "photo.jpg, gray": replace(IMAGES, shape=(1, 8, 9), origin=PictureFiles((8, 9), "crop", "gray")),
    "photo.jpg, of one size": replace(IMAGES, origin=PictureFiles(None, "crop", "rgb")),
    "photo.jpg, sized by the run": replace(IMAGES, pictures=Pictures((8, 9))),
    "recording.wav": replace(SIGNALS, origin=Recordings(40, 20), class_names=("sound", "worn")),
}


@pytest.mark.parametrize("named", FROM_FILES)
def test_cards_take_a_file_of_one_s_own_and_name_classes(named, tmp_path, monkeypatch, capsys):
    spec, file = FROM_FILES[named], named.partition(",")[0]
    pipeline = make_run(tmp_path / "run", spec)
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    random = np.random.default_rng(0)
    for folder in (tmp_path / "out", tmp_path / "out" / "encoder"):
        if spec.kind == "image":
            size = (9, 8) if named.endswith("one size") else (30, 20)
            Image.fromarray(random.integers(0, 256, (*size[::-1], 3), np.uint8)).save(folder / file)
        else:
            wavfile.write(folder / file, 24000, random.normal(size=200).astype(np.float32))  # twice the set's rate
        (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
        assert f'x = "{file}"' in snippet
        assert "np." not in snippet
        monkeypatch.chdir(folder)
        capsys.readouterr()
        exec(compile(snippet, named, "exec"), names := {})
        if folder.name == "encoder":
            torch.testing.assert_close(names["posterior"].mean, pipeline.encode(file).mean)
            continue
        assert str(pipeline.classify(file).names()) in capsys.readouterr().out
        assert np.array_equal(names["x_hat"], pipeline.reconstruct(file))
        assert f"label={spec.class_names[0]!r}" in snippet
        assert np.array_equal(names["new"], pipeline.generate(4, label=spec.class_names[0], seed=0))


@pytest.mark.parametrize("untold", [{"own_reader": True}, {"id": "machine"}])
def test_where_files_cannot_be_read_a_card_takes_arrays(untold, tmp_path):
    make_run(tmp_path / "run", replace(SIGNALS, origin=Recordings(40, 20, **untold)))
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "recording.wav" not in card
    assert "x = np.random" in card


def test_each_folder_is_complete_in_itself(tmp_path):
    pipeline = make_run(tmp_path / "run", SIGNALS)
    out = tmp_path / "out"
    assert main([str(tmp_path / "run"), str(out)]) == 0
    x = np.random.default_rng(0).normal(1, 2, (3, 40))
    assert torch.equal(Pipeline.from_pretrained(out / "encoder").encode(x).mean, pipeline.encode(x).mean)
    decoder = Pipeline.from_pretrained(out / "decoder")
    assert np.array_equal(decoder.generate(3, label=1, seed=0), pipeline.generate(3, label=1, seed=0))
    assert np.array_equal(Pipeline.from_pretrained(out).reconstruct(x), pipeline.reconstruct(x))
    encoder, state = Encoder.from_pretrained(out / "encoder"), pipeline.networks["encoder"].state_dict()
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    assert isinstance(Decoder.from_pretrained(out / "decoder"), ConvDecoder)
    stored = json.loads((out / "decoder" / "pipeline.json").read_text())["spec"]
    assert DataSpec.from_dict(stored) == SIGNALS


def test_codes_of_training_samples_are_told_and_left_out_on_request(tmp_path, capsys):
    make_run(tmp_path / "run", SIGNALS)
    run, out = str(tmp_path / "run"), tmp_path / "out"
    assert main([run, str(out)]) == 0
    assert "posteriors.safetensors holds the codes of " in capsys.readouterr().out
    assert {path.parent for path in out.rglob("posteriors.safetensors")} == {out, out / "decoder"}
    assert main([run, str(out), "--without-posteriors"]) == 0  # the earlier export had them
    assert "posteriors" not in capsys.readouterr().out
    assert not [*out.rglob("posteriors.safetensors")]
    assert not [path for path in out.rglob("README.md") if "posteriors.safetensors" in path.read_text()]
    for folder in (out, out / "decoder"):
        assert Pipeline.from_pretrained(folder).generate(2, seed=0).shape == (2, 40)


def test_the_card_says_what_is_needed(tmp_path):
    make_run(tmp_path / "run", SIGNALS)
    assert main([str(tmp_path / "run"), str(tmp_path / "out"), "--license", "cc-by-4.0"]) == 0
    card = ModelCard.load(tmp_path / "out" / "encoder" / "README.md")
    assert card.data.library_name == "savae_dist"
    assert card.data.license == "cc-by-4.0"
    assert {"savae", "signal"} <= set(card.data.tags)
    for words in (
        "Zemouri",
        "12000 Hz",
        "[1.5] and [2.5]",
        "| `latent_dim` | 2 |",
        "| `accuracy` | 0.875 | chance 0.5 |",
    ):
        assert words in card.text
    assert "| `samples_per_second.vec` | 321 |" in card.text
    assert "judge_flip_rate" not in card.text
    assert str(tmp_path) not in card.text  # a card tells nobody where it was written


def test_the_hub_reads_metrics_and_a_card_says_what_was_trained(tmp_path):
    make_run(tmp_path / "run", IMAGES)
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    cards = {name: ModelCard.load(tmp_path / "out" / name / "README.md") for name in ("", "encoder", "decoder")}
    (result,) = cards[""].data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_args) == ("accuracy", 0.875, {"seed": 3})
    assert result.metric_args == {"baseline": "chance 0.5"}
    tags = {name: card.data.pipeline_tag for name, card in cards.items()}
    assert tags == {
        "": "image-feature-extraction",
        "encoder": "feature-extraction",
        "decoder": "unconditional-image-generation",
    }
    text = cards[""].text
    assert "| `vec_steps` | 150 |" in text  # not the 4,000 that the preset asks for
    assert "the critic has won" in text.split("## What it is not good at")[1].split("##")[0]
    assert "samples_per_second" not in text.split("## Metrics on the validation set")[1].split("##")[0]
    assert "holds the codes of 4 training samples" in text
    assert "training samples" not in cards["encoder"].text


BAD = {
    "reconstruction_mse": 0.06,
    "class_mean_mse": 0.05,
    "class_flip_rate": 0.2,
    "judge_flip_rate": 0.01,
    "sharpness": 0.25,
    "accuracy": 0.9,
}


def test_a_card_says_what_was_measured_as_bad_and_nothing_of_what_was_good():
    assert shortcomings(BAD) == [
        "Its reconstructions are no nearer to their samples than class means: `reconstruction_mse` 0.06 against 0.05.",
        "10.0% of the labelled samples are put into a wrong class.",
        "20.0% of the reconstructions are of another class than their sample, to the model's own classifier.",
        "Its reconstructions are blurred: 0.25 times as sharp as real samples.",
    ]
    good = {"reconstruction_mse": 0.04, "class_mean_mse": 0.05, "class_flip_rate": 0.0, "sharpness": 1, "accuracy": 1}
    assert shortcomings(good) == []
    (nothing,) = shortcomings({"steps": {"vec": 3}, "training_hours": 2.0, "accuracy": None})
    assert nothing == "Nothing was measured on samples that it was not trained on."


def test_a_metric_stands_beside_its_baseline_which_is_none_itself(tmp_path):
    pipeline = make_run(tmp_path / "run", IMAGES)
    facts = CardFacts({**BAD, "training_hours": 1.5, "trained_on": "1 process (cpu)"}, datasets=["acme/cats"])
    card = ModelCard(model_card(pipeline, "pipeline", facts))
    beside = {one.metric_type: (one.metric_args or {}).get("baseline") for one in card.data.eval_results}
    assert beside["reconstruction_mse"] == "class mean 0.05"
    assert "class_mean_mse" not in beside
    assert card.data.datasets == ["acme/cats"]
    assert "| `reconstruction_mse` | 0.06 | class mean 0.05 |" in card.text
    assert "| `training_hours` | 1.5 |" in card.text
    assert "| `trained_on` | 1 process (cpu) |" in card.text
    assert "pip install savae-dist" in card.text


def test_data_sets_are_named_by_hand_and_by_the_run(tmp_path):
    make_run(tmp_path / "run", IMAGES)
    path = tmp_path / "run" / "summary.json"
    path.write_text(json.dumps({"training_data": {"datasets": ["acme/dogs"]}}))
    assert main([str(tmp_path / "run"), str(tmp_path / "out"), "--dataset", "acme/cats", "--dataset", "acme/dogs"]) == 0
    assert ModelCard.load(tmp_path / "out" / "README.md").data.datasets == ["acme/cats", "acme/dogs"]


def test_a_generator_s_card_promises_no_encoder(tmp_path, monkeypatch):
    torch.manual_seed(0)
    generator = Pipeline({"decoder": DcganDecoder(IMAGES.shape, 5, width=2)}, IMAGES, system={"name": "dcgan"})
    generator.save_pretrained(tmp_path / "run" / "pipeline")
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    for folder in (tmp_path / "out", tmp_path / "out" / "decoder"):
        card = ModelCard.load(folder / "README.md")
        assert {"dcgan", "generative-adversarial-network"} <= set(card.data.tags)
        assert "Radford" in card.text
        assert "Zemouri" not in card.text
        assert "encode(" not in card.text
        (snippet,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
        monkeypatch.chdir(folder)
        exec(compile(snippet, str(folder), "exec"), names := {})
        assert names["pipeline"].generate(2, seed=0).shape == (2, 8, 9, 3)


def test_every_system_says_what_to_cite():
    entries = [citation_of(system) for system in SYSTEMS.values()]
    assert all(re.match(r"@\w+\{\w+,\n.*\n\}$", entry, re.DOTALL) for entry in entries)
    unknown = Pipeline({"decoder": ConvDecoder(IMAGES.shape, 2, width=2)}, IMAGES, system={"name": "mine"})
    assert "Citation" not in model_card(unknown, "pipeline")


@pytest.mark.parametrize("data", [None, "text", {}, {"samples": 3, "index_sha256": "ab"}, {"samples": "5 images"}])
def test_the_card_says_what_was_trained_on_where_the_run_does(data, tmp_path):
    run, told = tmp_path / "run", {"samples": "1,500 images 3x8x9, 2 classes", "index_sha256": "ab" * 32}
    make_run(run, IMAGES)
    for number, (value, said) in enumerate(((told, True), (data, False))):
        (run / "summary.json").write_text(json.dumps({"accuracy": 0.5, "training_data": value}))
        assert main([str(run), str(tmp_path / f"out{number}")]) == 0
        for folder in (tmp_path / f"out{number}", tmp_path / f"out{number}" / "encoder"):
            text = (folder / "README.md").read_text()
            assert ("## Training data" in text) == said
            assert (f"{told['samples']}; the sha256 of their index, " in text) == said
            assert (f"is `{told['index_sha256']}`" in text) == said


def test_exporting_again_replaces_and_nothing_else_is_overwritten(tmp_path, capsys):
    make_run(tmp_path / "run", IMAGES)
    run, out = str(tmp_path / "run"), tmp_path / "out"
    assert main([run, str(out)]) == 0
    (out / "encoder" / "README.md").write_text("old")
    (tmp_path / "run" / "summary.json").unlink()
    assert main([run, str(out)]) == 0
    assert "Metrics" not in (out / "encoder" / "README.md").read_text()
    capsys.readouterr()
    assert main([run, run]) == 2
    assert "no earlier export" in capsys.readouterr().err


def test_failures_are_one_line_with_their_code(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "status.json").write_text('{"outcome": "running"}')
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 76
    assert not (tmp_path / "out").exists()
    make_run(tmp_path / "run", IMAGES)
    (tmp_path / "run" / "summary.json").write_text("{")
    assert main([str(tmp_path / "run"), str(tmp_path / "out")]) == 2
    make_run(tmp_path / "whole", IMAGES)
    assert main([str(tmp_path / "whole"), str(tmp_path / "whole" / "summary.json" / "out")]) == 2  # below a file
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "not finished" in lines[0]
    assert "it is no JSON" in lines[1]
    assert "Not a directory" in lines[2]
