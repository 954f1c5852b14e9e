"""The index of a set of shards: one JSON table, and small tables beside it that say where each sample lies."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from savae_dist.data.scan import BLOCK, SAMPLE, Layout, scan_shard
from savae_dist.errors import ConfigError, DataError
from savae_dist.preprocess import DataSpec, Normalise

FORMAT_VERSION = 1
INDEX = "index.json"


def cache_folder() -> Path:
    """Where this package keeps what it can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "savae_dist"


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
    partial = home / f"{INDEX}.partial"
    partial.write_text(json.dumps(index, indent=1) + "\n")
    os.replace(partial, home / INDEX)


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


def expand(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """A folder, one tar, a brace pattern or a list of these to the paths of its shards, in order."""
    if not isinstance(source, (str, os.PathLike)):
        paths = [path for one in source for path in expand(one)]
    elif Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
        paths = sorted(folder.glob("*.tar"))
        if (folder / INDEX).exists():
            paths = [folder / shard["name"] for shard in read_index(folder)["shards"]]
        if not paths:
            raise DataError(f"{folder} holds no .tar shards; make some with tools/make_shards.py")
    else:
        from braceexpand import braceexpand

        try:
            paths = [Path(one).expanduser() for one in braceexpand(os.fspath(source))]
        except ValueError as error:
            raise ConfigError(f"the shard pattern {source} has unbalanced braces") from error
    if not paths:
        raise ConfigError("the list of shards is empty; name a folder made by tools/make_shards.py")
    return [path.absolute() for path in paths]


def check_shards(home: Path, shards: list[dict[str, Any]]) -> None:
    for shard in shards:
        path = home / shard["name"]
        if not path.is_file():
            raise DataError(f"shard {path} is missing; bring it back, or make the set again")
        if path.stat().st_size != shard["bytes"]:
            raise DataError(
                f"shard {path} has {path.stat().st_size} bytes, its index says {shard['bytes']}: "
                f"copy it again, or delete {home / INDEX} if it was changed on purpose"
            )


def find_or_build(paths: list[Path]) -> tuple[Path, dict[str, Any]]:
    """The folder of the index that covers `paths`, and that index cut to them; built where there is none.

    An index lies beside the shards if it covers that folder and may be written there, else in the cache.
    """
    for path in paths:
        if not path.is_file():
            raise DataError(f"shard {path} is missing; bring it back, or correct data.train / data.validation")
    home = paths[0].parent
    if (home / INDEX).exists():
        beside = {home / shard["name"] for shard in read_index(home)["shards"]} >= set(paths)
    else:
        beside = set(paths) == set(home.glob("*.tar")) and os.access(home, os.W_OK)
    if not beside:
        home = cache_folder() / "index" / hashlib.sha256("\n".join(map(str, paths)).encode()).hexdigest()[:16]
        home.mkdir(parents=True, exist_ok=True)
    if not (home / INDEX).exists():
        with FileLock(home / ".index.lock"):  # of several processes one builds, the others wait and find it
            if not (home / INDEX).exists():
                build_index(paths, home)
    index = read_index(home)
    known = {home / shard["name"]: shard for shard in index["shards"]}
    return home, {**index, "shards": [known[path] for path in paths]}


class Shards:
    """An indexed set of shards: what it holds and where; nothing of the tars is read or kept open.

    counts: int64 [shards], samples in each. starts: int64 [shards], the id of the first of each.
    spec: what the samples are. digest: sha256 of the content of the index, wherever the shards lie.
    """

    def __init__(self, home: Path, index: dict[str, Any]) -> None:
        check_shards(home, index["shards"])
        self.home, self.index = home, index
        self.counts = np.array([shard["count"] for shard in index["shards"]], np.int64)
        self.starts = np.cumsum(self.counts) - self.counts
        self.size = int(self.counts.sum())
        if not self.size:
            raise DataError(f"{home} holds no samples; make the set again")
        self.names = [Path(shard["name"]).name for shard in index["shards"]]
        self.stored_shape, self.stored_dtype = tuple(index["shape"]), str(index["dtype"])
        self.packed = index["layout"] == "packed"
        self.label_counts: dict[int, int] = {}
        for shard in index["shards"]:
            for label, n in shard["labels"].items():
                self.label_counts[int(label)] = self.label_counts.get(int(label), 0) + n
        self.spec = self._spec()

    @classmethod
    def open(cls, source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Shards:
        """A folder, a brace pattern, a list or one tar; DataError where a shard is missing or not what was indexed."""
        return cls(*find_or_build(expand(source)))

    def _spec(self) -> DataSpec:
        shape, kind = self.stored_shape, self.index["kind"]
        if kind == "image":
            shape = (1, *shape) if len(shape) == 2 else (shape[2], *shape[:2])
        else:
            shape = (1, *shape) if len(shape) == 1 else shape
        return DataSpec(
            kind=kind,
            shape=shape,
            classes=self.index["classes"],
            normalise="unit" if kind == "image" else "window",
            rate=self.index["rate"],
            class_names=self.index["class_names"],
        )

    def with_spec(self, spec: DataSpec) -> Shards:
        """The same shards seen as `spec`, such as validation data as the training data; labels beyond it are bad."""
        if (spec.kind, spec.shape) != (self.spec.kind, self.spec.shape):
            raise DataError(
                f"{self.home} holds {self.spec.kind} samples of shape {self.spec.shape}, "
                f"not {spec.kind} {spec.shape}; name data of the same kind and shape"
            )
        other = copy.copy(self)
        other.spec = spec
        return other

    def with_normalise(self, mode: Normalise) -> Shards:
        """The same shards with another normalisation: `window`, `dataset` (by this set's statistics) or `none`."""
        statistics = self.index["statistics"] if mode == "dataset" else None
        if mode == "dataset" and statistics is None:
            raise ConfigError("normalise=dataset is for signals; images take normalise=unit")
        mean, std = (statistics["mean"], statistics["std"]) if statistics else ((), ())
        return self.with_spec(replace(self.spec, normalise=mode, mean=tuple(mean), std=tuple(std)))

    @cached_property
    def digest(self) -> str:
        content = copy.deepcopy(self.index)
        for shard in content["shards"]:
            shard["name"] = Path(shard["name"]).name
            del shard["table"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def describe(self) -> str:
        """`1,500 images 1x8x8, 10 classes, 0 unlabelled`."""
        spec, rate = self.spec, f" at {self.spec.rate:g} Hz" if self.spec.rate else ""
        return (
            f"{self.size:,} {spec.kind}s {'x'.join(map(str, spec.shape))}{rate}, {spec.classes} classes, "
            f"{self.label_counts.get(-1, 0):,} unlabelled"
        )

    def path(self, shard: int) -> Path:
        return self.home / self.index["shards"][shard]["name"]

    def samples(self, shard: int) -> np.ndarray:
        """The mapped table of a shard's samples (`scan.SAMPLE`)."""
        return self._table(shard, "idx", SAMPLE, int(self.counts[shard]))

    def blocks(self, shard: int) -> np.ndarray:
        """The mapped table of a packed shard's blocks (`scan.BLOCK`)."""
        return self._table(shard, "blocks", BLOCK, None)

    def _table(self, shard: int, what: str, dtype: np.dtype, count: int | None) -> np.ndarray:
        path = self.home / f"{self.index['shards'][shard]['table']}.{what}.npy"
        try:
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); delete {self.home / INDEX} to index again") from error
        if table.dtype != dtype or table.ndim != 1 or count not in (None, len(table)):
            raise DataError(f"{path} does not fit its index; delete {self.home / INDEX} to index again")
        return np.asarray(table)

    @cached_property
    def _labels(self) -> np.ndarray:
        """int32 [size]: needed of every sample, since averages divide by the labelled count of the global batch."""
        return np.concatenate([self.samples(shard)["label"] for shard in range(len(self.counts)) if self.counts[shard]])

    def labels(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """int64 [n] labels; -1: unlabelled, -2: could not be read."""
        return self._labels[self.starts[shards] + rows].astype(np.int64)

    def all_labels(self) -> np.ndarray:
        """int64 [size], by id."""
        return self._labels.astype(np.int64)
