"""An indexed set of shards: which tars a source names, the index that covers them, and what it says of each sample."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from savae_dist.data.index import INDEX, LABELS, build_index, cache_folder, read_index, tell_left_out
from savae_dist.data.scan import BLOCK, SAMPLE, Moments
from savae_dist.data.tally import shown
from savae_dist.errors import ConfigError, DataError
from savae_dist.preprocess import DataSpec, Normalise


def expand(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], anew: bool = False) -> list[Path]:
    """A folder, one tar, a brace pattern or a list of these to the paths of its shards, in order.

    anew: the index of a folder is not asked which shards it covers.
    """
    if isinstance(source, str) and re.match(r"\s*(pipe:|\|)|.*\|\s*$", source, re.IGNORECASE | re.DOTALL):
        raise ConfigError(f"{shown(source)!r} names a command, which is never run; name a folder, files or a URL")
    if not isinstance(source, (str, os.PathLike)):
        paths = [path for one in source for path in expand(one, anew)]
    elif Path(source).expanduser().is_dir():
        folder = Path(source).expanduser()
        paths = sorted(folder.glob("*.tar"))
        if not anew and (folder / INDEX).exists():
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
    """DataError where one is missing; a line where some have changed: the reader finds and counts what is damaged."""
    changed = []
    for shard in shards:
        path = home / shard["name"]
        if not path.is_file():
            raise DataError(f"shard {path} is missing; bring it back, or make the set again")
        if path.stat().st_size != shard["bytes"]:
            changed.append(f"{path} has {path.stat().st_size:,} bytes, its index says {shard['bytes']:,}")
    if changed:
        print(
            f"savae_dist: {changed[0]}{f', and {len(changed) - 1} more like it' * (len(changed) > 1)}: what is damaged "
            f"counts as bad; copy it again, or delete {home / INDEX} if it was changed on purpose",
            file=sys.stderr,
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
                tell_left_out(home)
    index = read_index(home)
    known = {home / shard["name"]: shard for shard in index["shards"]}
    return home, {**index, "shards": [known[path] for path in paths]}


def find(source: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """The folder of the index of a set, and that index; a folder's index may name shards that lie elsewhere."""
    home = Path(source).expanduser().absolute()
    return (home, read_index(home)) if (home / INDEX).exists() else find_or_build(expand(source))


class Shards:
    """An indexed set of shards: what it holds and where; nothing of the tars is read or kept open.

    counts: int64 [shards], samples in each. starts: int64 [shards], the id of the first of each.
    parts: int64 [shards], the number of the set that each belongs to, where several are opened together.
    spec: what the samples are. digest: sha256 of the content of the index, wherever the shards lie.
    """

    def __init__(self, home: Path, index: dict[str, Any]) -> None:
        check_shards(home, index["shards"])
        self.home, self.index = home, index
        self.counts = np.array([shard["count"] for shard in index["shards"]], np.int64)
        self.starts = np.cumsum(self.counts) - self.counts
        self.parts = np.array([shard.get("part", 0) for shard in index["shards"]], np.int64)
        self._first = np.array([shard["first"] for shard in index["shards"]], np.int64)
        folders = [shard.get("folder", "") for shard in index["shards"]]
        self._folders, self._folder_of = np.unique(folders, return_inverse=True)
        self.size = int(self.counts.sum())
        if not self.size:
            raise DataError(f"{home} holds no samples; make the set again")
        self.names = [Path(shard["name"]).name for shard in index["shards"]]
        self.stored_shape, self.stored_dtype = tuple(index["shape"]), str(index["dtype"])
        self.packed = index["layout"] == "packed"
        self.label_counts = {label: int(counts.sum()) for label, counts in self.label_table().items()}
        self.spec = self._spec()

    @classmethod
    def open(cls, source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Shards:
        """A folder, a brace pattern, one tar, or a list of these that are joined.

        DataError where a shard is missing or not what was indexed, or where the sets of a list do not fit together.
        """
        if isinstance(source, (str, os.PathLike)):
            return cls(*find(source))
        if not source:
            raise ConfigError("the list of shards is empty; name a folder made by tools/make_shards.py")
        tars = [path for one in source for path in expand(one)]
        if tars == [Path(one).expanduser().absolute() for one in source]:  # a list of tars needs one index, not many
            home, index = find_or_build(tars)
            return cls(home, {**index, "shards": [{**one, "part": k} for k, one in enumerate(index["shards"])]})
        sets = [cls(*find(one)) for one in source]
        return cls(sets[0].home, join(sets))

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
            for local in ("table", "first", "folder", "part", "dropped", "bad", "whole"):  # not of the samples
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

    def label_table(self) -> dict[int, np.ndarray]:
        """Label -> int64 [shards], its samples in each."""
        table: dict[int, np.ndarray] = {}
        for number, shard in enumerate(self.index["shards"]):
            for label, n in shard["labels"].items():
                table.setdefault(int(label), np.zeros(len(self.counts), np.int64))[number] = n
        return table

    @cached_property
    def _labels(self) -> list[np.ndarray]:
        """int32, one table per index: mapped, since a thousand million of them are 4 GB in each process."""
        tables = []
        for number, folder in enumerate(self._folders):
            path = self.home / folder / LABELS
            try:
                labels = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise DataError(f"{path} cannot be read ({error}); delete {INDEX} beside it to index again") from error
            if labels.dtype != np.int32 or len(labels) < (self._first + self.counts)[self._folder_of == number].max():
                raise DataError(f"{path} does not fit its index; delete {INDEX} beside it to index again")
            tables.append(labels)
        return tables

    def labels(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """int64 [n] labels; -1: unlabelled, -2: could not be read."""
        places = self._first[shards] + rows
        if len(self._labels) == 1:
            return self._labels[0][places].astype(np.int64)
        labels = np.empty(len(places), np.int64)
        for number, table in enumerate(self._labels):
            here = self._folder_of[shards] == number
            labels[here] = table[places[here]]
        return labels

    def all_labels(self) -> np.ndarray:
        """int64 [size], by id."""
        shards = np.repeat(np.arange(len(self.counts)), self.counts)
        return self.labels(shards, np.arange(self.size) - self.starts[shards])


def join(sets: Sequence[Shards]) -> dict[str, Any]:
    """One index of several sets, whose shards lie where they are; DataError where they do not fit together."""
    first, *others = (one.index for one in sets)
    for one, index in zip(sets[1:], others, strict=True):
        for key in ("kind", "layout", "dtype", "shape", "rate"):
            if index[key] != first[key]:
                raise DataError(
                    f"{sets[0].home} and {one.home} do not fit together: {key} {first[key]} and {index[key]}; "
                    "pack them alike"
                )
        if index["class_names"] and first["class_names"] and index["class_names"] != first["class_names"]:
            raise DataError(f"{sets[0].home} and {one.home} name their classes differently; pack them with the same")
    shards = [
        {
            **shard,
            "part": part,
            "folder": str(one.home),
            "name": str(one.path(number)),
            "table": str(one.home / shard["table"]),
        }
        for part, one in enumerate(sets)
        for number, shard in enumerate(one.index["shards"])
    ]
    names: list[str] = next((one.index["class_names"] for one in sets if one.index["class_names"]), [])
    classes = max(one.index["classes"] for one in sets)
    return {**first, "shards": shards, "classes": classes, "class_names": names, "statistics": _pooled(sets)}


def _pooled(sets: Sequence[Shards]) -> dict[str, list[float]] | None:
    """Mean and deviation of all sets together, by Chan's rule."""
    if sets[0].index["statistics"] is None:
        return None
    moments = Moments(len(sets[0].index["statistics"]["mean"]))
    for one in sets:
        mean, std = (np.array(one.index["statistics"][key]) for key in ("mean", "std"))
        moments.merge(one.size, mean, one.size * std**2)
    return {"mean": moments.mean.tolist(), "std": moments.std().tolist()}
