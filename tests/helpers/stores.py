"""Stores on loopback: an HTTP server with scripted faults, and moto's S3 server in a process that can be killed."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from helpers.launching import free_port

BUCKET = "bucket"
# Filled before it listens: a store that is there and empty says of all that it does not exist.
S3_SERVER = """
import sys
from pathlib import Path
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

folder, port = Path(sys.argv[1]), int(sys.argv[2])
backend = s3_backends["123456789012"]["aws"]
backend.create_bucket("bucket", "us-east-1")
for path in sorted(folder.rglob("*")):
    if path.is_file():
        backend.put_object("bucket", str(path.relative_to(folder)), path.read_bytes())
run_simple("127.0.0.1", port, DomainDispatcherApplication(create_backend_app), threaded=True)
"""


class Web:
    """Serves a folder. `faults` is taken from the front, one for each GET of a .tar: see `_Handler`; then `always`.

    hanging: whether no request gets an answer until the end. log: (method, path) in the order of the requests. ranges:
    whether it knows them.
    """

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        self.folder, self.ranges = folder, ranges
        self.faults: list[str] = []
        self.wrong: list[str] = []  # paths, once for each wrong answer
        self.always = ""
        self.hanging = False
        self.ended = threading.Event()
        self.slow = 0.0  # seconds before each answer
        self.log: list[tuple[str, str]] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"web": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def gets(self, suffix: str = ".tar") -> list[str]:
        """Names that were asked for, in order."""
        with self.lock:
            return [path.rpartition("/")[2] for method, path in self.log if method == "GET" and path.endswith(suffix)]


class _Handler(BaseHTTPRequestHandler):
    web: Web
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        web, fault = self.web, ""
        with web.lock:
            web.log.append((self.command, self.path))
            if body and self.path.endswith(".tar"):
                fault = web.faults.pop(0) if web.faults else web.always
                if fault == "wrong" and web.faults and web.wrong.count(self.path) == 2:
                    web.faults.append(fault)  # for another file: one that is wrong three times is rightly given up
                    fault = ""
                web.wrong += [self.path] * (fault == "wrong")
        time.sleep(web.slow)
        if web.hanging or fault == "hang":
            web.ended.wait(60)
            raise BrokenPipeError
        path = web.folder / self.path.lstrip("/")
        if fault.isdigit() or not path.is_file():
            return self._send(int(fault or 404), b"")
        data = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if web.ranges else None
        content = data[int(found[1]) : int(found[2]) + 1] if found else data
        if fault == "wrong":
            content = content[:-700] + bytes([content[-700] ^ 1]) + content[-699:]
        if fault == "short":
            content = content[:-512]
        length = 1 << 40 if fault in ("endless", "drip") else len(content)
        content = b"" if fault == "drip" else content
        self._send(206 if found else 200, content if body else b"", length, fault)

    def _send(self, status: int, content: bytes, length: int | None = None, fault: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        if fault in ("reset", "truncated", "endless", "drip"):
            self.send_header("Connection", "close")
        self.end_headers()
        if fault == "reset":  # closed with unread data and no time to linger: the other side sees a reset
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
        elif fault == "truncated":
            self.wfile.write(content[: len(content) // 2])
        elif fault in ("endless", "drip"):
            self.wfile.write(content)
            while not self.web.ended.wait(0.02 if fault == "drip" else 0):
                self.wfile.write(bytes(1 if fault == "drip" else 1 << 16))
                self.wfile.flush()
        elif fault == "slow":
            for start in range(0, len(content), 1 + len(content) // 5):
                self.wfile.write(content[start : start + 1 + len(content) // 5])
                self.wfile.flush()
                time.sleep(0.05)
        else:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """To `web.log` instead."""

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):  # the connection was reset on purpose, or the client has left
            self.close_connection = True

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True


@contextmanager
def web(folder: Path, ranges: bool = True) -> Iterator[Web]:
    served = Web(folder, ranges)
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        served.ended.set()
        served.server.shutdown()
        served.server.server_close()
        thread.join()


def held(folder: Path) -> int:
    """Bytes in the folder of a cache, at one moment."""
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        files = [path.stat() for path in folder.glob("[!.]*") if path.exists()]
        fcntl.flock(lock, fcntl.LOCK_UN)
    return sum(status.st_size for status in files)


class S3:
    """moto's server with the files of `folder` in BUCKET; what it logs goes to `log`."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.port, self.log = folder, free_port(), log
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-c", S3_SERVER, str(self.folder), str(self.port)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
        for _ in range(600):
            assert self.process.poll() is None, self.log.read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(f"moto's server did not start: {self.log.read_text()}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def gets(self) -> int:
        return len(re.findall(r"GET /\S+\.tar HTTP", self.log.read_text()))


@contextmanager
def s3(folder: Path, log: Path) -> Iterator[S3]:
    served = S3(folder, log)
    try:
        served.start()
        yield served
    finally:
        served.kill()
