"""What is pushed to the Hub comes back bit for bit, through the real client and a stub of the Hub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import hub_stub
from helpers.launching import ROOT

from savae_dist.errors import CheckpointError, ConfigError, DeniedError, SaveError
from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier, Encoder
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.posteriors import PosteriorBank
from savae_dist.preprocess import DataSpec
from savae_dist.run.initial import find_initial
from tools import export_hub

FRESH = """
import sys
import numpy as np
import torch
from savae_dist import Encoder, Pipeline
torch.set_num_threads(1)
x = np.load(sys.argv[1])
whole = Pipeline.from_pretrained("someone/model")
part = Pipeline.from_pretrained("someone/model", subfolder="encoder")
network = Encoder.from_pretrained("someone/model", subfolder="encoder")
assert (part.encode(x).mean == whole.encode(x).mean).all() and type(network) is type(part.networks["encoder"])
again = Pipeline.from_pretrained("someone/model", local_files_only=True)
np.savez(sys.argv[2], mean=again.encode(x).mean, x_hat=whole.reconstruct(x), new=whole.generate(3, seed=0))
"""


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    torch.manual_seed(0)
    networks = {
        "encoder": ConvEncoder((1, 8, 8), 2, width=2, pools=1),
        "decoder": ConvDecoder((1, 8, 8), 2, width=2, pools=1, output="sigmoid"),
        "classifier": DenseClassifier(2, 3, hidden=4),
    }
    return Pipeline(
        networks, DataSpec("image", (1, 8, 8), 3, "unit", class_names=("a", "b", "c")), system={"name": "vae"}
    )


def commits(hub: hub_stub.Hub, branch: str = "main") -> int:
    return len(hub.repositories["someone/model"].branches[branch])


def test_a_fresh_process_gets_the_same_bits(stub: hub_stub.Hub, pipeline: Pipeline, tmp_path: Path) -> None:
    url = pipeline.push_to_hub("someone/model")
    assert url.startswith(f"{stub.url}/someone/model/commit/")
    assert commits(stub) == 1
    x = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    more = {"HF_ENDPOINT": stub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FRESH, str(tmp_path / "x.npy"), str(tmp_path / "made.npz")]
    done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = np.load(tmp_path / "made.npz")
    assert np.array_equal(made["mean"], pipeline.encode(x).mean)
    assert np.array_equal(made["x_hat"], pipeline.reconstruct(x))
    assert np.array_equal(made["new"], pipeline.generate(3, seed=0))


def test_pushed_again_nothing_changes_and_what_is_gone_goes(stub: hub_stub.Hub, pipeline: Pipeline) -> None:
    pipeline.push_to_hub("someone/model")
    pipeline.push_to_hub("someone/model")
    assert commits(stub) == 1
    smaller = {name: network for name, network in pipeline.networks.items() if name != "classifier"}
    Pipeline(smaller, pipeline.spec, system=pipeline.system).push_to_hub("someone/model")
    assert commits(stub) == 2
    held = stub.repositories["someone/model"].files()
    assert "encoder/model.safetensors" in held
    assert not [path for path in held if path.startswith("classifier/") and not path.endswith(".md")]


def test_branches_and_pull_requests(stub: hub_stub.Hub, pipeline: Pipeline) -> None:
    pipeline.push_to_hub("someone/model", private=True, revision="trial")
    assert (commits(stub), commits(stub, "trial")) == (0, 1)
    assert "/discussions/1" in pipeline.push_to_hub("someone/model", create_pr=True)
    assert (commits(stub), commits(stub, "refs/pr/1")) == (0, 1)
    assert stub.repositories["someone/model"].private
    assert Pipeline.from_pretrained("someone/model", revision="trial").system == pipeline.system


def test_without_the_right_token_nothing_is_read_or_told(
    stub: hub_stub.Hub, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipeline.push_to_hub("someone/model", private=True)
    with pytest.raises(DeniedError) as caught:
        pipeline.push_to_hub("someone/other", token="hf_wrong")
    assert "hf_wrong" not in str(caught.value)
    assert "hf auth login" in str(caught.value)
    assert list(stub.repositories) == ["someone/model"]
    monkeypatch.delenv("HF_TOKEN")
    for kind in (Pipeline, Encoder):
        with pytest.raises(DeniedError, match="hf auth login") as denied:
            kind.from_pretrained("someone/model", cache_dir=tmp_path)
        assert denied.value.code == 77
    with pytest.raises(DeniedError, match="hf auth login"):
        pipeline.push_to_hub("someone/model")


@pytest.mark.parametrize("where", ["/commit/", "/lfs/"])
def test_a_connection_that_drops_changes_nothing(
    stub: hub_stub.Hub, pipeline: Pipeline, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.push_to_hub("someone/model")
    stub.objects.clear()
    stub.drop = where
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's own attempts
    changed = Pipeline(pipeline.networks, pipeline.spec, system={"name": "other"})
    changed.networks["encoder"] = ConvEncoder((1, 8, 8), 2, width=2, pools=1)
    with pytest.raises(SaveError, match="not pushed, and nothing there was changed") as caught:
        changed.push_to_hub("someone/model")
    assert "\n" not in str(caught.value)
    assert commits(stub) == 1
    stub.drop = ""
    changed.push_to_hub("someone/model")
    assert commits(stub) == 2


def test_a_network_alone_goes_there_and_back(stub: hub_stub.Hub, pipeline: Pipeline) -> None:
    pipeline.networks["encoder"].push_to_hub("someone/encoder")
    loaded = Encoder.from_pretrained("someone/encoder").state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in pipeline.networks["encoder"].state_dict().items())


def test_training_starts_from_what_was_pushed(stub: hub_stub.Hub, pipeline: Pipeline) -> None:
    pipeline.push_to_hub("someone/model")
    assert find_initial("someone/model", pipeline.networks).keys() == pipeline.networks.keys()


def test_the_tool_exports_and_pushes(
    stub: hub_stub.Hub, pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.save_pretrained(tmp_path / "saved")
    arguments = [str(tmp_path / "saved"), str(tmp_path / "out"), "--push-to", "someone/model", "--private"]
    assert export_hub.main(arguments) == 0
    assert f"{stub.url}/someone/model/commit/" in capsys.readouterr().out
    held = stub.repositories["someone/model"].files()
    assert json.loads(held["pipeline.json"])["system"] == {"name": "vae"}
    assert b"library_name: savae_dist" in held["README.md"]
    with pytest.raises(SystemExit):
        export_hub.main([*arguments[:2], "--private"])
    assert export_hub.main([*arguments[:2], "--push-to", "a/b/c"]) == 2


def test_codes_of_training_samples_that_were_pushed_go_with_the_next_push_without_them(
    stub: hub_stub.Hub, pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bank = PosteriorBank(torch.randn(3, 2), torch.randn(3, 2), torch.arange(3))
    Pipeline(pipeline.networks, pipeline.spec, bank, pipeline.system).save_pretrained(tmp_path / "saved")
    arguments = [str(tmp_path / "saved"), str(tmp_path / "out"), "--push-to", "someone/model"]
    for more, left in (([], 2), (["--without-posteriors"], 0)):
        assert export_hub.main([*arguments, *more]) == 0
        told = "to leave it out: --without-posteriors" in capsys.readouterr().out
        held = stub.repositories["someone/model"].files()
        assert (told, len([path for path in held if "posteriors" in path])) == (left > 0, left)
    assert Pipeline.from_pretrained("someone/model").generate(2, seed=0).shape == (2, 8, 8)


def test_what_is_no_name_is_told(stub: hub_stub.Hub, pipeline: Pipeline) -> None:
    with pytest.raises(ConfigError, match="is no name of a repository"):
        pipeline.push_to_hub("a b")
    with pytest.raises(CheckpointError, match="no such folder"):
        Pipeline.from_pretrained("a b")
