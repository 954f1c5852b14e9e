"""Exports for other runtimes are torch's own functions: of images and signals, on other samples and batch sizes."""

from __future__ import annotations

import logging
import re
import statistics
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from helpers.launching import environment

from savae_dist.data import pack
from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier, Prior
from savae_dist.pipeline.exports import quiet
from savae_dist.pipeline.exports.quiet import without_known_messages
from savae_dist.pipeline.exports.runtimes import Exported, Generate, functions, run_onnx
from savae_dist.pipeline.exports.runtimes_card import runtimes_card
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.sampler import WHOLE, Sampler
from savae_dist.preprocess import DataSpec
from savae_dist.tool_command import tool_command
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


class Export(NamedTuple):
    """What the tool made of a pipeline, in a process of its own, and the samples that it was given."""

    pipeline: Pipeline
    x: np.ndarray
    out: Path
    done: subprocess.CompletedProcess[str]
    card: str


@pytest.fixture(scope="module", params=SPECS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder, spec = tmp_path_factory.mktemp(request.param), SPECS[request.param]
    pipeline, random = made(spec, folder / "saved"), np.random.default_rng(0)
    image = spec.kind == "image"
    x = random.integers(0, 256, (20, 9, 8), dtype=np.uint8) if image else random.normal(1, 3, (20, 2, 64)).astype("f4")
    pack(x, np.arange(20) % 3, folder / "set", rate=spec.rate)
    out = folder / "out"
    command = [*tool_command("export_onnx"), str(folder / "saved"), str(out), "--shards", str(folder / "set")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Export(pipeline, x, out, done, (out / "README.md").read_text())


def test_what_is_exported_is_what_torch_computes(exported: Export) -> None:
    rows = [line for line in exported.done.stdout.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == ["encode", "classify", "score", "decode", "generate"]
    for row in rows:
        function, *differences = (cell.strip(" `") for cell in row.strip("|").split("|"))
        # A pixel may be rounded the other way.
        image = exported.pipeline.spec.kind == "image"
        allowed = 1 if image and function in ("decode", "generate") else 1e-4
        assert max(map(float, differences)) <= allowed, row
    assert all(row in exported.card for row in rows)
    for n in (1, 5):
        (found,) = run_onnx(exported.out / "classify.onnx", {"x": torch.from_numpy(exported.x[:n])})
        np.testing.assert_allclose(found, exported.pipeline.classify(exported.x[:n]), atol=1e-5)


def test_the_tool_says_nothing_but_what_it_made(exported: Export) -> None:
    assert exported.done.stderr == ""


def test_what_is_no_known_message_is_still_shown(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger(quiet.LOGGER)
    with warnings.catch_warnings(record=True) as shown, without_known_messages():
        logger.warning("torchvision is not installed. Skipping %s", "torchvision::nms")
        logger.warning("another")
        warnings.warn("No complete tensor found in the group! Returning the first one.", UserWarning, stacklevel=1)
        warnings.warn("another", UserWarning, stacklevel=1)
    assert caplog.messages == ["another"]
    assert [str(one.message) for one in shown] == ["another"]
    logger.warning("torchvision is not installed. Skipping %s", "torchvision::nms")
    assert len(caplog.messages) == 2


def test_the_card_s_examples_run_as_printed(exported: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.out)
    onnx, torchs = re.findall(r"```python\n(.*?)```", exported.card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(onnx, "README.md", "exec"), names)
    np.testing.assert_allclose(names["probabilities"], exported.pipeline.classify(names["x"]), atol=1e-5)
    draws = [torch.from_numpy(names["draws"][name]) for name in ("eps", "u")]
    expected = Generate(exported.pipeline)(*draws).detach().numpy()
    np.testing.assert_allclose(names["samples"].astype(float), expected.astype(float), atol=1)
    exec(compile(torchs, "README.md", "exec"), names)
    assert names["found"].shape == expected.shape


def test_the_card_lists_what_each_file_takes_and_gives_and_promises_no_pipeline(exported: Export) -> None:
    types = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
    table = exported.card.split("## Files")[1].split("##")[0]
    listed = set()
    for row in (line.split("|") for line in table.splitlines() if line.startswith("| `")):
        listed |= (files := set(re.findall(r"`(\w+\.\w+)`", row[1])))
        (name,) = (one for one in files if one.endswith(".onnx"))
        session = onnxruntime.InferenceSession(str(exported.out / name))
        for cell, tensors in ((row[2], session.get_inputs()), (row[3], session.get_outputs())):
            told = re.findall(r"`(\w+)` (\w+) `\[batch(.*?)\]`, \w", cell)
            assert told == [(t.name, types[t.type], "".join(f", {size}" for size in t.shape[1:])) for t in tensors]
    assert listed == {path.name for path in exported.out.iterdir()} - {"README.md"}
    assert 'from_pretrained("' not in exported.card
    assert "posteriors.safetensors" not in exported.card
    assert str(exported.out.parent) not in exported.card


@pytest.mark.parametrize("prior", [Prior(2, labels="told", entries=3), Prior(2, "mixture", modes=3, labels="mode")])
def test_a_class_is_asked_for_as_the_card_says(prior: Prior, tmp_path: Path) -> None:
    names = ("a", "b", "c")
    spec = replace(SPECS["image"], class_names=names)
    decoder = ConvDecoder(spec.shape, prior.latent_dim, width=2, pools=1, output="sigmoid")
    pipeline = Pipeline({"decoder": decoder, "prior": prior}, spec)
    inputs = {"eps": torch.randn(200, prior.draws), "u": torch.rand(200)}
    card = runtimes_card(pipeline, {"generate": Exported(0, 0, inputs, {"samples": torch.zeros(200, 9, 8)})}, (), [])
    assert "By class, k is a: 0; b: 1; c: 2." in card
    column, rule = re.search(r"`eps\[:, (\d+)\]` .*?`(.*?)`", card).groups()
    ours = {"statistics": statistics, "k": 1, "r": 0.3}
    inputs["eps"][:, int(column)] = eval(rule, ours)
    given = torch.ones(200, dtype=torch.int64)
    assert torch.equal(prior(inputs["eps"]), prior(inputs["eps"], given))


def test_a_class_with_a_mixture_of_styles_is_asked_for_as_the_card_says() -> None:
    spec, far = replace(SPECS["image"], class_names=("a", "b", "c")), torch.tensor([[9.0, 9.0]])
    styles = Sampler(torch.tensor([WHOLE, 2, 0]), torch.ones(3), torch.cat([0 * far, far, -far]), torch.ones(3, 2))
    decoder = ConvDecoder(spec.shape, 5, width=2, pools=1, output="sigmoid")
    pipeline = Pipeline({"decoder": decoder, "prior": Prior(2, labels="told", entries=3)}, spec, mixture=styles)
    function = functions(pipeline, np.zeros((3, 9, 8), np.uint8))["generate"]
    card = runtimes_card(
        pipeline, {"generate": Exported(0, 0, function.inputs, {"samples": torch.zeros(3, 9, 8)})}, (), []
    )
    assert "draw it uniformly from f to f + 1/2. By class, f is a: 0; c: 0.5." in card
    made = function.module(torch.zeros(2, 2), torch.tensor([0.4, 0.6]))
    assert np.array_equal(made, pipeline.decode(torch.tensor([[-9.0, -9, 1, 0, 0], [9, 9, 0, 0, 1]])))


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
    assert "`encode.int8.onnx`" in (out / "README.md").read_text().split("## Files")[1].split("##")[0]
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
