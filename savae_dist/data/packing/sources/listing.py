"""The files of a source: those of a folder, or those that a CSV lists; with what was passed over."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from savae_dist.data.packing.sources.base import Label, Note, as_label, read_table
from savae_dist.data.packing.splits import SPELLINGS, as_set
from savae_dist.errors import ConfigError, DataError

SHOWN = 5
LABELS = ("top", "parent", "none")  # rules for the class of a file; see `Rules` for others
USED = ("path", "label", "split", "recording", "machine", "rate", "variable")  # columns that mean something


@dataclass(frozen=True)
class Listed:
    """One file. name: in the folder or the list. group: what it belongs to, "": to nothing else.

    columns: of its row in the list.
    """

    path: Path
    name: str
    label: Label
    group: str = ""
    split: str = ""
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """How the path of a file, or its row in the list, tells its class and what it belongs to.

    label: `top` (the first folder), `parent` (the last), `none`, a regular expression with one group, searched in the
    path, or a column of tables with several recordings. group: `folder`, a column of the list or of such a table, or
    such an expression; "" where the source decides.
    """

    label: str = "top"
    group: str = ""

    def __post_init__(self) -> None:
        for option, text in (("--label", self.label), ("--group-by", self.group)):
            if "(" in text:
                _expression(text, option)


def label_origin(source: Path, rules: Rules) -> Note:
    """Where the classes of a source's files come from, in words."""
    if source.suffix.lower() == ".csv" and source.is_file():
        return Note("labels from", f"the column label of {source.name}", "")
    folders = {"top": "the first folder of each path", "parent": "the last folder of each path", "none": "nowhere"}
    return Note("labels from", folders.get(rules.label, f"--label {rules.label}, searched in each path"), "")


def list_files(source: Path, usable: Callable[[str], bool], rules: Rules, hint: str) -> tuple[list[Listed], list[Note]]:
    """The files of a source in the order of their names, or of the list; and what is to be told of it.

    usable: whether a file of that name can be read. hint: what to do about those that cannot.
    """
    if source.suffix.lower() == ".csv" and source.is_file():
        return _in_table(source, rules)
    if not source.is_dir():
        raise DataError(f"{source} is neither a folder nor a .csv; name a folder with one sub-folder per class")
    names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
    hidden = [name for name in names if any(part.startswith(".") for part in name.split("/"))]
    seen = [name for name in names if name not in set(hidden)]
    files = [name for name in seen if usable(name.rpartition("/")[2])]
    others = [name for name in seen if not usable(name.rpartition("/")[2])]
    if not files:
        raise DataError(f"{source} holds {kinds_of(others) or 'no files'} and none that can be read; {hint}")
    notes = [Note("passed over", f"{kinds_of(others)}: {hint}", "")] if others else []
    if hidden:
        notes.append(Note("passed over", f"{len(hidden)} whose name begins with a dot ({hidden[0]})", ""))
    return _labelled(source, files, rules, notes)


def _labelled(source: Path, names: Sequence[str], rules: Rules, notes: list[Note]) -> tuple[list[Listed], list[Note]]:
    tops = {name.split("/")[0] for name in names if "/" in name}
    loose = any("/" not in name for name in names)
    split_of = {top: SPELLINGS[top.lower()] for top in tops if top.lower() in SPELLINGS}
    if split_of and (split_of.keys() != tops or loose):
        odd = ", ".join(sorted(tops - split_of.keys())[:SHOWN]) or "files beside them"
        raise DataError(
            f"{source} holds {', '.join(sorted(split_of))} and also {odd}: sets or classes? Move one of them"
        )
    depth = bool(split_of)
    if split_of:
        notes.append(Note("sets", f"of the folders {', '.join(f'{a} ({b})' for a, b in sorted(split_of.items()))}", ""))
    found = []
    for name in names:
        inner = name.split("/", 1)[1] if depth else name
        split = split_of[name.split("/")[0]] if depth else ""
        found.append(Listed(source / name, name, _label(inner, rules.label), group_of(name, rules.group, {}), split))
    loose_ones = [one.name for one in found if one.label is None]
    if rules.label in ("top", "parent") and 0 < len(loose_ones) < len(found):
        text = f"{len(loose_ones)} files in no folder of a class are unlabelled ({loose_ones[0]})"
        notes.append(Note("labels", text, ""))
    folders = [name.split("/")[int(depth) : -1] for name in names]
    if rules.label == "top" and folders and min(len(one) for one in folders) > 1:
        first, last = ({one[i] for one in folders} for i in (0, -1))
        told = f"{', '.join(sorted(first)[:SHOWN])}: of the first folder; --label parent takes the last"
        notes.append(Note("labels", f"{told} ({', '.join(sorted(last)[:SHOWN])})", ""))
    return found, notes


def _in_table(source: Path, rules: Rules) -> tuple[list[Listed], list[Note]]:
    rows = read_table(source, ("path", "label"))
    columns = set(rows[0]) - {""}
    if rules.group and rules.group not in columns and "(" not in rules.group and rules.group != "folder":
        raise ConfigError(f"--group-by {rules.group}: {source} has the columns {', '.join(sorted(columns))}")
    found = []
    for row in rows:
        group = group_of(row["path"], rules.group, row)
        split = as_set(row.get("split", ""))
        found.append(Listed(source.parent / row["path"], row["path"], as_label(row["label"]), group, split, row))
    unused = columns - set(USED) - {rules.group}
    notes = [Note("passed over", f"columns {', '.join(sorted(unused))} of {source.name}", "")] if unused else []
    return found, notes


def _label(name: str, rule: str) -> Label:
    folders = name.split("/")[:-1]
    if rule == "none" or (rule in ("top", "parent") and not folders):
        return None
    if rule in ("top", "parent"):
        return folders[0] if rule == "top" else folders[-1]
    return _first_group(name, rule, "--label")


def group_of(name: str, rule: str, row: dict[str, str]) -> str:
    """The group by a rule (see `Rules`) of what has this name, and in a list this row."""
    if not rule:
        return ""
    if rule == "folder":
        return name.rpartition("/")[0]
    return row[rule] if rule in row else _first_group(name, rule, "--group-by")


def _first_group(name: str, rule: str, option: str) -> str:
    match = _expression(rule, option).search(name)
    if match is None:
        raise DataError(f"{option} {rule}: it does not match {name}; correct it")
    return match.group(1)


def _expression(text: str, option: str) -> re.Pattern[str]:
    try:
        expression = re.compile(text)
    except re.error as error:
        raise ConfigError(f"{option} {text} is no regular expression ({error})") from error
    if expression.groups != 1:
        raise ConfigError(f"{option} {text}: give a regular expression with one group in round brackets")
    return expression


def kinds_of(names: Sequence[str]) -> str:
    """What files there are, in words: `4 files *.39, 1 file *.txt`."""
    ends = Counter(Path(name).suffix or "without an ending" for name in names)
    most = sorted(ends.items(), key=lambda one: (-one[1], one[0]))
    told = [f"{n} file{'s' * (n > 1)} {'*' * end.startswith('.')}{end}" for end, n in most[:SHOWN]]
    return ", ".join([*told, f"{len(ends) - SHOWN} more kinds"] if len(ends) > SHOWN else told)
