"""Numbers for the names among the labels, once all shards of a set are known: the same ones, whoever scanned which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from savae_dist.data.formats.npy import open_table
from savae_dist.data.index.labels import NAMED, UNREADABLE, by_name
from savae_dist.data.index.reasons import Tally
from savae_dist.data.index.rows import count_labels, digest_of, save_table
from savae_dist.data.index.scan import BLOCK, SAMPLE
from savae_dist.errors import DataError

MANY, SHARE = 20, 2  # more names than the first, and than labels by the second, are texts and no classes
SHOWN = 5


def number_names(
    home: Path, tables: Path, scanned: Sequence[dict[str, Any]], given: Sequence[str], known: Sequence[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Give every name its number in the tables and counts of the shards; the class names, and what is to be told.

    tables: the folder of the tables. given: the class names, to which a name must belong. known: names that have the
    first numbers. Without both they are sorted, by value where all are numbers. Where more labels are numbers than
    names, the names are no labels.
    """
    named = [one.get("named", {}) for one in scanned]
    counts = {name: one["count"] for name, one in Tally(named).reasons.items()}
    if not counts:
        return tuple(given), []
    numbers = Counter[int]()
    for one in scanned:
        numbers.update({int(label): n for label, n in one["shard"]["labels"].items() if int(label) >= 0})
    found, total = {*counts, *map(str, numbers)}, sum(counts.values())
    shown = ", ".join(list(counts)[:SHOWN]) + ", ..." * (len(counts) > SHOWN)
    if given:
        _replace(tables, scanned, named, {name: number for number, name in enumerate(given)}, {})
        return tuple(given), []
    if numbers.total() >= total:
        _replace(tables, scanned, named, {}, {})
        return (), [f"{total:,} names ({shown}) among {numbers.total():,} numbers are no labels"] * (total > 0)
    if len(found) > MANY and SHARE * len(found) > total + numbers.total():
        raise DataError(
            f"{home}: the labels are {len(found):,} different texts ({shown}) of {total:,} samples, which are no "
            "classes: let data.y name something else, or data.y=none"
        )
    names = (*known, *by_name(found - set(known)))
    places = {name: number for number, name in enumerate(names)}
    _replace(tables, scanned, named, places, {number: places[str(number)] for number in numbers})
    few = ", ".join(map(str, list(numbers)[:SHOWN]))
    return names, [f"numbers among names, taken as names: {few}"] if numbers else []


def _replace(
    tables: Path,
    scanned: Sequence[dict[str, Any]],
    named: Sequence[Mapping[str, Any]],
    places: Mapping[str, int],
    numbers: Mapping[int, int],
) -> None:
    """places: name -> number, all others are bad. numbers: label -> number, where they are names themselves."""
    for one, names in zip(scanned, named, strict=True):
        shard = one["shard"]
        mapping = {NAMED - place: places.get(name, UNREADABLE) for place, name in enumerate(names)} | dict(numbers)
        if not mapping or not shard["count"]:
            continue
        path, blocks = tables / f"{shard['table']}.idx.npy", np.empty(0, BLOCK)
        if one["layout"] == "packed":
            blocks = open_table(tables / f"{shard['table']}.blocks.npy", BLOCK)
        table = open_table(path, SAMPLE)
        old, which = np.unique(table["label"], return_inverse=True)
        table["label"] = np.array([mapping.get(label, label) for label in old.tolist()])[which]
        save_table(path, table)
        shard["sha256"], shard["labels"] = digest_of(table, blocks), count_labels(table)
        bad = Tally([shard["bad"]])
        for name, said in names.items():
            if name not in places and said["count"]:
                bad.add("label", said["keys"], said["count"], repr(name))
        shard["bad"] = bad.reasons
