"""An indexed set of shards: what the index says of each sample, and the shards' files."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from savae_dist.config.urls import is_remote
from savae_dist.data.formats.column import Column
from savae_dist.data.index.choice import Choice
from savae_dist.data.index.labels import UNLABELLED
from savae_dist.data.index.open import Source, check_shards, find_all
from savae_dist.data.index.remote import Catalogue
from savae_dist.data.index.scan import BLOCK, SAMPLE
from savae_dist.data.index.schema import NOT_OF_SAMPLES, check_blocks, check_samples
from savae_dist.data.index.tables import INDEX, LABELS, checked_column, checked_table
from savae_dist.data.remote.store import Store, name_of
from savae_dist.errors import ConfigError, DataError, printable
from savae_dist.origin import origin_of
from savae_dist.preprocess import DataSpec, Normalise

# More classes than the first, and than the second for each that occurs: a wrong label, or ids in place of classes.
MANY_CLASSES, FEW = 1000, 10

Stored = tuple[np.ndarray, np.ndarray]
ELSEWHERE = -3  # in place of a label: the sample belongs to the other part


class Part(NamedTuple):
    """A part of the samples of a set, such as those that are held out.

    table: label -> int64 [shards], its samples in each. holds: shard -> bool [count], which of its samples belong to
    the part. recordings: how many recordings, or groups, those come from, 0 where none are named; unit: which of them.
    """

    table: dict[int, np.ndarray]
    holds: Callable[[int], np.ndarray]
    recordings: int
    unit: str = "recordings"


class Shards:
    """An indexed set of shards: what it holds and where; nothing of the tars is read or kept open.

    counts: int64 [shards], samples in each. starts: int64 [shards], the id of the first of each.
    parts: int64 [shards], the number of the set that each belongs to, where several are opened together.
    store: through which remote shards are read; needed only where there are any.
    part: the samples that count, None for all; `size`, `label_counts` and `label_table` are then of these, while
    `counts`, `starts` and the rows of a shard stay those of the files.
    spec: what the samples are. digest: sha256 of the content of the index, wherever the shards lie.
    """

    def __init__(self, home: Path, index: dict[str, Any], store: Store | None = None) -> None:
        check_shards(home, index["shards"])
        self.home, self.index, self.store = home, index, store
        self.part: Part | None = None
        self.remote = any(is_remote(shard["name"]) for shard in index["shards"])
        self.counts = np.array([shard["count"] for shard in index["shards"]], np.int64)
        self.starts = np.cumsum(self.counts) - self.counts
        self.parts = np.array([shard.get("part", 0) for shard in index["shards"]], np.int64)
        self._first = np.array([shard["first"] for shard in index["shards"]], np.int64)
        folders = [shard.get("folder", "") for shard in index["shards"]]
        self._folders, self._folder_of = np.unique(folders, return_inverse=True)
        self.size = int(self.counts.sum())
        if not self.size:
            raise DataError(f"{home} holds no samples; make the set again")
        self.names = [printable(name_of(shard["name"])) for shard in index["shards"]]
        self.stored_shape, self.stored_dtype = tuple(index["shape"]), str(index["dtype"])
        self.packed = index["layout"] == "packed"
        # Opened at once: they show whether there are as many samples as the index counts.
        self._labels = self.open_columns(LABELS, np.dtype(np.int32))
        self.label_counts = {label: int(counts.sum()) for label, counts in self.label_table().items()}
        self.spec = self._spec()

    @classmethod
    def open(
        cls, source: Source | Sequence[Source], store: Store | None = None, choice: Choice | None = None
    ) -> Shards:
        """A folder, a brace pattern or one tar, on disk or behind a URL, or a list of these that are joined.

        choice: of the members of tars that are indexed on first use, None: the usual ones. DataError where a local
        shard is missing, a store cannot be reached, or the sets of a list do not fit together.
        """
        catalogue = Catalogue(store or Store(), choice or Choice())
        return cls(*find_all(source, catalogue), catalogue.store)

    def _spec(self) -> DataSpec:
        index, shape = self.index, self.stored_shape
        kind = index["kind"]
        if len(shape) == {"image": 2, "signal": 1}[kind]:
            shape = (1, *shape)
        elif kind == "image":
            shape = (shape[2], *shape[:2])
        return DataSpec(
            *(kind, shape, index["classes"], "unit" if kind == "image" else "window"),
            rate=index["rate"],
            class_names=index["class_names"],
            attributes=index.get("attributes", {}).get("names", ()),
            origin=origin_of(kind, index.get("origin")),
        )

    def with_spec(self, spec: DataSpec) -> Shards:
        """The same shards seen as `spec`, such as validation data as the training data; labels beyond it are none."""
        unlike = spec.pictures is None and spec.shape != self.spec.shape  # else pictures of any form become this one
        if unlike or spec.kind != self.spec.kind:
            raise DataError(
                f"{self.home} holds {self.spec.kind} samples of shape {self.spec.shape}, "
                f"not {spec.kind} {spec.shape}; name data of the same kind and shape"
            )
        if renamed := self.spec.renamed(spec):
            number, ours, theirs = renamed
            raise DataError(
                f"{self.home} calls class {number} {ours!r}, and what it is to fit calls it {theirs!r}: pack it again "
                f"with --class-names {','.join(dict.fromkeys((*spec.class_names, *self.spec.class_names)))}"
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

    def restricted(self, part: Part) -> Shards:
        """The same shards, of whose samples only this part counts."""
        other = copy.copy(self)
        other.part = part
        other.label_counts = {label: int(counts.sum()) for label, counts in part.table.items() if counts.any()}
        other.size = sum(other.label_counts.values())
        return other

    def members(self) -> np.ndarray:
        """int64 [shards], the samples in each that count."""
        return self.counts if self.part is None else sum(self.part.table.values(), np.zeros_like(self.counts))

    @cached_property
    def digest(self) -> str:
        content = copy.deepcopy(self.index)
        content = {key: value for key, value in content.items() if key not in ("told", "forms")}
        for shard in content["shards"]:
            shard["name"] = name_of(shard["name"])
            for local in NOT_OF_SAMPLES:
                shard.pop(local, None)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def describe(self) -> str:
        """`1,500 images 1x8x8, 10 classes, 0 unlabelled`."""
        spec, rate = self.spec, f" at {self.spec.rate:g} Hz" if self.spec.rate else ""
        return (
            f"{self.size:,} {spec.kind}s {'x'.join(map(str, spec.shape))}{rate}, {spec.classes} classes, "
            f"{self.label_counts.get(-1, 0):,} unlabelled"
        )

    def path(self, shard: int) -> Path:
        """The local path of a shard, before or after it is fetched."""
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
        need, remote = self.cache_need(at_once), sum(is_remote(shard["name"]) for shard in self.index["shards"])
        if self.store is not None and need > self.store.cache.limit:
            raise ConfigError(
                f"data.cache_bytes={self.store.cache.limit} cannot hold the {min(at_once, remote)} remote "
                f"shards that all lanes need for this window and the next: set it to {need} or lower "
                "data.shuffle_window"
            )

    def cache_need(self, at_once: int) -> int:
        """Bytes of so many remote shards, the largest."""
        sizes = sorted(shard["bytes"] for shard in self.index["shards"] if is_remote(shard["name"]))
        return int(sum(sizes[-at_once:]))

    def samples(self, shard: int) -> np.ndarray:
        """The table of a shard's samples (`scan.SAMPLE`); DataError unless it is the one that its index was made with.

        Who indexes the shards again while they are read replaces it.
        """
        table = self._table(shard, "idx", SAMPLE, check_samples)
        blocks = self.blocks(shard).tobytes() if self.packed and len(table) else b""
        entry = self.index["shards"][shard]
        if hashlib.sha256(table.tobytes() + blocks).hexdigest() != entry["sha256"]:
            raise DataError(
                f"{self.home / entry['table']}.idx.npy is not what its index was made with; where the shards were "
                f"indexed again, start again, else delete {self.home / INDEX}"
            )
        return table

    def blocks(self, shard: int) -> np.ndarray:
        """The table of a packed shard's blocks (`scan.BLOCK`)."""
        row = math.prod(self.stored_shape) * np.dtype(self.stored_dtype).itemsize
        return self._table(shard, "blocks", BLOCK, lambda table, entry: check_blocks(table, entry, row))

    def _table(
        self, shard: int, what: str, dtype: np.dtype, rule: Callable[[np.ndarray, dict[str, Any]], None]
    ) -> np.ndarray:
        entry = self.index["shards"][shard]
        path = self.home / f"{entry['table']}.{what}.npy"
        return checked_table(path, dtype, self.home / INDEX, lambda table: rule(table, entry))

    def label_table(self) -> dict[int, np.ndarray]:
        """Label -> int64 [shards], its samples in each."""
        if self.part is not None:
            return self.part.table
        table: dict[int, np.ndarray] = {}
        for number, shard in enumerate(self.index["shards"]):
            for label, n in shard["labels"].items():
                table.setdefault(int(label), np.zeros(len(self.counts), np.int64))[number] = n
        return table

    def open_columns(self, name: str, dtype: np.dtype) -> list[Column]:
        """The file of this name beside each index, a row for each of its samples."""
        ends = self._first + self.counts
        lasts = [int(ends[self._folder_of == number].max()) for number in range(len(self._folders))]
        homes = [self.home / folder for folder in self._folders]
        return [checked_column(home / name, home / INDEX, last, dtype) for home, last in zip(homes, lasts)]

    def stored_rows(self, columns: Sequence[Column], shards: np.ndarray, rows: np.ndarray) -> Iterator[Stored]:
        """(which of the samples, bool [n]; their stored rows) for each of the columns; shards, rows: int64 [n]."""
        places = self._first[shards] + rows
        for number, column in enumerate(columns):
            here = self._folder_of[shards] == number
            yield here, column.rows(places[here])

    def labels(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """int64 [n] labels; -1: unlabelled, or of a class that `spec` does not have; -2: could not be read."""
        labels = np.empty(len(shards), np.int64)
        for here, stored in self.stored_rows(self._labels, shards, rows):
            labels[here] = stored
        return np.where(labels < self.spec.classes, labels, UNLABELLED)

    def check_classes(self) -> None:
        """DataError where most labels up to the highest have no sample: each would cost the networks a class."""
        known = sum(label >= 0 for label in self.label_counts)
        if not self.spec.class_names and self.spec.classes > MANY_CLASSES and self.spec.classes > FEW * known:
            raise DataError(
                f"{self.home}: labels go up to {self.spec.classes - 1:,}, and only {known:,} of them have samples: "
                "correct the labels, number the classes from 0, or pack the set with --class-names"
            )

    def labels_of(self, shard: int) -> np.ndarray:
        """int64 [count], the labels of all rows of a shard; `ELSEWHERE` for samples of another part."""
        labels = self.labels(np.full(self.counts[shard], shard), np.arange(self.counts[shard]))
        return labels if self.part is None else np.where(self.part.holds(shard), labels, ELSEWHERE)

    @property
    def foreign(self) -> int:
        """Samples of classes that `spec` does not have: in a validation set, of those that were not trained on."""
        return sum(count for label, count in self.label_counts.items() if label >= self.spec.classes)

    def all_labels(self) -> np.ndarray:
        """int64, by id."""
        shards = np.repeat(np.arange(len(self.counts)), self.counts)
        return self.labels(shards, np.arange(len(shards)) - self.starts[shards])
