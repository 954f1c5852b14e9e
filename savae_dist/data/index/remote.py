"""The index of shards behind URLs: fetched where the packer's lies beside them, else built by reading them once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from savae_dist.config.braces import expand_braces
from savae_dist.config.urls import is_remote, shown
from savae_dist.data.formats.npy import table_claims
from savae_dist.data.index.attributes import ATTRIBUTES, row_dtype
from savae_dist.data.index.choice import Choice
from savae_dist.data.index.scan import BLOCK, FORM, SAMPLE, Layout
from savae_dist.data.index.schema import MAX_SIZE, check_index
from savae_dist.data.index.tables import (
    INDEX,
    index_shard,
    read_index,
    tell_left_out,
    write_index,
    write_labels,
)
from savae_dist.data.remote.prefetch import THREADS, Ahead
from savae_dist.data.remote.retry import Refused, WrongContent
from savae_dist.data.remote.store import Store, name_of
from savae_dist.errors import DataError
from savae_dist.files import write_bytes, write_json
from savae_dist.locks import PathLock
from savae_dist.untrusted import Misfit, parse

A = TypeVar("A")
B = TypeVar("B")
HEADER = 4096  # bytes within which the header of a table ends
AT_ONCE = 16  # tables and sizes: they are small, so the way there and back is what takes time
PLAIN_NAME = re.compile(r"[^/\\\0]*[^/\\\0.][^/\\\0]*")


class Catalogue:
    """The indices that lie in remote folders, each fetched once; and the choice of members by which others are made."""

    def __init__(self, store: Store, choice: Choice | None = None) -> None:
        self.store, self.choice = store, choice or Choice()
        self._known: dict[str, dict[str, Any]] = {}

    def expand(self, url: str) -> list[str]:
        """A remote folder made by the packer, a tar or a brace pattern of these to the URLs of its shards."""
        return [shard for one in expand_braces(url) for shard in self._expand_one(one)]

    def _expand_one(self, url: str) -> list[str]:
        if name_of(url).endswith(".tar"):
            return [url]
        folder = url.rstrip("/")
        try:
            return [shard["name"] for shard in self.index(folder)["shards"]]
        except Refused as error:
            raise DataError(
                f"{error}; a URL that is no .tar is a folder made by tools/make_shards.py; "
                "name other shards by a pattern such as s3://bucket/shard-{000000..000099}.tar"
            ) from error

    def index(self, folder: str) -> dict[str, Any]:
        """The packer's index of a folder, its shards named by their URLs; Refused where there is none."""
        if folder not in self._known:
            url = f"{folder}/{INDEX}"
            try:
                index = parse(self.store.read(url, MAX_SIZE))
            except Misfit as error:
                raise DataError(f"{shown(url)} is no index of shards: {error}; pack the set again") from error
            check_index(index, shown(url), "pack the set again")
            for shard in index["shards"]:
                if not all(PLAIN_NAME.fullmatch(shard[key]) for key in ("name", "table")):
                    raise DataError(f"{shown(url)}: {shard['name']} names what lies elsewhere; pack the set again")
                shard["name"] = f"{folder}/{shard['name']}"
            self._known[folder] = index
        return self._known[folder]


def find_or_fetch(named: Sequence[Path | str], catalogue: Catalogue) -> tuple[Path, dict[str, Any]]:
    """The local folder of the index that covers these shards, some or all of them remote, and it cut to them.

    The tables of all samples lie there, some 24 bytes for each. Whatever another process of the node has fetched or
    built is found.
    """
    names, store = list(map(str, named)), catalogue.store
    home = store.home("\n".join(names) + catalogue.choice.name)
    if not (home / INDEX).exists():
        index = _packed_index(names, catalogue)
        if index is not None:
            home = store.home(json.dumps(index))
        with PathLock(home / ".index.lock"):
            if not (home / INDEX).exists():
                if index is not None:
                    _fetch_tables(index, home, store)
                else:
                    _build(named, home, catalogue)
    index = read_index(home)
    known = {shard["name"]: shard for shard in index["shards"]}
    return home, {**index, "shards": [known[name] for name in names]}


def _packed_index(names: Sequence[str], catalogue: Catalogue) -> dict[str, Any] | None:
    """The index that lies beside these shards and covers them; None if none does."""
    folders = {name.rpartition("/")[0] for name in names}
    if len(folders) > 1 or not is_remote(names[0]):
        return None
    try:
        index = catalogue.index(folders.pop())
    except Refused:
        return None
    covers = {shard["name"] for shard in index["shards"]} >= set(names)
    return index if covers and catalogue.choice.fits(index) else None


def _fetch_tables(index: dict[str, Any], home: Path, store: Store) -> None:
    """The tables of all shards into `home`, `index.json` last: it is there only when all is."""
    _at_once(partial(_fetch_table, index["layout"], home, store), index["shards"])
    write_labels(home, index["shards"])
    if "attributes" in index:
        _fetch_attributes(index, home, store)
    write_json(home / INDEX, index)


def _fetch_attributes(index: dict[str, Any], home: Path, store: Store) -> None:
    """Those of all samples, in one table; each shard has the digest of its own."""
    url = f"{index['shards'][0]['name'].rpartition('/')[0]}/{ATTRIBUTES}"
    dtype, count = row_dtype(len(index["attributes"]["names"])), sum(shard["count"] for shard in index["shards"])
    content = store.read(url, HEADER + count * dtype.itemsize)
    try:
        rows, start = table_claims(content[:HEADER], dtype)
    except ValueError as error:
        raise DataError(f"{shown(url)} does not fit its {INDEX} ({error}); upload it again") from error
    for shard in index["shards"]:
        own = content[start + shard["first"] * dtype.itemsize :][: shard["count"] * dtype.itemsize]
        if rows != count or hashlib.sha256(own).hexdigest() != shard.get("attributes"):
            raise DataError(f"{shown(url)} does not fit its {INDEX}; upload it again")
    write_bytes(home / ATTRIBUTES, content)


def _fetch_table(layout: str, home: Path, store: Store, shard: dict[str, Any]) -> None:
    folder, kinds = shard["name"].rpartition("/")[0], [("idx", SAMPLE)]
    if layout == "packed" and shard["count"]:
        kinds.append(("blocks", BLOCK))
    files = [f"{shard['table']}.{what}.npy" for what, _ in kinds]
    for _ in range(WrongContent.TRIES):
        # A block holds one sample at least, so that neither table has more rows than samples.
        contents = [store.read(f"{folder}/{file}", HEADER + shard["count"] * BLOCK.itemsize) for file in files]
        if _verified(contents, [dtype for _, dtype in kinds], shard):
            break
    else:
        raise DataError(f"{shown(folder)}/{files[0]} does not fit its {INDEX}; upload it again, or pack the set again")
    for file, content in zip(files, contents, strict=True):
        write_bytes(home / file, content)
    if "forms" in shard:
        file = f"{shard['table']}.forms.npy"
        content = store.read(f"{folder}/{file}", HEADER + shard["count"] * FORM.itemsize)
        write_bytes(home / file, content)  # checked when it is opened, against the sha256 in the index


def _verified(contents: Sequence[bytes], dtypes: Sequence[np.dtype], shard: dict[str, Any]) -> bool:
    """Whether these are the tables of the shard, which its index knows by their sha256, and point into it."""
    digest = hashlib.sha256()
    for content, expected in zip(contents, dtypes, strict=True):
        try:
            rows, start = table_claims(content[:HEADER], expected)
        except ValueError:
            return False
        if len(content) - start != expected.itemsize * rows or (expected == SAMPLE and rows != shard["count"]):
            return False
        table = np.frombuffer(content, expected, offset=start)
        room = np.int64(shard["bytes"]) - table["size"].astype(np.int64)
        if (table["offset"].astype(np.int64) < 0).any() or (table["offset"].astype(np.int64) > room).any():
            return False
        digest.update(table.tobytes())
    return digest.hexdigest() == shard["sha256"]


def _build(named: Sequence[Path | str], home: Path, catalogue: Catalogue) -> None:
    """Scan all shards, the remote ones on their way through the cache."""
    store = catalogue.store
    sizes = _at_once(lambda one: store.size(one) if isinstance(one, str) else 0, named)

    def fetch(number: int, stop: threading.Event) -> None:
        url = named[number]
        if isinstance(url, str):
            store.fetch(url, sizes[number], None, stop)

    common, scanned = Layout(choice=catalogue.choice), []
    with Ahead(fetch) as ahead:
        for number, one in enumerate(named):
            fit = int(np.searchsorted(np.cumsum(sizes[number:][: 1 + THREADS]), store.cache.limit, side="right"))
            for near in reversed(range(number, number + fit)):
                store.touch(str(named[near]), sizes[near], None)
            ahead.want(range(number + 1, number + fit))
            if isinstance(one, str):
                scanned.append(_scan(one, sizes[number], home, common, store))
            else:
                scanned.append(index_shard(one, home, common))
    write_index(home, scanned, (), 0.0, catalogue.choice)
    tell_left_out(home)


def _at_once(work: Callable[[A], B], jobs: Sequence[A]) -> list[B]:
    """work(job) for all of them, in threads; the first error ends it, and does not wait for what is still asked."""
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        return list(pool.map(work, jobs))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _scan(url: str, size: int, home: Path, common: Layout, store: Store) -> dict[str, Any]:
    with store.open(url, size, None) as file:
        # Under this name the open file can be read even when the cache has let go of it.
        link = home / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name_of(url)}"
        link.unlink(missing_ok=True)
        os.symlink(f"/proc/self/fd/{file.fileno()}", link)
        try:
            result = index_shard(link, home, common)
        except DataError as error:
            raise DataError(str(error).replace(str(link), shown(url))) from error
        finally:
            link.unlink()
    result["shard"]["name"] = url
    store.verified(url, result["shard"]["bytes"], result["shard"]["crc32"])
    return result
