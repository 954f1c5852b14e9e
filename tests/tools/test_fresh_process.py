"""A photograph and a recording go through an exported folder in a fresh process as they went into the training set."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import ROOT
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_sample_image

from savae_dist.data import Reader, Request, Shards, sequential
from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier
from savae_dist.pipeline.pipeline import Pipeline
from tools import export_hub, make_shards

FRESH = """
import sys
import numpy as np
import torch
from savae_dist import Pipeline
from tools import predict
torch.set_num_threads(1)
folder, file, out = sys.argv[1:]
pipeline = Pipeline.from_pretrained(folder)
x = pipeline.prepared(file)
np.savez(out, x=np.asarray(x), mean=pipeline.encode(x).mean)
sys.exit(predict.main([folder, file]))
"""


def rows_of(shards: Shards) -> np.ndarray:
    """All samples as training reads them, in the order of the shards."""
    reader = Reader(shards, sequential(shards), bad_budget=0)
    return np.asarray(reader[Request(0, shards.size, range(shards.size))].x)


def exported(shards: Shards, folder: Path) -> Pipeline:
    """A pipeline of such samples, saved and exported for the Hub."""
    torch.manual_seed(0)
    spec = shards.spec
    networks = {
        "encoder": ConvEncoder(spec.shape, 2, width=2),
        "decoder": ConvDecoder(spec.shape, 2, width=2, output="sigmoid" if spec.kind == "image" else "linear"),
        "classifier": DenseClassifier(2, 2, hidden=4),
    }
    pipeline = Pipeline(networks, spec, system={"name": "savae"})
    pipeline.save_pretrained(folder / "saved")
    assert export_hub.main([str(folder / "saved"), str(folder / "exported")]) == 0
    return pipeline


def photograph(folder: Path) -> Path:
    """A set of two classes out of which one photograph, 500x375, is asked for."""
    for name, box in (("china", (70, 26, 570, 401)), ("flower", (0, 0, 500, 375))):
        path = folder / "photos" / name / f"{name}.jpg"
        path.parent.mkdir(parents=True)
        Image.fromarray(load_sample_image(f"{name}.jpg")).crop(box).save(path, quality=90)
    command = ["images", str(folder / "photos"), str(folder / "set"), "--size", "32x32"]
    assert make_shards.main(command) == 0
    return folder / "photos" / "china" / "china.jpg"


def recording(folder: Path) -> Path:
    """Two recordings in the layout of CWRU's files, of which one is asked for."""
    random = np.random.default_rng(0)
    for number in (97, 130):
        signal = random.normal(size=(2000, 1))
        savemat(folder / f"{number}.mat", {f"X{number:03d}_DE_time": signal, f"X{number:03d}RPM": [[1796]]})
    table = folder / "recordings.csv"
    table.write_text("path,label\n97.mat,normal\n130.mat,outer\n")
    command = ["recordings", str(table), str(folder / "set"), "--length", "256", "--hop", "128"]
    assert make_shards.main([*command, "--source-rate", "12000", "--rate", "6000", "--variable", "*DE_time"]) == 0
    return folder / "130.mat"


@pytest.mark.parametrize("source", [photograph, recording])
def test_the_arrays_are_those_of_training_and_the_codes_equal_to_the_bit(source, tmp_path: Path) -> None:
    file = source(tmp_path)
    shards = Shards.open(tmp_path / "set")
    pipeline = exported(shards, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FRESH, str(tmp_path / "exported"), str(file), str(tmp_path / "made.npz")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made, rows = np.load(tmp_path / "made.npz"), rows_of(shards)
    trained = {row.tobytes() for row in rows}
    assert len(made["x"]) == (1 if source is photograph else 6)
    assert made["x"].dtype == rows.dtype
    assert all(row.tobytes() in trained for row in made["x"])
    assert np.array_equal(made["mean"], pipeline.encode(made["x"]).mean)
    told = list(csv.DictReader(done.stdout.splitlines()))
    chances = pipeline.classify(made["x"])
    assert [row["class"] for row in told] == chances.names()
    np.testing.assert_allclose([float(row[shards.spec.class_names[0]]) for row in told], chances[:, 0], atol=1e-6)
