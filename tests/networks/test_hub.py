"""Networks and pipelines on the Hub: what is uploaded can be loaded, and what the Hub refuses is said in one line.

The Hub is a server of this test, or a stub.
"""

from __future__ import annotations

import json
import shutil
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants, hub_mixin

from savae_dist.errors import CheckpointError, DeniedError
from savae_dist.networks import ConvDecoder, ConvEncoder, Decoder, Encoder, Network, hub
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec


class Answers(BaseHTTPRequestHandler):
    """The same answer to everything: a status, or none at all. asked: the paths of all requests."""

    asked: list[str]
    status: int | None = 404
    error_code = ""
    body = b""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.status is None:
            self.connection.close()
            return
        self.send_response(self.status)
        self.send_header("X-Error-Code", self.error_code)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Answers]]:
    """What the Hub, here a server at loopback, answers."""
    kind = type("Answers", (Answers,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield kind
        server.shutdown()


def refusals(source: str) -> set[str]:
    """What loading it as a network and as a pipeline says, in one line each."""
    said = set()
    for kind in (Encoder, Pipeline):
        with pytest.raises((CheckpointError, DeniedError)) as caught:
            kind.from_pretrained(source)
        said.add(str(caught.value))
    assert not any("\n" in text for text in said)
    return said


@pytest.mark.parametrize("status", [401, 404])
def test_what_the_hub_does_not_show_comes_with_how_to_log_in(answers: type[Answers], status: int) -> None:
    answers.status, answers.error_code = status, "RepoNotFound"
    (said,) = refusals("someone/private")
    assert "someone/private" in said
    assert answers.asked
    assert "hf auth login" in said


@pytest.mark.parametrize(
    ("status", "body"), [(None, b""), (404, b""), (403, b""), (200, b"<html>log in to this network</html>")]
)
def test_a_hub_that_cannot_be_reached_is_one_line(answers: type[Answers], status: int | None, body: bytes) -> None:
    answers.status, answers.body = status, body
    (said,) = refusals("someone/model")
    assert "someone/model: no such folder, and not to be had from the Hub" in said


def test_what_no_repository_could_be_called_is_not_asked_for(answers: type[Answers]) -> None:
    for source in ("/nowhere", "../a/b", "a b", "runs/a/pipeline"):
        (said,) = refusals(source)
        assert "no such folder" in said
    assert not answers.asked


def uploaded(network: Network, monkeypatch: pytest.MonkeyPatch, folder: Path, **options: object) -> Path:
    """The folder that `push_to_hub` would upload, copied to `folder`."""

    class Api:
        def __init__(self, token: str | None = None) -> None: ...

        def create_repo(self, repo_id: str, **options: object) -> SimpleNamespace:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, folder_path: Path, **options: object) -> str:
            shutil.copytree(folder_path, folder)
            return "https://huggingface.co/someone/encoder/commit/1"

    monkeypatch.setattr(hub_mixin, "HfApi", Api)
    network.push_to_hub("someone/encoder", **options)
    return folder


@pytest.mark.parametrize("config", [None, {"note": "mine", "model_type": "theirs"}])
def test_what_is_pushed_can_be_loaded(
    config: dict[str, str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = ConvEncoder((1, 8, 8), 2, width=2, pools=1)
    folder = uploaded(network, monkeypatch, tmp_path / "uploaded", config=config)
    monkeypatch.setattr(hub, "snapshot_download", lambda source, **options: str(folder))
    loaded = Encoder.from_pretrained("someone/encoder")
    assert (type(loaded), loaded.init_arguments["pools"]) == (ConvEncoder, 1)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())
    assert json.loads((folder / "config.json").read_text()).get("note") == (config or {}).get("note")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert len(modes) == 1  # weights as readable as the rest


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"\xff" * 100),
        ("model.safetensors", b""),
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"\xff\xfe"),
    ],
)
def test_damaged_files_are_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    ConvEncoder((1, 8, 8), 2, width=2).save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot be read|is no whole safetensors file") as caught:
        Network.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def in_cache(cache: Path, folder: Path, name: str = "acme/vae") -> Path:
    """A repository as `huggingface_hub` keeps it once it was downloaded."""
    home, commit = cache / f"models--{name.replace('/', '--')}", "0" * 40
    shutil.copytree(folder, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    return cache


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A pipeline's folder: encoder and decoder in folders of their own."""
    networks = {"encoder": ConvEncoder((1, 8, 8), 2, width=2), "decoder": ConvDecoder((1, 8, 8), 2, width=2)}
    spec = DataSpec("image", (1, 8, 8), 2, "unit", class_names=("a", "b"))
    Pipeline(networks, spec).save_pretrained(tmp_path / "exported")
    return tmp_path / "exported"


@pytest.mark.parametrize("place", ["cache", "folder", "inside"])
def test_one_network_out_of_a_pipeline_by_subfolder(
    place: str, exported: Path, tmp_path: Path, answers: type[Answers]
) -> None:
    inner = "deep/er/" if place == "inside" else ""
    if inner:
        shutil.copytree(exported, tmp_path / "whole" / inner)
        exported = tmp_path / "whole"
    options = {"cache_dir": in_cache(tmp_path / "c", exported), "local_files_only": True}
    source, options = ("acme/vae", options) if place == "cache" else (str(exported), {})
    encoder = Encoder.from_pretrained(source, subfolder=f"{inner}encoder", **options)
    assert isinstance(Decoder.from_pretrained(source, subfolder=f"{inner}decoder", **options), ConvDecoder)
    pipeline = Pipeline.from_pretrained(source, subfolder=inner.rstrip("/"), **options)
    state = pipeline.networks["encoder"].state_dict()
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    if not inner:
        with pytest.raises(CheckpointError, match=r"is a whole pipeline; name one .* subfolder='encoder'"):
            Encoder.from_pretrained(source, **options)
    with pytest.raises(CheckpointError, match=r"has no folder 'critic' to load; there are "):
        Encoder.from_pretrained(source, subfolder="critic", **options)
    for outside in ("../exported", "/tmp"):
        with pytest.raises(CheckpointError, match="must be the name of a folder within"):
            Pipeline.from_pretrained(source, subfolder=outside, **options)
    assert not answers.asked


@pytest.mark.parametrize("kind", [Encoder, Network, Pipeline])
@pytest.mark.parametrize("keyword", ["sub_folder", "strict", "torch_dtype", "use_auth_token"])
def test_a_keyword_that_is_not_known_is_refused(kind: type, keyword: str, exported: Path) -> None:
    with pytest.raises(TypeError, match=keyword):
        kind.from_pretrained(exported, **{keyword: 1})


@pytest.mark.parametrize("keyword", ["push_to_hubb", "safe_serialization", "max_shard_size"])
def test_a_keyword_that_saving_does_not_know_is_refused(keyword: str, tmp_path: Path) -> None:
    with pytest.raises(
        TypeError, match=rf"save_pretrained\(\) takes no '{keyword}'; for the Hub it takes repo_id, push"
    ):
        ConvEncoder((1, 8, 8), 2, width=2).save_pretrained(tmp_path / "x", **{keyword: True})
    assert not (tmp_path / "x").exists()


def test_only_the_cache_is_read_where_no_more_is_asked_for(tmp_path: Path, answers: type[Answers]) -> None:
    for kind in (Encoder, Pipeline):
        with pytest.raises(CheckpointError, match="someone/model: no such folder, and not to be had"):
            kind.from_pretrained("someone/model", cache_dir=tmp_path, local_files_only=True)
    assert not answers.asked


@pytest.mark.parametrize("source", ["/no/where", "./runs", "../x", "~/runs/a", "runs/a/pipeline", "runs/", r"C:\runs"])
def test_a_path_that_is_not_there_does_not_exist(source: str, answers: type[Answers]) -> None:
    assert refusals(source) == {f"{source} does not exist: no such folder".replace("\\", "\\")}
    assert not answers.asked


def test_a_file_in_place_of_its_folder_is_told(exported: Path) -> None:
    for kind in (Encoder, Pipeline):
        with pytest.raises(CheckpointError, match=r"pipeline\.json is a file: give the folder that it lies in"):
            kind.from_pretrained(exported / "pipeline.json")
