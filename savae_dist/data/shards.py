"""An indexed set of shards: which tars a source names, the index that covers them, and what it says of each sample."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from savae_dist.data.index import INDEX, LABELS, build_index, cache_folder, read_index
from savae_dist.data.remote import Catalogue, find_or_fetch
from savae_dist.data.scan import BLOCK, SAMPLE
from savae_dist.data.store import Store, is_remote, name_of
from savae_dist.errors import ConfigError, DataError
from savae_dist.preprocess import DataSpec, Normalise

Sources = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def expand(source: Sources, catalogue: Catalogue) -> list[Path | str]:
    """A folder, one tar, a brace pattern or a list of these to the paths or URLs of its shards, in order."""
    if not isinstance(source, (str, os.PathLike)):
        named = [shard for one in source for shard in expand(one, catalogue)]
        if not named:
            raise ConfigError("the list of shards is empty; name a folder made by tools/make_shards.py")
        return named
    if isinstance(source, str) and is_remote(source):
        return list(catalogue.expand(source))
    return list(_expand_path(source))


def _expand_path(source: str | os.PathLike[str]) -> list[Path]:
    if Path(source).expanduser().is_dir():
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
    return [path.absolute() for path in paths]


def check_shards(home: Path, shards: list[dict[str, Any]]) -> None:
    """DataError unless the local ones are there; remote ones, perhaps thousands, show it when they are fetched."""
    for shard in shards:
        if is_remote(shard["name"]):
            continue
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

    store: through which remote shards are read; needed only where there are any.

    counts: int64 [shards], samples in each. starts: int64 [shards], the id of the first of each.
    spec: what the samples are. digest: sha256 of the content of the index, wherever the shards lie.
    """

    def __init__(self, home: Path, index: dict[str, Any], store: Store | None = None) -> None:
        check_shards(home, index["shards"])
        self.home, self.index, self.store = home, index, store
        self.remote = any(is_remote(shard["name"]) for shard in index["shards"])
        self.counts = np.array([shard["count"] for shard in index["shards"]], np.int64)
        self.starts = np.cumsum(self.counts) - self.counts
        self._first = np.array([shard["first"] for shard in index["shards"]], np.int64)
        self.size = int(self.counts.sum())
        if not self.size:
            raise DataError(f"{home} holds no samples; make the set again")
        self.names = [name_of(shard["name"]) for shard in index["shards"]]
        self.stored_shape, self.stored_dtype = tuple(index["shape"]), str(index["dtype"])
        self.packed = index["layout"] == "packed"
        self.label_counts: dict[int, int] = {}
        for shard in index["shards"]:
            for label, n in shard["labels"].items():
                self.label_counts[int(label)] = self.label_counts.get(int(label), 0) + n
        self.spec = self._spec()

    @classmethod
    def open(cls, source: Sources, store: Store | None = None) -> Shards:
        """A folder, a brace pattern, a list or one tar, on disk or behind URLs.

        DataError where a local shard is missing or not what was indexed, or where a store cannot be reached.
        """
        catalogue = Catalogue(store or Store())
        named = expand(source, catalogue)
        paths = [one for one in named if isinstance(one, Path)]
        if len(paths) == len(named):
            return cls(*find_or_build(paths))
        return cls(*find_or_fetch(named, catalogue), catalogue.store)

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
            shard["name"] = name_of(shard["name"])
            del shard["table"], shard["first"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def describe(self) -> str:
        """`1,500 images 1x8x8, 10 classes, 0 unlabelled`."""
        spec, rate = self.spec, f" at {self.spec.rate:g} Hz" if self.spec.rate else ""
        return (
            f"{self.size:,} {spec.kind}s {'x'.join(map(str, spec.shape))}{rate}, {spec.classes} classes, "
            f"{self.label_counts.get(-1, 0):,} unlabelled"
        )

    def path(self, shard: int) -> Path:
        """Where a shard lies, or will lie once it is fetched."""
        entry = self.index["shards"][shard]
        if not is_remote(entry["name"]):
            return self.home / entry["name"]
        assert self.store is not None
        return self.store.path(entry["name"], entry["bytes"], entry.get("crc32"))

    def open_shard(self, shard: int) -> BinaryIO:
        """The shard's file, fetched if it is remote and not here."""
        entry = self.index["shards"][shard]
        if not is_remote(entry["name"]):
            return self.path(shard).open("rb")
        assert self.store is not None
        return self.store.open(entry["name"], entry["bytes"], entry.get("crc32"))

    def fetch(self, shard: int, stop: threading.Event) -> None:
        """Have a shard here, marked as used last."""
        entry = self.index["shards"][shard]
        if is_remote(entry["name"]):
            assert self.store is not None
            self.store.fetch(entry["name"], entry["bytes"], entry.get("crc32"), stop)

    def keep(self, wanted: Sequence[int]) -> list[int]:
        """The first of these shards that the cache can hold together; it lets go of all others before them.

        wanted: in the order of need. Those that are here are marked as used, the first one last: else the first
        download would take the place of one that is wanted too.
        """
        assert self.store is not None
        entries = [self.index["shards"][shard] for shard in wanted]
        sizes = np.cumsum([entry["bytes"] if is_remote(entry["name"]) else 0 for entry in entries])
        count = int(np.searchsorted(sizes, self.store.cache.limit, side="right"))
        for entry in reversed(entries[:count]):
            self.store.touch(entry["name"], entry["bytes"], entry.get("crc32"))
        return list(wanted[:count])

    def check_cache(self, at_once: int) -> None:
        """ConfigError unless the cache can hold so many remote shards, whichever they are."""
        if self.store is None:
            return
        sizes = sorted(shard["bytes"] for shard in self.index["shards"] if is_remote(shard["name"]))
        need = sum(sizes[-at_once:])
        if need > self.store.cache.limit:
            raise ConfigError(
                f"data.cache_bytes={self.store.cache.limit} cannot hold the {min(at_once, len(sizes))} remote "
                f"shards that all lanes need for this window and the next: set it to {need} or lower "
                "data.shuffle_window"
            )

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
        """int32, of all shards of the index: mapped, since a thousand million of them are 4 GB in each process."""
        path = self.home / LABELS
        try:
            labels = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); delete {self.home / INDEX} to index again") from error
        if labels.dtype != np.int32 or len(labels) < (self._first + self.counts).max():
            raise DataError(f"{path} does not fit its index; delete {self.home / INDEX} to index again")
        return labels

    def labels(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """int64 [n] labels; -1: unlabelled, -2: could not be read."""
        return self._labels[self._first[shards] + rows].astype(np.int64)

    def all_labels(self) -> np.ndarray:
        """int64 [size], by id."""
        shards = np.repeat(np.arange(len(self.counts)), self.counts)
        return self.labels(shards, np.arange(self.size) - self.starts[shards])
