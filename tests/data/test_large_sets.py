"""A set of 10^9 samples, simulated by files with holes: memory and start-up time do not grow with the samples."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.launching import environment

from savae_dist.data.index.scan import BLOCK, SAMPLE
from savae_dist.data.remote.cache import FORMAT_VERSION

SHARDS, BLOCKS, ROWS, SHAPE = 10_000, 400, 250, (28, 28)  # 100,000 samples in a shard

MEASURE = """
import sys, time
import numpy as np, psutil
from savae_dist.data import Proportions, Reader, Request, Shards, training_order

process = psutil.Process()
def private():  # without the pages of mapped files, which the system takes back when it needs them
    info = process.memory_info()
    return (info.rss - info.shared) / 1e6

before, start = private(), time.perf_counter()
shards = Shards.open(sys.argv[1])
order = training_order(shards, Proportions(**eval(sys.argv[2])), seed=0, lanes=8, window=16, batch_size=256)
reader = Reader(shards, order, 0)
batch = reader[Request(0, 256, range(256))]
assert batch.x.shape == (256, 28, 28) and not batch.bad
seconds, opened = time.perf_counter() - start, private() - before
for step in range(1, 50):
    reader[Request(step * 256, 256, range(256))]
for epoch in (1, 30, 1000):  # anywhere, at once
    reader[Request(epoch * shards.size - 128, 256, range(256))]
print(shards.size, seconds, opened, private() - before)
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tars and labels are holes, which read as zeros; all shards share their tables, whose crcs and digest fit."""
    folder = tmp_path_factory.mktemp("large")
    row = int(np.prod(SHAPE))
    block = ROWS * row
    table = np.zeros(BLOCKS, BLOCK)
    table["offset"], table["size"] = np.arange(BLOCKS) * block, block
    table["first"], table["crc"] = np.arange(BLOCKS) * ROWS, zlib.crc32(bytes(block))
    np.save(folder / "table.blocks.npy", table)
    samples = np.zeros(BLOCKS * ROWS, SAMPLE)
    samples["offset"], samples["size"], samples["crc"] = np.arange(len(samples)) * row, row, zlib.crc32(bytes(row))
    np.save(folder / "table.idx.npy", samples)
    digest = hashlib.sha256(samples.tobytes() + table.tobytes()).hexdigest()
    np.lib.format.open_memmap(folder / "labels.npy", "w+", np.int32, (SHARDS * BLOCKS * ROWS,))
    shards = []
    for number in range(SHARDS):
        name = f"{number:05}.tar"
        with (folder / name).open("wb") as file:
            file.truncate(BLOCKS * block)
        for kind in ("idx", "blocks"):
            (folder / f"{number:05}.{kind}.npy").hardlink_to(folder / f"table.{kind}.npy")
        shards.append(
            {
                **{"name": name, "table": f"{number:05}", "count": BLOCKS * ROWS, "bytes": BLOCKS * block},
                **{"first": number * BLOCKS * ROWS, "labels": {"0": BLOCKS * ROWS}, "sha256": digest},
                **{"dropped": {}, "bad": {}, "whole": True, "crc32": 0},
            }
        )
    index = {
        **{"format_version": FORMAT_VERSION, "kind": "image", "layout": "packed", "dtype": "uint8"},
        **{"shape": list(SHAPE), "classes": 1, "class_names": [], "rate": 0.0, "statistics": None, "shards": shards},
    }
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "megabytes"), [({}, 400), ({"labelled": 1.0, "balance": 1.0}, 500)], ids=["order", "mixture"]
)
def test_a_thousand_million_samples(simulated: Path, asked: dict[str, float], megabytes: int) -> None:
    # The numbers are bounds, far above what is needed: 10^9 labels alone would be 4,000 MB, an order of them 8,000.
    command = [sys.executable, "-c", MEASURE, str(simulated), repr(asked)]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    size, seconds, opened, after = map(float, result.stdout.split())
    print(f"{size:.0f} samples: first batch after {seconds:.1f} s; {opened:.0f} MB, later {after:.0f} MB")
    assert size == 10**9
    assert opened < megabytes
    assert after < opened + 300
    assert seconds < 60
