"""The label of a sample as other writers spell it: a number, a name, JSON, the folder of its key, or a one-hot array.

Names get their numbers when all shards are known (`data.index.naming`); until then each has one of its shard.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from savae_dist.config.members import LabelRule
from savae_dist.data.formats.npy import NPY_HEAD, NPY_MAGIC, npy_header
from savae_dist.data.formats.tar import Tar
from savae_dist.data.index.reasons import Reasons, Tally, shown
from savae_dist.errors import BadSample

Label = int | str | None  # class number, class name, unlabelled
UNLABELLED, UNREADABLE = -1, -2  # the second is never valid, so such a sample is bad
NAMED = -16  # names are numbered downwards from here while their shard is read
MAX_CLASSES = 1 << 20
MAX_TEXT, MAX_JSON, MAX_ARRAY = 1024, 1 << 26, 1 << 23  # bytes of a label
MAX_NAME = 200  # characters
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # byte order marks
SETS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}  # folders that are no classes


class Member(NamedTuple):
    offset: int
    size: int


class Labels:
    """The labels of one shard.

    classes: labels from there on are bad. names: those that occur, in the order of their numbers from `NAMED` down.
    """

    def __init__(self, data: Tar, rule: LabelRule, classes: int) -> None:
        self.data, self.rule, self.classes = data, rule, classes
        self.names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._counted = Tally()

    def of_sample(self, key: str, member: Member | None) -> int:
        """BadSample where there is a label that cannot be read."""
        if self.rule.kind == "none":
            return UNLABELLED
        if self.rule.kind in ("folder", "key"):
            return self._number(_of_key(key, self.rule))
        if member is None:
            return UNLABELLED
        if self.rule.kind == "json":
            return self._number(as_label(at_path(json_of(self.data, member), self.rule.path)))
        if self._content(member, 0, 6) == NPY_MAGIC:
            if member.size > MAX_ARRAY:
                raise BadSample("label", f"{member.size:,} bytes")
            return self._number(array_label(self._content(member, 0, member.size)))
        return self._number(text_label(self._text(member)))

    def of_block(self, member: Member | None, rows: int) -> np.ndarray:
        """int64 [rows]; those that cannot be read are `UNREADABLE`. ValueError where the member has not so many."""
        if self.rule.kind == "none" or member is None:
            return np.full(rows, UNLABELLED)
        if self.rule.kind == "json":
            try:
                values = at_path(json_of(self.data, member), self.rule.path)
            except BadSample as error:
                raise ValueError(error.found) from error
            if values is None:
                return np.full(rows, UNLABELLED)
            if not isinstance(values, list) or len(values) != rows:
                raise ValueError(f"the JSON has no list of {rows} labels")
            return np.array([self._of_row(value) for value in values], np.int64)
        y = label_array(self._array(member), rows)
        usable = (y >= UNLABELLED) & (y < self.classes)  # before the cast, which wraps what is too large for it
        return np.where(usable, y, UNREADABLE).astype(np.int64)

    def count(self, label: int, key: str) -> None:
        """A sample of this label that is not bad for another reason: if it has a name, that may turn out to be none."""
        if label <= NAMED:
            self._counted.add(self.names[NAMED - label], [key])

    def named(self) -> Reasons:
        """How many samples have each name, in the order of `names`, and the first of their keys."""
        return {name: self._counted.reasons.get(name, {"count": 0, "keys": []}) for name in self.names}

    def _of_row(self, value: Any) -> int:
        try:
            return self._number(as_label(value))
        except BadSample:
            return UNREADABLE

    def _number(self, label: Label) -> int:
        if label is None:
            return UNLABELLED
        if isinstance(label, int):
            if not UNLABELLED <= label < self.classes:
                raise BadSample("label", str(label))
            return label
        if label not in self._numbers:
            self._numbers[label] = NAMED - len(self.names)
            self.names.append(label)
        return self._numbers[label]

    def _content(self, member: Member, start: int, size: int) -> bytes:
        return self.data[member.offset + start : member.offset + min(member.size, start + size)]

    def _text(self, member: Member) -> bytes:
        if member.size > MAX_TEXT:
            raise BadSample("label", f"{member.size:,} bytes")
        return self._content(member, 0, member.size)

    def _array(self, member: Member) -> np.ndarray:
        """ValueError where it is none; its header is read first, since it may claim more than the memory holds."""
        dtype, shape, start = npy_header(self._content(member, 0, NPY_HEAD), member.size)
        if member.size - start > MAX_ARRAY * max(shape[0] if shape else 1, 1):
            raise ValueError("too many bytes")
        return np.frombuffer(self._content(member, start, member.size), dtype).reshape(shape)


def label_array(y: np.ndarray, rows: int) -> np.ndarray:
    """[rows] whole numbers: of a column [rows, 1] or one-hot rows [rows, classes] too; ValueError of anything else."""
    if y.ndim == 2 and y.shape[0] == rows and y.shape[1] > 1:
        if not (((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()):
            raise ValueError(f"y.npy holds {y.dtype.name} {y.shape}, not {rows} labels, nor one-hot rows")
        return y.argmax(1)
    if y.shape not in ((rows,), (rows, 1)) or y.dtype.kind not in "iuf" or (y.dtype.kind == "f" and (y % 1 != 0).any()):
        raise ValueError(f"y.npy holds {y.dtype.name} {y.shape}, not {rows} integers")
    return y.reshape(rows)


def text_label(content: bytes) -> Label:
    """A whole text: `3`, `3.0`, `cat`; BadSample where it is neither a number nor one line of a name."""
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding).strip()
    except UnicodeDecodeError as error:
        raise BadSample("label", "bytes that are no text") from error
    if not text:
        raise BadSample("label", "nothing")
    return as_label(text)


def array_label(content: bytes) -> Label:
    """Of one value or a one-hot row; BadSample of anything else."""
    try:
        dtype, shape, start = npy_header(content)
        return as_label(np.frombuffer(content, dtype, offset=start).reshape(shape).tolist())
    except ValueError as error:
        raise BadSample("label", f"an array that is {error}") from error


def as_label(value: Any) -> Label:
    """A value of JSON as a label; BadSample where it is none."""
    if value is None or isinstance(value, bool):
        return value if value is None else int(value)
    if isinstance(value, str):
        return _of_text(value.strip())
    if isinstance(value, int | float):
        if isinstance(value, float) and not value.is_integer():
            raise BadSample("label", f"{value!r}, no whole number")
        return int(value)
    if isinstance(value, list):
        return _of_list(value)
    raise BadSample("label", f"an object with {shown(', '.join(map(str, value))[:60])}")


def _of_text(text: str) -> Label:
    if re.fullmatch(r"[+-]?\d{1,18}(\.0*)?", text, re.ASCII):
        return int(text.partition(".")[0])
    try:
        float(text)
    except ValueError:
        pass
    else:
        raise BadSample("label", f"{shown(text)!r}, no whole number")
    if len(text) > MAX_NAME or not text.isprintable():
        raise BadSample("label", f"{shown(text[:40])!r}")
    return text or None


def _of_list(values: Sequence[Any]) -> Label:
    """Of a list of one its value, of a one-hot row the place of its 1."""
    if len(values) == 1:
        return as_label(values[0])
    if values and all(one in (0, 1) for one in values if not isinstance(one, list | dict)):
        marked = [place for place, one in enumerate(values) if one == 1]
        if len(marked) == 1:
            return marked[0]
    raise BadSample("label", f"a list of {len(values):,}, which is neither one label nor one-hot")


def json_of(data: Tar, member: Member) -> Any:
    """A member's JSON; BadSample where it is none, or too large."""
    if member.size > MAX_JSON:
        raise BadSample("label", f"{member.size:,} bytes of JSON")
    return read_json(data[member.offset : member.offset + member.size])


def read_json(content: bytes) -> Any:
    """BadSample where it is none."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadSample("label", f"damaged JSON ({str(error)[:60]})") from error


def at_path(value: Any, path: Sequence[str]) -> Any:
    """What stands in the JSON under these names or places in lists; None where there is no such."""
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def folder_of(key: str) -> str:
    """The first folder of a key that is no set's (train, test ...), "" where it stands in none."""
    folders = [one for one in key.split("/")[:-1] if one not in ("", ".")]
    return folders[1] if len(folders) > 1 and folders[0].lower() in SETS else folders[0] if folders else ""


def _of_key(key: str, rule: LabelRule) -> Label:
    """What stands in the key is a name even where it is a number, as the packer takes folders."""
    if rule.kind == "folder":
        name = folder_of(key)
    else:
        match = re.search(rule.detail, key)
        name = (match.group(1) or "") if match else ""
        if not name:
            raise BadSample("label", "a key that the expression does not match")
    if len(name) > MAX_NAME or not name.isprintable():
        raise BadSample("label", shown(name[:40]))
    return name or None


def by_name(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted; by value where all are numbers, so that 10 comes after 9, as the packer sorts folders."""
    found = sorted(names)
    if all(re.fullmatch(r"\d+", name, re.ASCII) for name in found):
        return tuple(sorted(found, key=int))
    return tuple(found)
