"""A local page of a pipeline: move through its latent plane, reconstruct a file of one's own, generate by class."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch

from savae_dist.errors import UserError
from savae_dist.pipeline.class_names import name_of
from savae_dist.pipeline.pipeline import Pipeline

PAGE = Path(__file__).with_name("gallery.html")
HOST = "127.0.0.1"
MOST_BYTES = 256 << 20  # largest file that may be sent
DRAWS = 256  # codes that are drawn to find the plane's size
MANY = 12  # samples that are generated, and windows of a recording that are shown

Answer = dict[str, Any]


class Gallery:
    """What the page asks for. One request is answered at a time: the networks are shared."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.lock = pipeline, Lock()
        self.asked: dict[str, Callable[[bytes, str], Answer]] = {
            "/about": self.about,
            "/decode": self.decode,
            "/generate": self.generate,
            "/reconstruct": self.reconstruct,
        }

    def about(self, body: bytes, name: str) -> Answer:
        """What the pipeline is, and which parts of the page it has networks for."""
        pipeline, spec = self.pipeline, self.pipeline.spec
        decodes = "decoder" in pipeline.networks
        return {
            "what": repr(pipeline),
            "kind": spec.kind,
            "decodes": decodes,
            "reconstructs": decodes and "encoder" in pipeline.networks,
            "latent_dim": pipeline.latent_dim if decodes else 0,
            "span": self._span() if decodes else 1,
            "labels": [name_of(label, spec.class_names) for label in pipeline.labels],
        }

    def _span(self) -> int:
        """How far the plane reaches to each side: nearly all codes that are drawn lie in it."""
        drawn = self.pipeline.latents(DRAWS, seed=0)[:, :2].abs().flatten()
        return math.ceil(float(drawn.quantile(0.99)))

    def decode(self, body: bytes, name: str) -> Answer:
        """The sample of a code, of which only the first dimensions are given; the others are 0."""
        given = np.asarray(json.loads(body)["z"], np.float32)
        z = np.zeros((1, self.pipeline.latent_dim), np.float32)
        z[0, : len(given)] = given[: z.shape[1]]
        return {"sample": self._shown(self.pipeline.decode(z)[0])}

    def generate(self, body: bytes, name: str) -> Answer:
        """New samples of a class by its name, or of all."""
        asked = json.loads(body)
        label, names = asked.get("label"), self.pipeline.spec.class_names
        number = int(label) if label is not None and label not in names else label
        made = self.pipeline.generate(MANY, number, int(asked.get("seed", 0)))
        return {"samples": [self._shown(one) for one in made]}

    def reconstruct(self, body: bytes, name: str) -> Answer:
        """A picture, or the first windows of a recording, as the networks take them, and reconstructed."""
        pipeline = self.pipeline
        with TemporaryDirectory() as folder:
            path = Path(folder) / (Path(name).name or "file")
            path.write_bytes(body)
            x = np.asarray(pipeline.prepared(path)[:MANY])
        x_hat = pipeline.reconstruct(x)
        classes = pipeline.classify(x).names() if "classifier" in pipeline.networks else [""] * len(x)
        rows = zip(x, x_hat, classes, strict=True)
        return {"rows": [{"given": self._shown(a), "rebuilt": self._shown(b), "class": c} for a, b, c in rows]}

    def _shown(self, sample: np.ndarray) -> str | list[list[float]]:
        """A picture as a data URL, or a window as a list of its channels."""
        if self.pipeline.spec.kind == "signal":
            return np.atleast_2d(sample).astype(float).round(5).tolist()
        from PIL import Image  # here: signals need none

        file = io.BytesIO()
        Image.fromarray(sample).save(file, "png")
        return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


class Handler(BaseHTTPRequestHandler):
    """The page, and JSON: what is asked for, or `error` in one line with 400."""

    gallery: Gallery

    def do_GET(self) -> None:
        # Refuse requests for another host name: by DNS rebinding a foreign site could read what is generated.
        if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
            self._send(403, b"this page is for this machine alone", "text/plain")
        elif self.command == "GET" and self.path == "/":
            self._send(200, PAGE.read_bytes(), "text/html; charset=utf-8")
        elif self.path in self.gallery.asked:
            self._answer(self.gallery.asked[self.path])
        else:
            self._send(404, b"there is no such page", "text/plain")

    do_POST = do_GET

    def _answer(self, work: Callable[[bytes, str], Answer]) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST_BYTES:
            self._send(413, json.dumps({"error": f"more than {MOST_BYTES:,} bytes"}).encode())
            return
        body = self.rfile.read(length)
        try:
            with self.gallery.lock, torch.no_grad():
                found, status = work(body, unquote(self.headers.get("X-Name", ""))), 200
        except (UserError, ValueError, KeyError, TypeError) as error:  # the request is at fault
            found, status = {"error": " ".join(str(error).split())}, 400
        self._send(status, json.dumps(found).encode())

    def _send(self, status: int, content: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def server_of(pipeline: Pipeline, port: int) -> ThreadingHTTPServer:
    """A server on this machine alone; port 0: any that is free."""
    return ThreadingHTTPServer((HOST, port), type("Bound", (Handler,), {"gallery": Gallery(pipeline)}))
