"""Runs on tars of JPEGs of mixed sizes: the same for any number of workers, processes and interruptions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.launching import SMALL, cut, equal, status, train, weights
from helpers.pictures import mixed, mixed_tars, photo, saved

from savae_dist.config.schema import DataConfig
from savae_dist.data import Order, Reader, Request
from savae_dist.errors import CheckpointError
from savae_dist.evaluation import report
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.sets import open_shards
from savae_dist.train import main

STEPS = ["system.vec_steps=3", "system.decoder_steps=3", "checkpoint_every=2", "keep_checkpoints=9"]
SIZED = [*SMALL, *STEPS, "data.size=16", "data.augment={resized_crop: 0.3, flip: 0.5}"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_tars(tmp_path_factory.mktemp("pictures") / "set")


@pytest.fixture(scope="module")
def whole(sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert main([*SIZED, f"data.train={sets}", f"data.validation={sets}", f"output={output}"]) == 0
    assert status(output)["outcome"] == "done"
    return output


@pytest.mark.parametrize(("step", "workers"), [(2, 0), (3, 1), (5, 3)])
def test_interrupted_is_uninterrupted(step: int, workers: int, whole: Path, sets: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    cut(whole, output, step)
    asked = [f"data.train={sets}", f"data.validation={sets}", f"output={output}", f"data.workers={workers}"]
    assert main([*SIZED, *asked]) == 0
    assert equal(weights(output), weights(whole))
    name = "pipeline/encoder/model.safetensors"
    assert (output / name).read_bytes() == (whole / name).read_bytes()


def test_the_keys_are_part_of_the_run(
    whole: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    asked = [*SIZED, f"data.train={sets}", f"data.validation={sets}", f"output={output}"]
    for change, text in {
        "data.resize=pad": "data.resize=crop, not pad",
        "data.mode=gray": "data.mode=auto, not gray",
        "data.range=0,200": "data.range=None, not [0.0, 200.0]",
        "data.augment.flip=0.1": "data.augment.flip=0.5, not 0.1",
    }.items():
        assert main([*asked, change]) == 76
        assert f"was trained with {text}: " in capsys.readouterr().err
    assert main([*asked, "data.size=[16,16]"]) == 0  # the same in other words


def test_the_start_says_what_becomes_of_the_pictures(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*SMALL, f"data.train={sets}", f"output={tmp_path / 'run'}"]
    assert main([*asked, "data.size=16", "data.resize=pad", "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "pictures:   pad to 16x16 rgb, 8 bits" in lines
    assert "pictures:   5 sizes: 24x24 12, 25x29 12, 30x41 12, 37x60 12, 48x33 12" in lines
    assert any(line.startswith("pictures:   12 of 60 are gray, of which three equal channels") for line in lines)
    assert main(asked) == 65
    assert "5 sizes: 24x24 12" in capsys.readouterr().err.splitlines()[-1]


def test_the_pipeline_reads_pictures_as_training_did(whole: Path, sets: Path, tmp_path: Path) -> None:
    pipeline = Pipeline.from_pretrained(whole)
    values = json.loads((whole / "pipeline" / "pipeline.json").read_text())["spec"]["pictures"]
    assert values == {"size": [16, 16], "resize": "crop", "mode": "rgb", "bits": 8, "range": None, "decoder": 1}
    shards, _ = open_shards(DataConfig(train=str(sets), size=16))
    read = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, 60, range(60))].x.numpy()
    files = [content for name, content in mixed(60) if name.endswith("jpg")]
    assert (pipeline.prepared(files) == read).all()
    (tmp_path / "one.jpg").write_bytes(files[0])
    assert (pipeline.encode(files).mean == pipeline.encode(read).mean).all()
    twice = pipeline.encode(read[[0, 0]]).mean
    assert (pipeline.encode([tmp_path / "one.jpg", str(tmp_path / "one.jpg")]).mean == twice).all()
    assert pipeline.reconstruct([photo(50, 60), photo(20, 90, 1, 1)]).shape == (2, 16, 16, 3)
    assert np.array_equal(pipeline.classify(files), pipeline.classify(read))
    with pytest.raises(ValueError, match="picture 1 cannot be used: undecodable"):
        pipeline.encode([files[0], b"no picture"])
    with pytest.raises(ValueError, match=r"gone\.jpg cannot be read: No such file"):
        pipeline.encode([tmp_path / "gone.jpg"])
    reader = report.open_reader(str(sets), pipeline)
    assert sum(len(y) for _, y in report.batches(reader)) == 60
    plain = Pipeline(pipeline.networks, replace(pipeline.spec, pictures=None))
    assert (plain.encode([saved(read[0], "png")] * 2).mean == twice).all()
    with pytest.raises(
        ValueError, match=r"picture 0 cannot be used: shape: .* without --size or data\.size, on 16x16 only"
    ):
        plain.encode(files[:1])


def test_a_pipeline_of_another_decoder_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "pipeline", tmp_path / "pipeline")
    path = tmp_path / "pipeline" / "pipeline.json"
    good = json.loads(path.read_text())
    for key, value in {"decoder": 2, "size": [0, 4], "resize": "blur", "bits": 12}.items():
        pictures = {**good["spec"]["pictures"], key: value}
        path.write_text(json.dumps({**good, "spec": {**good["spec"], "pictures": pictures}}))
        with pytest.raises(CheckpointError, match=key):
            Pipeline.from_pretrained(tmp_path / "pipeline")


@pytest.mark.distributed
def test_one_process_equals_two(sets: Path, tmp_path: Path) -> None:
    options = [
        *("optimizers.default.name=sgd", "optimizers.default.lr=0.05", "networks.norm=group", "max_steps=3"),
        *("data.size=16", "data.augment={resized_crop: 0.3, flip: 0.5}", f"data.train={sets}"),
    ]
    outputs = {}
    for processes in (1, 2):
        outputs[processes] = output = tmp_path / str(processes)
        more = [f"output={output}", f"accumulate={processes}", f"data.workers={processes - 1}"]
        result = train(processes, *SMALL, *options, *more)
        assert result.returncode == 0, result.stderr
    expected, found = weights(outputs[1]), weights(outputs[2])
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert np.abs(found[key].astype(np.float64) - value).max() <= 1e-6, key
