"""The index of a set of shards: one JSON table, and small tables beside it that say where each sample lies."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from savae_dist.data.scan import Layout, scan_shard
from savae_dist.errors import DataError

FORMAT_VERSION = 2
INDEX, LABELS = "index.json", "labels.npy"


def cache_folder() -> Path:
    """Where this package keeps what it can make again, apart from what other formats left."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "savae_dist" / f"format-{FORMAT_VERSION}"


def build_index(paths: Sequence[Path], home: Path, class_names: Sequence[str] = (), rate: float = 0.0) -> None:
    """Scan the shards and write their tables into `home`, `index.json` last: an index is there only when whole."""
    common = Layout()
    write_index(home, [index_shard(path, home, common) for path in paths], class_names, rate)


def write_index(home: Path, scanned: Sequence[dict[str, Any]], class_names: Sequence[str], rate: float) -> None:
    """`index.json` of shards whose tables are there; `scanned`: what `index_shard` gave for each."""
    shards = [one["shard"] for one in scanned]
    first = home / shards[0]["name"]
    common = Layout(next((one["layout"] for one in scanned if one["layout"]), None))
    for one in scanned:
        if common.shape is None and one["shape"] is not None:
            common.settle(np.dtype(one["dtype"]), tuple(one["shape"]))
    if common.shape is None or common.dtype is None:
        raise DataError(f"{first}: no sample that can be read; members are KEY.png|jpg|jpeg|webp|npy with KEY.cls")
    write_labels(home, shards)
    kind = "image" if common.dtype == np.uint8 else "signal"
    if len(common.shape) not in {"image": (2, 3), "signal": (1, 2)}[kind]:
        raise DataError(f"{first}: {kind} samples cannot have the shape {common.shape}; pack them again")
    highest = max(int(label) for shard in shards for label in shard["labels"])
    moments = common.moments
    for one in scanned:
        if moments is not None and one["moments"] is not None:
            n, mean, m2 = one["moments"]
            moments.merge(n, np.array(mean), np.array(m2))
    index = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "layout": common.layout,
        "dtype": common.dtype.name,
        "shape": list(common.shape),
        "classes": max(len(class_names), highest + 1, 0),
        "class_names": list(class_names),
        "rate": rate,
        "statistics": moments and {"mean": moments.mean.tolist(), "std": moments.std().tolist()},
        "shards": shards,
    }
    write_json(home / INDEX, index)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Under its name only when whole."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(partial, path)


def write_labels(home: Path, shards: Sequence[dict[str, Any]]) -> None:
    """The labels of all samples in one table, which every process maps; each shard learns where its own begin."""
    labels = np.lib.format.open_memmap(home / LABELS, "w+", np.int32, (sum(shard["count"] for shard in shards),))
    first = 0
    for shard in shards:
        shard["first"] = first
        labels[first : first + shard["count"]] = np.load(home / f"{shard['table']}.idx.npy", mmap_mode="r")["label"]
        first += shard["count"]
    labels.flush()


def index_shard(path: Path, home: Path, common: Layout) -> dict[str, Any]:
    """Scan one shard, write its tables into `home` and return what `write_index` needs, as JSON.

    common: what the shards before it settled; the first sample of all decides on dtype and shape. Its moments are
    those of this shard only, and merged later in the order of the shards: the same sums, whoever scanned which.
    """
    if common.shape is not None and common.dtype is not None:
        common.settle(common.dtype, common.shape)
    samples, blocks, skipped = scan_shard(path, common)
    inside = path.parent == home
    folder = hashlib.sha256(os.fsencode(path.parent)).hexdigest()[:8]  # shards of one name may lie in several
    table = path.stem if inside else f"{path.stem}-{folder}"
    np.save(home / f"{table}.idx.npy", samples)
    if len(blocks):
        np.save(home / f"{table}.blocks.npy", blocks)
    labels, counts = np.unique(samples["label"], return_counts=True)
    moments = common.moments
    shard = {
        "name": path.name if inside else str(path),
        "table": table,
        "count": len(samples),
        "bytes": path.stat().st_size,
        "crc32": zlib.crc32(np.memmap(path, np.uint8, "r").data),
        "sha256": hashlib.sha256(samples.tobytes() + blocks.tobytes()).hexdigest(),
        "labels": {str(label): n for label, n in zip(labels.tolist(), counts.tolist(), strict=True)},
        "skipped_keys": skipped,
    }
    return {
        "shard": shard,
        "layout": common.layout,
        "dtype": common.dtype and common.dtype.name,
        "shape": common.shape and list(common.shape),
        "moments": moments and [moments.n, moments.mean.tolist(), moments.m2.tolist()],
    }


def read_index(home: Path) -> dict[str, Any]:
    path = home / INDEX
    try:
        index = json.loads(path.read_text())
        version = index["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it to index the shards again") from error
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format_version {version}, not {FORMAT_VERSION}; delete it to index again")
    return index
