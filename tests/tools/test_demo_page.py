"""The local page of a pipeline: what it is given is what the pipeline says, to this machine alone."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from helpers.pictures import photo, saved
from PIL import Image

from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier
from savae_dist.origin import PictureFiles
from savae_dist.pipeline.exports.gallery import MANY, server_of
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from tools import demo

IMAGES = DataSpec("image", (3, 8, 12), 2, "unit", class_names=("inner", "outer"), origin=PictureFiles((8, 12)))
WINDOWS = DataSpec("signal", (2, 32), 2, "window", rate=100.0)


def pipeline_of(spec: DataSpec) -> Pipeline:
    torch.manual_seed(0)
    networks = {
        "encoder": ConvEncoder(spec.shape, 3, width=2, pools=1),
        "decoder": ConvDecoder(spec.shape, 3, width=2, pools=1, output="sigmoid" if spec.kind == "image" else "linear"),
        "classifier": DenseClassifier(3, 2, hidden=4),
    }
    return Pipeline(networks, spec, system={"name": "savae"})


@contextmanager
def served(pipeline: Pipeline) -> Iterator[str]:
    with server_of(pipeline, 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def ask(url: str, body: object = None, **headers: str) -> dict:
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, headers)) as answer:
        return json.load(answer)


def pixels(shown: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.removeprefix("data:image/png;base64,")))))


def test_pictures(tmp_path: Path) -> None:
    pipeline = pipeline_of(IMAGES)
    with served(pipeline) as url:
        page = urlopen(url + "/").read().decode()
        about = ask(f"{url}/about")
        decoded = pixels(ask(f"{url}/decode", {"z": [1.5, -2]})["sample"])
        made = [pixels(one) for one in ask(f"{url}/generate", {"label": None, "seed": 4})["samples"]]
        content = saved(photo(60, 90), "png")
        (row,) = ask(f"{url}/reconstruct", content, **{"X-Name": "a%20b.png"})["rows"]
        with pytest.raises(HTTPError, match="400") as caught:
            ask(f"{url}/reconstruct", b"no picture", **{"X-Name": "a.png"})
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched from elsewhere
    assert (about["kind"], about["latent_dim"], about["what"]) == ("image", 3, repr(pipeline))
    assert 2 <= about["span"] <= 4  # of N(0, I)
    assert np.array_equal(decoded, pipeline.decode(np.array([[1.5, -2, 0]], np.float32))[0])
    assert np.array_equal(made, pipeline.generate(MANY, seed=4))
    x = pipeline.prepared(content)
    assert np.array_equal(pixels(row["given"]), x[0])
    assert np.array_equal(pixels(row["rebuilt"]), pipeline.reconstruct(x)[0])
    assert row["class"] == pipeline.classify(x).names()[0]
    assert "a.png" in json.load(caught.value)["error"]


def test_windows() -> None:
    pipeline = pipeline_of(WINDOWS)
    with served(pipeline) as url:
        sample = ask(f"{url}/decode", {"z": [0.5, 0.5]})["sample"]
    np.testing.assert_allclose(sample, pipeline.decode(np.array([[0.5, 0.5, 0]], np.float32))[0], atol=1e-5)


def test_only_this_machine_is_answered() -> None:
    with served(pipeline_of(IMAGES)) as url:
        for headers, path, status in (({"Host": "evil.example"}, "/", "403"), ({}, "/nothing", "404")):
            with pytest.raises(HTTPError, match=status):
                urlopen(Request(url + path, headers=headers))


def test_what_cannot_be_served_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([str(tmp_path / "gone")]) == 76
    assert capsys.readouterr().err.startswith("demo: ")
