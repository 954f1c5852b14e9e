"""Several recordings in one table: a column tells which rows belong to which, others what is said of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from savae_dist.data.packing.readers import columns_of, kind_of
from savae_dist.data.packing.readers.clocks import Column
from savae_dist.data.packing.readers.signal import Unreadable
from savae_dist.data.packing.sources.base import Note, as_label
from savae_dist.data.packing.sources.listing import LABELS, USED, Listed, Rules
from savae_dist.data.packing.splits import as_set
from savae_dist.errors import ConfigError, DataError

NOTHING = {"", "nan", "None"}  # in the column that tells recordings apart


def recordings_of(files: Sequence[Listed], column: str, rules: Rules, kind: str) -> tuple[list[Listed], list[Note]]:
    """Each recording of the tables as if it were a file of a list, in the order of its first row.

    column: tells them apart. rules: `label` and `group` may name columns of the table; columns called label, split,
    machine and rate mean what they mean in a list. What such a column says must be the same in all rows of a recording.
    kind: the end of a name by which files that have no reader are read.
    """
    found: list[Listed] = []
    notes: list[Note] = []
    for one in files:
        try:
            columns = {held.name: held for held in columns_of(one.path, kind_of(one.path.name) or kind)}
        except Unreadable as error:
            raise DataError(f"{one.path}: {error}: {error.found}") from error
        wanted = {"--id": column} | _named(rules)
        if absent := next((option for option, name in wanted.items() if name not in columns), ""):
            raise ConfigError(f"{absent} {wanted[absent]}: {one.path} has the columns {', '.join(columns)}")
        ids = columns[column].values.astype(str)
        names = [name for name in dict.fromkeys(ids.tolist()) if name not in NOTHING]
        if missing := int(np.isin(ids, list(NOTHING)).sum()):
            notes.append(Note("left out", f"{missing} rows of no recording, {column} is empty", one.name))
        said = aside(list(columns), column, rules)
        label = next((key for key in (rules.label, "label") if key in said), "")
        notes.append(Note("labels from", f"the column {label}" if label else "its folder", one.name))
        for name in names:
            row = {key: _only(columns[key], ids == name, f"{one.path}, {column} {name}") for key in said}
            row |= {"recording": f"{one.name}#{name}", column: name}
            found.append(_listed(one, row, rules))
    return found, notes


def aside(columns: Sequence[str], column: str, rules: Rules) -> tuple[str, ...]:
    """The columns of a table that say something of a recording as a whole."""
    return tuple(name for name in columns if name != column and name in {*USED, rules.label, rules.group})


def of_files(rules: Rules) -> Rules:
    """The rules without those that name a column: for the files that the tables lie in."""
    named = _named(rules)
    return Rules("top" if "--label" in named else rules.label, "" if "--group-by" in named else rules.group)


def _named(rules: Rules) -> dict[str, str]:
    """By option the columns that rules name."""
    label = {} if rules.label in LABELS or "(" in rules.label else {"--label": rules.label}
    group = {} if rules.group in ("", "folder") or "(" in rules.group else {"--group-by": rules.group}
    return label | group


def _only(column: Column, rows: np.ndarray, where: str) -> str:
    """What a column says of all these rows."""
    values = dict.fromkeys(column.values[rows].astype(str).tolist())
    if len(values) > 1:
        shown = ", ".join(list(values)[:3])
        raise DataError(f"{where}: {column.name} is {shown}: it must say one thing of a recording; see --annotations")
    return next(iter(values))


def _listed(file: Listed, row: dict[str, str], rules: Rules) -> Listed:
    label = rules.label if rules.label in row else "label"
    group = row.get(rules.group, file.group)
    made = replace(file, columns={**file.columns, **row}, group=group, split=as_set(row.get("split", file.split)))
    return replace(made, label=as_label(row[label])) if label in row else made
