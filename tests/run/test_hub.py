"""A run pushes to a stub of the Hub while it trains, goes on from there elsewhere, and takes names on the Hub."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from helpers import hub_stub
from helpers.launching import SMALL, equal, status, weights
from huggingface_hub import ModelCard

from savae_dist.config.hub import datasets_of
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.networks import EncoderFeatures
from savae_dist.pipeline import Pipeline
from savae_dist.pipeline.feature_network import open_features
from savae_dist.run.hub import BRANCH, HubPush
from savae_dist.run.reporting.side_outputs import SideOutputs
from savae_dist.train import main as train

RUN = ["system.name=vae", *SMALL, "max_steps=4", "checkpoint_every=2", "validate_every=2"]
PUSH = "hub.push=someone/model"


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    return [*RUN, f"data.train={data}", "data.hold_out=0.2", f"output={output}", *more]


def told_of_the_hub(run: Path) -> list[str]:
    return [line for line in status(run)["warnings"] if line.startswith("hub.push")]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A push is waited for, since so small a run would be over before its first one."""
    begin = HubPush.checkpoint

    def checkpoint(push: HubPush) -> None:
        begin(push)
        while not push._over():
            time.sleep(0.05)

    monkeypatch.setattr(HubPush, "checkpoint", checkpoint)


def test_a_run_pushes_its_checkpoint_and_its_pipeline_and_another_goes_on(
    stub: hub_stub.Hub, data: Path, tmp_path: Path, patient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    assert train(arguments(data, run, PUSH, "hub.private=true", "hub.license=cc-by-4.0")) == 0
    said = capsys.readouterr().err
    assert f"hub       {stub.url}/someone/model/commit/" in said
    (line,) = (
        line for line in said.splitlines() if line.startswith("  pushed    posteriors.safetensors holds the codes")
    )
    assert f"tools/export_hub.py {run} OUT --without-posteriors --push-to someone/model" in line
    assert told_of_the_hub(run) == []
    assert not [path for path in run.iterdir() if path.name.startswith(".hub")]
    found = stub.repositories["someone/model"]
    assert found.private
    assert json.loads(found.files(BRANCH)["state.json"])["total"] == 2
    assert not [path for path in found.files() if "updates" in path or "state.json" in path]
    x = torch.zeros(3, 12, 12, dtype=torch.uint8)
    ours, theirs = Pipeline.from_pretrained(run), Pipeline.from_pretrained("someone/model")
    assert torch.equal(theirs.encode(x).mean, ours.encode(x).mean)
    card = ModelCard(found.files()["README.md"].decode())
    assert card.data.license == "cc-by-4.0"
    assert "![reconstructions](reconstructions.png)" in card.text
    assert found.files()["reconstructions.png"] == (run / "figures" / "reconstructions.png").read_bytes()
    early = Pipeline.from_pretrained("someone/model", revision=BRANCH).networks["encoder"]
    at_2 = Pipeline.from_pretrained(run / "checkpoints" / "step-00000002").networks["encoder"]
    assert all(torch.equal(value, at_2.state_dict()[name]) for name, value in early.state_dict().items())

    assert train(arguments(data, other, "resume=someone/model")) == 0
    assert "continuing step-00000002" in capsys.readouterr().err
    assert equal(weights(run), weights(other))
    stub.asked.clear()
    assert train(arguments(data, other, "resume=someone/model")) == 0
    assert not stub.asked  # its own folder has newer ones

    damaged = {**found.files(BRANCH), "networks/encoder/model.safetensors": b"cut"}
    for files, words in (
        (damaged, "networks/encoder/model.safetensors was changed or cut; resume=auto starts anew"),
        ({"pipeline.json": b"{}"}, "its branch checkpoint holds no checkpoint; resume=auto starts anew"),
    ):
        found.branches[BRANCH].clear()
        found.commit(BRANCH, files)
        assert train(arguments(data, tmp_path / "third", "resume=someone/model")) == 76
        assert f"savae_dist: resume=someone/model: {words}" in capsys.readouterr().err
        assert not list((tmp_path / "third" / "checkpoints").iterdir())


def test_the_hub_never_ends_a_run_and_is_told_once(
    stub: hub_stub.Hub, data: Path, tmp_path: Path, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert train(arguments(data, tmp_path / "run", PUSH)) == 0
    (told,) = told_of_the_hub(tmp_path / "run")
    assert "someone/model: the Hub does not let this account write there" in told
    assert f"tools/export_hub.py {tmp_path / 'run'} OUT --push-to someone/model" in told
    assert "hf_wrong" not in told
    assert stub.repositories == {}


def test_a_hub_that_is_silent_holds_up_only_the_end_and_not_for_long(
    stub: hub_stub.Hub, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.wait.clear()
    began = time.monotonic()
    assert train(arguments(data, tmp_path / "run", PUSH, "hub.timeout=1")) == 0
    assert time.monotonic() - began < 60
    (told,) = told_of_the_hub(tmp_path / "run")
    assert "did not answer within hub.timeout=1 seconds" in told
    stub.wait.set()


def test_while_a_push_is_under_way_the_next_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: hub_stub.Hub
) -> None:
    stub.wait.clear()
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    config = load(["demo", PUSH]).hub
    push, idle = (HubPush(config, tmp_path, SideOutputs(), write) for write in (True, False))
    push.checkpoint()
    first = push._process
    (tmp_path / "checkpoints" / "step-00000003").mkdir()
    push.checkpoint()
    assert push._process is first
    assert push._pushed == "step-00000002"
    idle.checkpoint()
    assert idle.finish(Path.mkdir) == ""
    push.close()
    assert first is not None
    assert first.returncode
    assert sorted(path.name for path in tmp_path.glob(".hub*")) == []
    stub.wait.set()


def test_names_on_the_hub_in_place_of_folders(stub: hub_stub.Hub, data: Path, tmp_path: Path) -> None:
    assert train(["system.name=savae", *SMALL, "max_steps=1", f"data.train={data}", f"output={tmp_path / 'run'}"]) == 0
    pipeline = Pipeline.from_pretrained(tmp_path / "run")
    pipeline.push_to_hub("someone/model")
    both = ["judge=someone/model", "networks.initial=someone/model"]
    assert train(arguments(data, tmp_path / "judged", *both, "system.latent_dim=3", "max_steps=1")) == 0
    assert json.loads((tmp_path / "judged" / "summary.json").read_text())["judge_flip_rate"] is not None
    spec = pipeline.spec
    features = open_features("system.feature_network", "someone/model", "caffe", spec)
    assert isinstance(features, EncoderFeatures)


@pytest.mark.parametrize("key", ["judge", "networks.initial", "resume", "system.feature_network"])
def test_what_the_hub_does_not_show_names_the_key(
    stub: hub_stub.Hub, data: Path, tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    system = ["system.name=dfc_vae"] if key == "system.feature_network" else []
    assert train(arguments(data, tmp_path / "run", *system, f"{key}=someone/nothing")) == 77
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"savae_dist: {key}=someone/nothing: someone/nothing: no such folder, and the Hub shows no")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("hub.push=a/b/c", "must be a repository on the Hub, ORG/NAME"),
        ("hub.push=name", "must be a repository on the Hub, ORG/NAME"),
        ("hub.private=true", "hub.private=true has no effect without hub.push"),
        ("hub.license=mit", "hub.license=mit has no effect without hub.push"),
        ("hub.timeout=0", "is a number of seconds"),
        ("resume=nver", "resume must be auto, never or a repository on the Hub"),
    ],
)
def test_values_that_cannot_work(asked: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(["demo", asked])


def test_data_sets_of_the_hub_are_known_by_their_urls() -> None:
    urls = ["hf://datasets/acme/digits/train-{0..9}.tar", "hf://datasets/acme/digits@main/b.tar", "shards/mnist"]
    assert datasets_of(urls) == ["acme/digits"]
    assert datasets_of("hf://datasets/a/b/c.tar") == ["a/b"]
    assert datasets_of(None) == []
