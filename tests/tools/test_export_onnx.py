"""Exports for other runtimes are torch's own functions: of images and signals, on other samples and batch sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from savae_dist.data import pack
from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier
from savae_dist.pipeline.exports.runtimes import Generate, run_onnx
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.sampler import WHOLE, Sampler
from savae_dist.preprocess import DataSpec
from tools import export_onnx

SPECS = {
    "image": DataSpec("image", (1, 9, 8), 3, "unit"),
    "signal": DataSpec("signal", (2, 64), 3, "dataset", (1.0, -2.0), (3.0, 0.5), 100.0),
}


def made(spec: DataSpec, folder: Path) -> Pipeline:
    torch.manual_seed(0)
    output = "sigmoid" if spec.kind == "image" else "linear"
    networks = {
        "encoder": ConvEncoder(spec.shape, 2, width=2, pools=1),
        "decoder": ConvDecoder(spec.shape, 2, width=2, pools=1, output=output),
        "classifier": DenseClassifier(2, 3, hidden=4),
    }
    weight, mean = torch.tensor([0.25, 0.75]), torch.tensor([[-5.0, 0.0], [5.0, 0.0]])
    mixture = Sampler(torch.full((2,), WHOLE), weight, mean, 0.1 * torch.eye(2).repeat(2, 1, 1))
    pipeline = Pipeline(networks, spec, system={"name": "savae"}, mixture=mixture)
    pipeline.save_pretrained(folder)
    return pipeline


@pytest.mark.parametrize("kind", SPECS)
def test_what_is_exported_is_what_torch_computes(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = SPECS[kind]
    pipeline = made(spec, tmp_path / "saved")
    random = np.random.default_rng(0)
    image = kind == "image"
    x = random.integers(0, 256, (20, 9, 8), dtype=np.uint8) if image else random.normal(1, 3, (20, 2, 64)).astype("f4")
    pack(x, np.arange(20) % 3, tmp_path / "set", rate=spec.rate)
    arguments = [str(tmp_path / "saved"), str(tmp_path / "out"), "--shards", str(tmp_path / "set")]
    assert export_onnx.main(arguments) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == ["encode", "classify", "score", "decode", "generate"]
    for row in rows:
        function, *differences = (cell.strip(" `") for cell in row.strip("|").split("|"))
        # A pixel may be rounded the other way.
        allowed = 1 if image and function in ("decode", "generate") else 1e-4
        assert max(map(float, differences)) <= allowed, row
    assert all(row in (tmp_path / "out" / "README.md").read_text() for row in rows)
    for n in (1, 5):
        (found,) = run_onnx(tmp_path / "out" / "classify.onnx", {"x": torch.from_numpy(x[:n])})
        np.testing.assert_allclose(found, pipeline.classify(x[:n]), atol=1e-5)


def test_int8_is_measured_on_samples_that_did_not_calibrate_it_and_refused_where_it_costs_too_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = made(SPECS["image"], tmp_path / "saved")
    x = np.random.default_rng(0).integers(0, 256, (60, 9, 8), dtype=np.uint8)
    y = np.asarray(pipeline.classify(x)).argmax(1)
    y[50:] = -1  # unlabelled: neither calibrates nor measures
    pack(x, y, tmp_path / "set", class_names=("a", "b", "c"))
    out, arguments = tmp_path / "out", ["--shards", str(tmp_path / "set"), "--int8"]
    assert export_onnx.main([str(tmp_path / "saved"), str(out), *arguments, "--max-loss", "1"]) == 0
    told = capsys.readouterr().out.split("## INT8")[1]
    assert "float32 1.0000" in told
    assert "on 25 labelled samples" in told
    assert "beside the 25 that calibrate it" in told
    assert told in (out / "README.md").read_text()
    kinds = (out / "classify.onnx", out / "classify.int8.onnx")
    plain, eight = (run_onnx(path, {"x": torch.from_numpy(x)})[0] for path in kinds)
    assert 0 < np.abs(plain - eight).max() < 0.2
    assert export_onnx.main([str(tmp_path / "saved"), str(out), *arguments, "--max-loss", "-1"]) == 2
    assert "more than --max-loss -1: nothing of it is kept" in capsys.readouterr().err
    assert not (out / "classify.int8.onnx").exists()
    for wrong in (["--int8"], ["--max-loss", "0.1"]):
        with pytest.raises(SystemExit):
            export_onnx.main([str(tmp_path / "saved"), str(out), *wrong])


def test_uniform_draws_choose_the_gaussian_by_its_weight(tmp_path: Path) -> None:
    pipeline = made(SPECS["image"], tmp_path)
    eps, u = torch.zeros(4, 2), torch.tensor([0.0, 0.2499, 0.2501, 0.99])
    expected = pipeline.decode(torch.tensor([[-5.0, 0.0]] * 2 + [[5.0, 0.0]] * 2))
    assert np.array_equal(Generate(pipeline)(eps, u).detach().numpy(), expected)
