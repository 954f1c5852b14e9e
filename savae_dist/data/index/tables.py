"""The index of a set of shards: one JSON table, and small tables beside it that say where each sample lies."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from savae_dist.data.formats.column import Column
from savae_dist.data.formats.npy import npy_head, open_table
from savae_dist.data.formats.tar import unreadable_shard
from savae_dist.data.index.attributes import save_attributes, write_attributes
from savae_dist.data.index.choice import Choice
from savae_dist.data.index.forms import as_json, common_shape, count_forms
from savae_dist.data.index.labels import MAX_CLASSES
from savae_dist.data.index.losses import check_labelled, nothing_usable, told_of
from savae_dist.data.index.naming import number_names
from savae_dist.data.index.rows import count_labels, digest_of, save_table
from savae_dist.data.index.scan import FORM, SAMPLE, Layout, Moments, scan_shard
from savae_dist.data.index.schema import MAX_SIZE, check_index
from savae_dist.data.processes import run_jobs
from savae_dist.data.remote.cache import FORMAT_VERSION
from savae_dist.errors import DataError, SaveError
from savae_dist.files import DRAFT, draft_of, publish, remove_drafts, write_json
from savae_dist.origin import Origin, origin_entry
from savae_dist.untrusted import Misfit, read_object, reason, version_of

INDEX, LABELS = "index.json", "labels.npy"
AGAIN = "delete it to index the shards again"


def build_index(
    paths: Sequence[Path],
    home: Path,
    class_names: Sequence[str] = (),
    rate: float = 0.0,
    *,
    choice: Choice | None = None,
    decode_all: bool = False,
    processes: int = 1,
) -> None:
    """Scan the shards and write their tables into `home`, `index.json` last: an index is there only when whole.

    Where it cannot be made, one that was there before stays as it is.
    Labels beyond the class names, if there are any, are bad. choice: which members are read, None: the usual ones.
    decode_all: images are decoded too, to find the bad ones.
    """
    common = Layout(classes=len(class_names) or MAX_CLASSES, choice=choice or Choice())
    try:
        home.mkdir(parents=True, exist_ok=True)
        remove_drafts(home)
        with tempfile.TemporaryDirectory(DRAFT, ".index-", home) as folder:
            made, results = Path(folder) / "made", []
            made.mkdir()

            def scan(number: int) -> None:
                scanned = index_shard(paths[number], home, common, decode_all, made)
                (Path(folder) / str(number)).write_text(json.dumps(scanned))

            settled = 0
            while settled < len(paths) and common.shape is None:  # here: the first sample of all decides for all shards
                scan(settled)
                settled += 1
            run_jobs(range(settled, len(paths)), scan, processes, "indexing")
            results = [json.loads((Path(folder) / str(number)).read_text()) for number in range(len(paths))]
            write_index(home, results, class_names, rate, common.choice, made)
            whole = draft_of(home / INDEX)
            for file in sorted(made.iterdir(), key=lambda file: (file.name == INDEX, file.name)):
                publish(file, whole if file.name == INDEX else home / file.name)
        publish(whole, home / INDEX)  # here: once it is there, nothing is left that another start would have to remove
    except OSError as error:
        raise SaveError(f"{home} cannot be written ({error}); free some space or name another folder") from error


def write_index(
    home: Path,
    scanned: Sequence[dict[str, Any]],
    class_names: Sequence[str],
    rate: float,
    choice: Choice | None = None,
    tables: Path | None = None,
    origin: Origin | None = None,
) -> None:
    """`index.json` of shards whose tables are there; `scanned`: what `index_shard` gave for each.

    tables: where these are and where it is written, if not in `home`. origin: how the samples were made of files.
    """
    shards, choice, tables = [one["shard"] for one in scanned], choice or Choice(), tables or home
    common = Layout(next((one["layout"] for one in scanned if one["layout"]), None))
    for one in scanned:
        if common.shape is None and one["shape"] is not None:
            common.settle(np.dtype(one["dtype"]), tuple(one["shape"]))
    if common.shape is None or common.dtype is None:
        raise nothing_usable(home / shards[0]["name"], shards, choice)
    names, told = number_names(home, tables, scanned, class_names, choice.known)
    write_labels(tables, shards)
    forms = count_forms(open_table(tables / f"{one['table']}.forms.npy", FORM) for one in shards if "forms" in one)
    if forms:
        common.shape = common_shape(forms)
    attributes = write_attributes(tables, scanned)
    highest = max((int(label) for shard in shards for label in shard["labels"]), default=-1)
    moments = common.moments and _merged(common.moments, scanned)
    index = {
        "format_version": FORMAT_VERSION,
        "kind": "image" if common.dtype == np.uint8 else "signal",
        "layout": common.layout,
        "dtype": common.dtype.name,
        "shape": list(common.shape),
        "classes": max(len(names), highest + 1, 0),
        "class_names": list(names),
        "rate": rate,
        "statistics": moments and {"mean": moments.mean.tolist(), "std": moments.std().tolist()},
        **{key: value for key, value in choice.chosen.items() if key != "attributes"},
        **({"attributes": {"rule": choice.attributes, "names": attributes}} if choice.attributes else {}),
        **origin_entry(origin),
        "told": [*(line for one in scanned for line in one.get("told", [])), *told],
        "shards": shards,
    }
    if forms:
        index["forms"] = as_json(forms, max(one["top"] for one in scanned))
    check_labelled(home, index)
    write_json(tables / INDEX, index)


def _merged(moments: Moments, scanned: Sequence[dict[str, Any]]) -> Moments:
    """The moments with those of all shards."""
    for one in scanned:
        if one["moments"] is not None:
            n, mean, m2 = one["moments"]
            moments.merge(n, np.array(mean), np.array(m2))
    return moments


def write_labels(home: Path, shards: Sequence[dict[str, Any]]) -> None:
    """The labels of all samples in one table; each shard learns where its own begin."""
    draft = draft_of(home / LABELS)
    try:
        with draft.open("wb") as file:
            file.write(npy_head(np.dtype(np.int32), (sum(shard["count"] for shard in shards),)))
            first = 0
            for shard in shards:
                shard["first"] = first
                first += shard["count"]
                file.write(open_table(home / f"{shard['table']}.idx.npy", SAMPLE)["label"].astype(np.int32).tobytes())
        publish(draft, home / LABELS)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _state(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise unreadable_shard(path, error) from error


def _crc32(path: Path) -> int:
    crc = 0
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                crc = zlib.crc32(piece, crc)
    except OSError as error:
        raise unreadable_shard(path, error) from error
    return crc


def tell_left_out(home: Path) -> None:
    """A line each for what an index that was just built leaves out, doubts or has understood: nobody asked for it."""
    for line in told_of(read_index(home)):
        print(f"savae_dist: indexed {home}: {line}", file=sys.stderr)


def index_shard(
    path: Path, home: Path, common: Layout, decode_all: bool = False, tables: Path | None = None
) -> dict[str, Any]:
    """Scan one shard, write its tables into `tables` or `home` and return what `write_index` needs, as JSON.

    common: what the shards before it settled; the first sample of all decides on dtype and shape. Its moments are
    those of this shard only, and merged later in the order of the shards: the same sums, whoever scanned which.
    """
    if common.shape is not None and common.dtype is not None:
        common.settle(common.dtype, common.shape)
    before = _state(path)
    scan, crc = scan_shard(path, common, decode_all), _crc32(path)
    if version_of(_state(path)) != version_of(before):
        raise DataError(f"shard {path} was written while it was indexed; index it again once it is whole")
    inside = path.parent == home
    folder = hashlib.sha256(os.fsencode(path.parent)).hexdigest()[:8]  # shards of one name may lie in several
    table = path.stem if inside else f"{path.stem}-{folder}"
    tables, moments = tables or home, common.moments
    save_table(tables / f"{table}.idx.npy", scan.samples)
    for what, rows in (("blocks", scan.blocks), ("forms", scan.forms)):
        if len(rows):
            save_table(tables / f"{table}.{what}.npy", rows)
    shard = {
        "name": path.name if inside else str(path),
        "table": table,
        "count": len(scan.samples),
        "bytes": before.st_size,
        "crc32": crc,
        "sha256": digest_of(scan.samples, scan.blocks),
        "labels": count_labels(scan.samples),
        "dropped": scan.dropped,
        "bad": scan.bad,
        "whole": scan.whole,
        "members": scan.members,
        "folders": scan.folders,
    }
    if len(scan.forms):
        shard["forms"] = hashlib.sha256(scan.forms.tobytes()).hexdigest()
    return {
        "shard": shard,
        "named": scan.named,
        "told": scan.told,
        "top": scan.top,
        "attributes": save_attributes(tables, table, scan.attributes),
        "layout": common.layout,
        "dtype": common.dtype and common.dtype.name,
        "shape": common.shape and list(common.shape),
        "moments": moments and [moments.n, moments.mean.tolist(), moments.m2.tolist()],
    }


def read_index(home: Path) -> dict[str, Any]:
    """The index in a folder; DataError unless its parts fit together."""
    path = home / INDEX
    index = read_object(path, DataError, AGAIN, MAX_SIZE)
    check_index(index, path, AGAIN)
    return index


def checked_table(path: Path, dtype: np.dtype, index: Path, rule: Callable[[np.ndarray], None]) -> np.ndarray:
    """The rows of a table; DataError unless it is whole and fits the rule. index: the file that names it."""
    with _told(path, index):
        table = open_table(path, dtype)
        rule(table)
    return table


def checked_column(path: Path, index: Path, count: int, dtype: np.dtype) -> Column:
    """The labels, or attributes, of at least `count` samples; DataError as of `checked_table`."""
    with _told(path, index):
        column = Column(path, dtype)
        if len(column) < count:
            raise Misfit(f"{len(column):,} rows, and the shards have {count:,} samples")
    return column


@contextmanager
def _told(path: Path, index: Path) -> Iterator[None]:
    """Makes a DataError of what is wrong with a table."""
    try:
        yield
    except OSError as error:
        raise unreadable(path, error, f"delete {index} to index the shards again") from error
    except ValueError as error:
        raise DataError(f"{path} does not fit its index ({reason(error)}); delete {index} to index again") from error


def unreadable(what: object, error: Exception, advice: str) -> DataError:
    """The error for a file that cannot be read; where the descriptors are used up, no file is at fault."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        advice = "raise the limit of open files (ulimit -n)"
    return DataError(f"{what} cannot be read ({error}); {advice}")
