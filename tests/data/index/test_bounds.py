"""What an index and a shard may ask for: bounds, the fit of an index to its files, and what is named where not."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from savae_dist.data import Order, Reader, Request, Shards, Store, index_set, pack
from savae_dist.data.formats import headers, images
from savae_dist.data.formats.npy import open_table
from savae_dist.data.index import scan
from savae_dist.data.index.scan import SAMPLE
from savae_dist.errors import BadSample, DataError

GOLDEN = Path(__file__).parents[2] / "golden" / "shards"


def spoil(folder: Path, *way: Any, value: Any) -> None:
    path = folder / "index.json"
    index = json.loads(path.read_text())
    holder = index
    for step in way[:-1]:
        holder = holder[step]
    holder[way[-1]] = value
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("name", "way", "value", "words"),
    [
        ("packed", ("classes",), 10**9, "classes is 1000000000, not a whole number from 0 to 1,048,576"),
        ("packed", ("shape",), [10**6, 10**6], "shape is .* of uint8, no image of at most"),
        ("packed", ("shape",), [2000, 2000], r"shards\[0\].count is .* samples need .* bytes, and it has"),
        ("packed", ("dtype",), "float32", "shape is .* of float32, no image"),
        ("packed", ("kind",), "\x1b[31m", r"kind is '\\x1b\[31m', not image or signal"),
        ("packed", ("shards", 0, "labels"), {"0": 1}, "labels are 1 in sum, and the shard has"),
        ("packed", ("shards", 0, "labels"), {"99": 1}, "labels holds the label 99, and there are 4 classes"),
        ("packed", ("shards", 1, "first"), 10**6, "labels.npy does not fit its index .* rows, and the shards have"),
        ("windows", ("statistics", "mean"), [1.0], "statistics is .* there are 2 channels"),
        ("samples", ("shards", 0, "table"), "../\0", "table is .* not a path"),
    ],
)
def test_an_index_that_does_not_fit_is_named(name: str, way: Any, value: Any, words: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / "x"))
    assert Shards.open(str(folder)).size
    spoil(folder, *way, value=value)
    with pytest.raises(DataError, match=words) as caught:
        Shards.open(str(folder))
    assert "delete" in str(caught.value)
    assert len(str(caught.value)) < 400


def beyond(table: np.ndarray) -> None:
    table["offset"][3] = -600 if table["offset"].dtype.kind == "i" else 2**63


def moved(table: np.ndarray) -> None:
    table["first"] += 1


@pytest.mark.parametrize(
    ("name", "file", "change", "words"),
    [
        ("samples", "idx", beyond, "names a place beyond the .* bytes of its shard"),
        ("packed", "blocks", lambda table: table["size"].fill(1 << 40), "names a place beyond"),
        ("packed", "blocks", moved, "does not hold the .* samples of its shard, one after the other"),
    ],
)
def test_a_table_that_does_not_fit_is_named(
    name: str, file: str, change: Callable[[np.ndarray], None], words: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(GOLDEN / name, tmp_path / "x"))
    path = folder / f"shards-000000.{file}.npy"
    table = np.load(path)
    change(table)
    np.save(path, table)
    shards = Shards.open(str(folder))
    with pytest.raises(DataError, match=words):
        Reader(shards, Order.sequential(shards.counts), 10**6)[Request(0, shards.size, range(shards.size))]


@pytest.mark.parametrize(
    "spoilt",
    [b"", b"\x93NUMPY", b"x" * 500, lambda d: d[:-1], lambda d: d + b"x", lambda d: d.replace(b"(3,)", b"(4,)")],
)
def test_a_table_is_mapped_only_if_it_is_whole(spoilt: Any, tmp_path: Path) -> None:
    table = np.zeros(3, SAMPLE)
    np.save(tmp_path / "x.npy", table)
    assert (open_table(tmp_path / "x.npy", SAMPLE) == table).all()
    with pytest.raises(ValueError, match="its columns are"):
        open_table(tmp_path / "x.npy", np.dtype(np.int32))
    data = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(spoilt if isinstance(spoilt, bytes) else spoilt(data))
    with pytest.raises(ValueError, match=r"not the header|rows need"):
        open_table(tmp_path / "x.npy", SAMPLE)


def test_one_label_makes_no_million_classes(tmp_path: Path) -> None:
    x = np.zeros((4, 3, 3), np.uint8)
    pack(x, np.array([0, 1, 2, 1_048_575]), tmp_path / "x")
    shards = Shards.open(str(tmp_path / "x"))
    with pytest.raises(DataError, match=r"labels go up to 1,048,575, and only 4 of them have samples"):
        shards.check_classes()
    pack(x, np.array([0, 1, 2, 90]), tmp_path / "few")  # holes there may be
    Shards.open(str(tmp_path / "few")).check_classes()
    pack(x, np.array([0, 1, 2, 3]), tmp_path / "named", class_names=[str(n) for n in range(2000)])
    Shards.open(str(tmp_path / "named")).check_classes()


def test_a_jpeg_of_hundreds_of_scans_is_not_decoded() -> None:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24), np.uint8)).save(
        stream, "jpeg", progressive=True
    )
    data = stream.getvalue()
    assert images.decode_picture(data).shape == (24, 24)
    scan_of_all = data[data.rindex(headers.SCAN) : -2]
    with pytest.raises(BadSample, match="too many scans"):
        images.decode_picture(data[:-2] + scan_of_all * 300 + data[-2:])


def test_a_sparse_block_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar of a few bytes and a hole that claims to be a block of numbers."""
    monkeypatch.setattr(scan, "MAX_BLOCK", 1 << 20)
    size = 8 << 20
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (size // 4 - 32, 1)})
    info = tarfile.TarInfo("a.x.npy")
    info.size = size
    good = io.BytesIO()
    np.save(good, np.ones((5, 1), np.float32))
    with (tmp_path / "x.tar").open("wb") as file:
        other = tarfile.TarInfo("b.x.npy")
        other.size = len(good.getvalue())
        file.write(other.tobuf() + good.getvalue().ljust(-(-other.size // 512) * 512, b"\0"))
        file.write(info.tobuf(tarfile.GNU_FORMAT) + head.getvalue())
        file.truncate(file.tell() - len(head.getvalue()) + size + 1024)
    (shard,) = index_set([tmp_path]).index["shards"]
    assert (shard["count"], shard["dropped"]["too many bytes"]["count"]) == (5, size // 4 - 32)


def test_moments_of_a_large_block_are_those_of_its_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).normal(3, 2, (50, 2, 8)).astype(np.float32)
    whole, pieces = scan.Moments(2), scan.Moments(2)
    whole.add(x)
    monkeypatch.setattr(scan, "PIECE", 33)
    pieces.add(x)
    assert pieces.n == whole.n == x.size // 2
    np.testing.assert_allclose(pieces.mean, x.mean((0, 2), dtype=np.float64))
    np.testing.assert_allclose(pieces.std(), whole.std())


@contextmanager
def sending(piece: bytes, every: float) -> Iterator[str]:
    """A server whose answer has no end; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while not stopped.wait(every):
                    self.wfile.write(piece)
            except OSError:  # the reader has had enough
                self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    stopped = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()


def test_a_remote_index_without_end_is_bounded(tmp_path: Path) -> None:
    with sending(b"[" * 100_000, 0) as url, pytest.raises(DataError, match="has more than 1,000,000 bytes"):
        Store(tmp_path).read(f"{url}/index.json", 1_000_000)


def test_a_remote_index_of_a_byte_a_second_is_bounded(tmp_path: Path) -> None:
    start = time.monotonic()
    with sending(b"[", 0.05) as url, pytest.raises(DataError, match=r"no answer for data.outage_limit=0.5 s"):
        Store(tmp_path, outage_limit=0.5).read(f"{url}/index.json", 1_000_000)
    assert time.monotonic() - start < 10
