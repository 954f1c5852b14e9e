"""What `index.json` may hold: checked before anything is read or allocated by what it says."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from savae_dist.data.index.labels import MAX_CLASSES, UNREADABLE
from savae_dist.data.remote.cache import FORMAT_VERSION
from savae_dist.errors import DataError
from savae_dist.origin import check_origin
from savae_dist.untrusted import (
    Misfit,
    anything,
    check,
    flag,
    listed,
    nullable,
    number,
    one_of,
    path_text,
    record,
    shown,
    table,
    text,
    whole,
)

MAX_SIZE = 512 << 20  # bytes of an index: ten thousand shards that hold a thousand classes each take half of it
MAX_ROWS, MAX_SHARD = 1 << 40, 1 << 50  # samples of a set, bytes of a shard: far above any, and sums fit in 64 bits
MAX_ELEMENTS = 1 << 28  # in a sample: as many as the largest image that is decoded has, in four channels
# The stored form by kind: dtype and number of axes.
FORMS = {"image": ("uint8", (2, 3)), "signal": ("float32", (1, 2))}

# Entries of an index that do not describe samples: two indexes of the same samples may differ in them.
NOT_OF_SAMPLES = ("table", "first", "folder", "part", "dropped", "bad", "whole", "members", "folders", "forms")

REASON = record({"count": whole(0, MAX_ROWS), "keys": listed(text(2000), most=100)}, {"found": text(2000)})
REASONS = table(REASON, most=1000)
ATTRIBUTES = record({"rule": text(), "names": listed(text(), 1, 4096)})
MEMBERS = table(record({"count": whole(0, MAX_ROWS), "first": text(2000), "found": text(2000)}), most=1000)
SHARD = record(
    {
        "name": path_text,
        "table": path_text,
        "count": whole(0, MAX_ROWS),
        "bytes": whole(0, MAX_SHARD),
        "crc32": whole(0, 2**32 - 1),
        "sha256": text(64, "[0-9a-f]{64}", "a sha256"),
        "labels": table(whole(0, MAX_ROWS), text(7, r"-?\d+", "a label")),
        "dropped": REASONS,
        "bad": REASONS,
        "whole": flag,
        "first": whole(0, MAX_ROWS),
    },
    {
        "members": MEMBERS,
        "folders": listed(text(2000), most=100),
        "forms": text(64, "[0-9a-f]{64}", "a sha256"),
        "attributes": text(64, "[0-9a-f]{64}", "a sha256"),
    },
)
ROWS = whole(0, MAX_ROWS)
FORMS_FIELDS = record(
    {
        "known": ROWS,
        "sizes": listed(listed(whole(1, MAX_ROWS), 3, 3), 1, 100),
        "distinct": whole(1, MAX_ROWS),
        "gray": ROWS,
        "deep": ROWS,
        "top": whole(0, 65535),
    }
)
INDEX_FIELDS = record(
    {
        "kind": one_of(*FORMS),
        "layout": one_of("packed", "samples"),
        "dtype": one_of("uint8", "float32"),
        "shape": listed(whole(1, MAX_ELEMENTS), 1, 3),
        "classes": whole(0, MAX_CLASSES),
        "class_names": listed(text(), most=MAX_CLASSES),
        "rate": number(0),
        "statistics": nullable(record({"mean": listed(number(), 1), "std": listed(number(0), 1)})),
        "shards": listed(SHARD),
    },
    {
        "x": text(),
        "y": text(),
        "attributes": ATTRIBUTES,
        "told": listed(text(2000)),
        "forms": FORMS_FIELDS,
        "origin": table(anything),
    },
)


def check_index(index: dict[str, Any], where: object, advice: str) -> None:
    """DataError in one line unless this is an index of today's format whose parts fit together."""
    if index.get("format_version") != FORMAT_VERSION:
        version = shown(index.get("format_version"))
        raise DataError(f"{where} has format_version {version}, not {FORMAT_VERSION}; {advice}")
    check(index, INDEX_FIELDS, where, DataError, advice)
    check(index, _fits_together, where, DataError, advice)


def _fits_together(index: dict[str, Any]) -> None:
    kind, shape, statistics = index["kind"], index["shape"], index["statistics"]
    if "origin" in index:
        record({"origin": check_origin(kind)})(index)
    dtype, axes = FORMS[kind]
    if index["dtype"] != dtype or len(shape) not in axes or math.prod(shape) > MAX_ELEMENTS:
        raise Misfit(f"is {shape} of {index['dtype']}, no {kind} of at most {MAX_ELEMENTS:,} elements", "shape")
    if len(index["class_names"]) > index["classes"]:
        raise Misfit(
            f"holds {len(index['class_names']):,} names, and there are {index['classes']:,} classes", "class_names"
        )
    channels = 0 if kind == "image" else 1 if len(shape) == 1 else shape[0]
    if [len(statistics[key]) for key in ("mean", "std")] != [channels] * 2 if statistics else channels:
        raise Misfit(f"is {shown(statistics)}, and there are {channels} channels", "statistics")
    # Encoded images can be smaller than their pixels; all else stands in the shard as it is.
    row = math.prod(shape) * np.dtype(dtype).itemsize if index["layout"] == "packed" or kind == "signal" else 0
    for position, shard in enumerate(index["shards"]):
        where = f"shards[{position}]"
        if shard["count"] * row > shard["bytes"]:
            need = f"whose samples need {shard['count'] * row:,} bytes, and it has {shard['bytes']:,}"
            raise Misfit(f"is {shard['count']:,}, {need}", f"{where}.count")
        _check_labels(shard, index["classes"], f"{where}.labels")


def _check_labels(shard: dict[str, Any], classes: int, where: str) -> None:
    for label in shard["labels"]:
        if not UNREADABLE <= int(label) < classes or str(int(label)) != label:
            raise Misfit(f"holds the label {label}, and there are {classes:,} classes", where)
    total = sum(shard["labels"].values())
    if total != shard["count"]:
        raise Misfit(f"are {total:,} in sum, and the shard has {shard['count']:,} samples", where)


def check_samples(table: np.ndarray, shard: dict[str, Any]) -> None:
    """Misfit unless all samples (`scan.SAMPLE`) of a shard lie inside it."""
    room = shard["bytes"] - table["size"].astype(np.int64)
    if (table["offset"] > MAX_SHARD).any() or (table["offset"].astype(np.int64) > room).any():
        raise Misfit(f"names a place beyond the {shard['bytes']:,} bytes of its shard")


def check_forms(table: np.ndarray, shard: dict[str, Any]) -> None:
    """Misfit unless this is what the index knows of the forms (`scan.FORM`) of a shard's pictures."""
    if len(table) != shard["count"] or hashlib.sha256(table.tobytes()).hexdigest() != shard["forms"]:
        raise Misfit("is not what its index was made with")


def check_blocks(table: np.ndarray, shard: dict[str, Any], row: int) -> None:
    """Misfit unless the blocks (`scan.BLOCK`) of a shard lie inside it and hold its rows of `row` bytes, in order."""
    offset, size, first = table["offset"], table["size"], table["first"].astype(np.int64)
    inside = (offset >= 0) & (size > 0) & (size <= shard["bytes"]) & (offset <= shard["bytes"] - size)
    if not inside.all():
        raise Misfit(f"names a place beyond the {shard['bytes']:,} bytes of its shard")
    if (size % row).any() or (np.r_[first, shard["count"]] != np.r_[0, np.cumsum(size // row)]).any():
        raise Misfit(f"does not hold the {shard['count']:,} samples of its shard, one after the other")
