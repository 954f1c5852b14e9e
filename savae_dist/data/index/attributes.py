"""Several values a sample, such as the attributes of a face: read from its members and kept in a table of the index.

The names that occur in any shard are the columns of the whole set; what a sample does not name is missing (NaN).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from savae_dist.config.members import AttributeRule
from savae_dist.data.formats.npy import NPY_HEAD, NPY_MAGIC, npy_head, npy_header, open_table
from savae_dist.data.formats.tar import Tar
from savae_dist.data.index.labels import MAX_NAME, Member, at_path, by_name, json_of
from savae_dist.data.index.reasons import shown
from savae_dist.data.index.rows import save_table
from savae_dist.errors import BadSample, DataError
from savae_dist.files import draft_of, publish

ATTRIBUTES = "attributes.npy"
MOST = 4096  # values of a sample
MAX_TEXT = 1 << 16  # bytes of a text of numbers
LARGEST = 3e38  # larger values would overflow the float32 that they are kept in
Values = Mapping[str, float]


def row_dtype(columns: int) -> np.dtype:
    """A row of the table: float32 [columns], NaN where a value is missing."""
    return np.dtype([("values", "<f4", (columns,))])


class Attributes:
    """Those of the samples of one shard, a row for each in their order. rule: None: there are none."""

    def __init__(self, data: Tar, rule: AttributeRule | None) -> None:
        self.data, self.rule = data, rule
        self.names: dict[str, int] = {}
        self._rows: list[Values] = []

    def of_sample(self, member: Member | None) -> Values:
        """BadSample where there are values that cannot be read."""
        if self.rule is None or member is None:
            return {}
        if self.rule.paths:
            found = json_of(self.data, member)
            return _joined(
                {path: at_path(found, path.split(".")) if path != "." else found for path in self.rule.paths}
            )
        content = self.data[member.offset : member.offset + min(member.size, MAX_TEXT + NPY_HEAD)]
        if content.startswith(NPY_MAGIC):
            return _of_array(content)
        return _of_text(content)

    def of_block(self, member: Member | None, rows: int) -> list[Values]:
        """Of each row of a block, whose JSON has a list for each path; BadSample where it has not."""
        if self.rule is None or member is None:
            return [{}] * rows
        found = json_of(self.data, member)
        columns = {path: at_path(found, path.split(".")) for path in self.rule.paths}
        for path, column in columns.items():
            if column is not None and not (isinstance(column, list) and len(column) == rows):
                raise BadSample("label", f"{path} is no list of {rows} attributes")
        return [_joined({path: column and column[row] for path, column in columns.items()}) for row in range(rows)]

    def keep(self, rows: Sequence[Values]) -> None:
        """The next rows of the shard."""
        if self.rule is None:
            return
        for values in rows:
            for name in values:
                self.names.setdefault(name, len(self.names))
            if len(self.names) > MOST:
                raise DataError(f"{self.data.path}: the samples have more than {MOST:,} different attributes")
        self._rows += rows

    def table(self) -> np.ndarray:
        """`row_dtype` [rows], with a column for each name."""
        table = np.full((len(self._rows), len(self.names)), np.nan, "<f4")
        for row, values in enumerate(self._rows):
            for name, value in values.items():
                table[row, self.names[name]] = value
        return table.view(row_dtype(len(self.names))).reshape(-1) if self.names else np.empty(0, row_dtype(0))


def _joined(found: Mapping[str, Any]) -> Values:
    """The numbers at each path by name; with several paths those inside one are named with it."""
    result: dict[str, float] = {}
    for path, value in found.items():
        prefix = f"{path}." if len(found) > 1 else ""
        if isinstance(value, list):
            value = dict(zip(map(str, range(len(value))), value, strict=True))
        if isinstance(value, Mapping):
            result |= {shown(f"{prefix}{name}")[:MAX_NAME]: _number(name, one) for name, one in value.items()}
        elif value is not None:
            result[path] = _number(path, value)
    return result


def _number(name: str, value: Any) -> float:
    if value is None:
        return np.nan
    if not isinstance(value, int | float):
        raise BadSample("label", f"the attribute {shown(str(name))} is {shown(repr(value)[:40])}, no number")
    return float(max(-LARGEST, min(LARGEST, value))) if value == value else np.nan


def _of_array(content: bytes) -> Values:
    try:
        dtype, shape, start = npy_header(content)
        if dtype.kind not in "biuf" or len(shape) != 1:
            raise ValueError(f"{dtype} {shape}")
        return _joined({"": np.frombuffer(content, dtype, offset=start).tolist()})
    except ValueError as error:
        raise BadSample("label", f"attributes that are no row of numbers ({error})") from error


def _of_text(content: bytes) -> Values:
    try:
        numbers = [float(one) for one in re.split(r"[\s,;]+", content.decode("utf-8-sig").strip()) if one]
    except ValueError as error:
        raise BadSample("label", f"attributes that are no numbers ({shown(str(error)[:60])})") from error
    return _joined({"": numbers})


def shard_table(table: str) -> str:
    """The file of one shard's attributes, by the name of its table."""
    return f"{table}.{ATTRIBUTES}"


def save_attributes(home: Path, table: str, attributes: Attributes) -> list[str]:
    """Those of one shard; the names of their columns."""
    if attributes.names:
        save_table(home / shard_table(table), attributes.table())
    return list(attributes.names)


def write_attributes(home: Path, scanned: Sequence[dict[str, Any]]) -> list[str]:
    """Those of all shards in one table, by place as the labels are; the names of its columns.

    Each shard learns the digest of its own: they are part of what identifies a set.
    """
    names = list(by_name({name for one in scanned for name in one.get("attributes", [])}))
    if not names:
        return []
    dtype, place = row_dtype(len(names)), {name: number for number, name in enumerate(names)}
    draft = draft_of(home / ATTRIBUTES)
    try:
        with draft.open("wb") as file:
            file.write(npy_head(dtype, (sum(one["shard"]["count"] for one in scanned),)))
            for one in scanned:
                values = np.full((one["shard"]["count"], len(names)), np.nan, "<f4")
                if one["attributes"]:
                    path = home / shard_table(one["shard"]["table"])
                    own = open_table(path, row_dtype(len(one["attributes"])))["values"]
                    values[:, [place[name] for name in one["attributes"]]] = own
                    path.unlink()
                one["shard"]["attributes"] = hashlib.sha256(values.tobytes()).hexdigest()
                file.write(values.tobytes())
        publish(draft, home / ATTRIBUTES)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return names
