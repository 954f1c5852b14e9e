"""Which samples of a set belong together: they overlap or resemble each other, so no split may part them.

`recording` in the KEY.json of a sample, or for each row of a packed block, names the recording that it comes from, and
`group` what it belongs to, such as a machine, as the packer writes them. The index does not hold them, so the tars are
walked for both once, and what is found is kept in the cache: a hash for each sample, and the names of the hashes.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from savae_dist.data.formats.column import Column
from savae_dist.data.formats.tar import Tar, unreadable_shard, walk
from savae_dist.data.index.groups import NAME
from savae_dist.data.index.shards import Shards
from savae_dist.data.remote.cache import cache_folder, make_folder
from savae_dist.errors import ConfigError, DataError
from savae_dist.files import write_bytes, write_json
from savae_dist.locks import PathLock
from savae_dist.untrusted import check, read_object, record, table, text

NONE, DAMAGED = 0, 1  # in place of a hash
MAX_JSON = 1 << 26  # bytes: more is damaged
MAX_TOLD, MAX_NAME = 10_000, 200  # names of each kind that are kept for messages, and the length of one
RECORDING, GROUP = "recording", "group"
By = Literal["auto", "group", "recording"]
Told = dict[str, dict[str, str]]  # kind of name -> hash in decimal, since JSON has no other keys -> name
ENDS = {RECORDING: "", GROUP: "-group"}  # how the names of their files end
NAMES = "-names.json"


@dataclass(frozen=True)
class Names:
    """What each sample belongs to. columns: by kind of name, the one that counts before the others.

    unit: what the first of them names, `groups` or `recordings`.
    """

    shards: Shards
    columns: dict[str, Column]

    @property
    def unit(self) -> str:
        return f"{next(iter(self.columns), RECORDING)}s"

    def of(self, shard: int) -> np.ndarray:
        """uint64 [count], of a shard's samples: `NONE` where they belong to nothing."""
        start, count = int(self.shards.starts[shard]), int(self.shards.counts[shard])
        names = np.full(count, NONE, np.uint64)
        for column in self.columns.values():
            names = np.where(names == NONE, column.rows(start + np.arange(count)), names)
        return names


def names_of(shards: Shards, by: By) -> Names:
    """By groups where the shards name some, else by recordings (`auto`), or by one of them alone.

    ConfigError where that one is asked for and no sample has a name of its kind.
    """
    keys = (GROUP, RECORDING) if by == "auto" else (by,)
    found = {key: column for key in keys if len(column := recordings(shards, key))}
    if by != "auto" and not found:
        how = "--group-by" if by == GROUP else "make_shards recordings"
        raise ConfigError(f"data.hold_out_by={by}: the shards name no {by}s; leave it out, or pack them with {how}")
    return Names(shards, found)


def recordings(shards: Shards, key: str = RECORDING) -> Column:
    """uint64, by id: a hash of the name of the recording or group that each sample comes from, `NONE` where of none.

    Empty if no sample has one. Equal names are one recording, in whichever shard or set they stand. The first call on a
    machine reads all shards. DataError where only a part of the names can be read.
    """
    folder, name = _found(shards)
    path = folder / f"{name}{ENDS[key]}.npy"
    try:
        column = Column(path, np.dtype(np.uint64))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it to read the shards again") from error
    if len(column) not in (0, int(shards.counts.sum())):
        raise DataError(f"{path} does not fit its shards; delete it to read them again")
    return column


def told_names(shards: Shards, key: str = RECORDING) -> dict[int, str]:
    """The names behind the hashes of `recordings`, at most `MAX_TOLD`: for messages and tables."""
    folder, name = _found(shards)
    path = folder / f"{name}{NAMES}"
    again = "delete it to read the shards again"
    values = read_object(path, DataError, again)
    each = table(text(MAX_NAME))
    check(values, record({RECORDING: each, GROUP: each}), path, DataError, again)
    return {int(one): known for one, known in values[key].items() if one.isdecimal()}


def _found(shards: Shards) -> tuple[Path, str]:
    """The folder of the cache that holds the tables of these shards, and how their names begin."""
    content = [
        [shard["count"], shard["bytes"], shard.get("crc32"), shard["sha256"]] for shard in shards.index["shards"]
    ]
    folder = make_folder((shards.store.folder if shards.store is not None else cache_folder()) / "recordings")
    name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    files = [folder / f"{name}{end}" for end in (*(f"{end}.npy" for end in ENDS.values()), NAMES)]
    try:
        if not all(file.exists() for file in files):
            with PathLock(folder / ".lock"):  # one process reads the shards; the others wait and then find the result
                if not all(file.exists() for file in files):
                    print(f"savae_dist: {shards.home}: looking once for recordings and groups", file=sys.stderr)
                    tables, told = _read(shards)
                    for one, table in tables.items():
                        stream = io.BytesIO()
                        np.save(stream, table)
                        write_bytes(folder / f"{name}{ENDS[one]}.npy", stream.getvalue())
                    write_json(folder / f"{name}{NAMES}", told)
    except OSError as error:
        raise ConfigError(f"data.cache_dir: {folder} cannot be written ({error}); name another folder") from error
    return folder, name


def _read(shards: Shards) -> tuple[dict[str, np.ndarray], Told]:
    told: Told = {key: {} for key in ENDS}
    tables = [_of_shard(shards, shard, told) for shard in range(len(shards.counts))]
    return {key: _whole(shards, np.concatenate([table[key] for table in tables]), key) for key in ENDS}, told


def _whole(shards: Shards, table: np.ndarray, key: str) -> np.ndarray:
    """The same, or nothing where no sample has a name of this kind."""
    if not (table > DAMAGED).any():
        return np.empty(0, np.uint64)
    damaged = np.flatnonzero(table == DAMAGED)
    if len(damaged):
        shard = int(np.searchsorted(shards.starts, damaged[0], side="right")) - 1
        raise DataError(
            f"{shards.path(shard)}: of {len(damaged):,} samples the json that names their {key} is damaged, so "
            f"data.hold_out cannot keep {key}s together; pack the set again, or name data.validation"
        )
    return table


def _of_shard(shards: Shards, shard: int, told: Told) -> dict[str, np.ndarray]:
    """The hashes of one shard's samples, whose names go into `told`: each json goes with what the index knows under
    the same key.
    """
    found = {key: np.full(int(shards.counts[shard]), NONE, np.uint64) for key in ENDS}
    if not shards.counts[shard]:
        return found
    table = shards.blocks(shard) if shards.packed else shards.samples(shard)
    firsts = table["first"].astype(np.int64) if shards.packed else np.arange(len(table))
    counts = np.diff(firsts, append=int(shards.counts[shard]))
    in_file = np.argsort(table["offset"], kind="stable")
    offsets = table["offset"][in_file].astype(np.int64)
    path = shards.path(shard)
    try:
        tar = Tar(shards.open_shard(shard), path)
    except OSError as error:
        raise unreadable_shard(path, error) from error
    with tar:
        for row, content in _texts(tar, offsets, in_file):
            here = slice(int(firsts[row]), int(firsts[row] + counts[row]))
            for key, hashes in _hashes(content, int(counts[row]), shards.packed, told).items():
                found[key][here] = hashes
    return found


def _texts(tar: Tar, offsets: np.ndarray, in_file: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """Row of the shard's table and the json that belongs to it, empty where that is damaged.

    offsets: int64, where the values of the rows begin, ascending. in_file: which row each of these is.
    """
    rows: dict[str, int] = {}  # key -> row
    texts: dict[str, tuple[int, int]] = {}
    for entry in walk(tar):
        name = NAME.fullmatch(entry.name)
        if name is None:
            continue
        if name[2].lower() == "json":
            texts.setdefault(name[1], (entry.offset, MAX_JSON + 1 if entry.fault else entry.size))
        else:
            # The index gives where a block's values begin, which is behind their header, so inside the member.
            at = int(np.searchsorted(offsets, entry.offset))
            if at < len(offsets) and offsets[at] < entry.offset + entry.size:
                rows.setdefault(name[1], int(in_file[at]))
    for key in sorted(rows.keys() & texts.keys(), key=lambda key: texts[key]):  # in the order of the file
        start, size = texts[key]
        yield rows[key], tar[start : start + size] if size <= MAX_JSON else b""


def _hashes(content: bytes, count: int, packed: bool, told: Told) -> dict[str, list[int]]:
    """Those of a sample, or of the `count` rows of a block, for each kind of name."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return {key: [DAMAGED] * count for key in ENDS}
    named = {key: values.get(key) if isinstance(values, dict) else None for key in ENDS}
    return {key: _of_key(names, count, packed, told[key]) for key, names in named.items()}


def _of_key(names: Any, count: int, packed: bool, told: dict[str, str]) -> list[int]:
    if names is None:
        return [NONE] * count
    if packed and not (isinstance(names, list) and len(names) == count):
        return [DAMAGED] * count
    hashes = [_hash_of(name) for name in (names if packed else [names])]
    for number, name in dict(zip(hashes, names if packed else [names], strict=True)).items():
        if number > DAMAGED and len(told) < MAX_TOLD:
            told[str(number)] = str(name)[:MAX_NAME]
    return hashes


def _hash_of(name: Any) -> int:
    if name is None:
        return NONE
    return _hash(str(name)) if isinstance(name, str | int) else DAMAGED


@lru_cache(1 << 16)
def _hash(name: str) -> int:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return max(int.from_bytes(digest[:8]), DAMAGED + 1)
