"""Which members a tar holds, used or not: what is passed over is told, and so is what looks like a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from savae_dist.data.formats.npy import IMAGES
from savae_dist.data.formats.tar import Entry, Tar
from savae_dist.data.index.labels import MAX_NAME, array_label, as_label, folder_of, read_json, text_label
from savae_dist.data.index.reasons import shown
from savae_dist.errors import BadSample

# How many are kept for each shard; further endings are counted by what follows their dots.
KINDS, FOLDERS, FIELDS = 50, 20, 12
FEW = 4  # endings with a dot that end alike and are listed one by one
MAX_LOOK = 1 << 16  # bytes of a member that is looked at
USUAL = {*IMAGES, "npy", "cls", "json", "txt"}
PROGRAMS = {"pkl", "pickle", "pyd", "pth", "pt", "py"}  # never looked at
LABEL_FIELDS = ("label", "labels", "class", "cls", "category", "target", "y", "class_name", "class_id", "label_id")
ALL = "= "  # before a value that is all that the JSON holds
HIDDEN, PLAIN = "(dot first)", "(no ending)"
Kinds = dict[str, dict[str, Any]]


class Seen:
    """The members of a shard by their endings: how many, the first, and what that one holds if it may be a label."""

    def __init__(self) -> None:
        self.kinds: Kinds = {}
        self.folders: set[str] = set()

    def add(self, data: Tar, entry: Entry, key: str, ending: str) -> None:
        """key: "" where the name has none."""
        if not key:
            ending = HIDDEN if entry.name.rpartition("/")[2].startswith(".") else PLAIN
        ending = self._kind(shown(ending[:MAX_NAME]))
        kind = self.kinds.get(ending)
        if kind is None:
            found = _label_in(data, entry, ending) if key and not entry.fault else ""
            self.kinds[ending] = {"count": 1, "first": shown(entry.name), "found": found}
        else:
            kind["count"] += 1
        if key and len(self.folders) < FOLDERS:
            self.folders.add(shown(folder_of(key)))

    def _kind(self, ending: str) -> str:
        """The ending under which it is counted: of very many only what follows their last dot, or none."""
        if ending in self.kinds or ending in USUAL or len(self.kinds) < KINDS:
            return ending
        ending = f"*.{ending.rpartition('.')[2]}" if "." in ending else ending
        return ending if ending in self.kinds or len(self.kinds) < 2 * KINDS else "(other)"


def _label_in(data: Tar, entry: Entry, ending: str) -> str:
    """`'cat'` of a text or array, `id, label` of an object in JSON, `= 3` of another; "" where it looks like none.

    Samples and programs are not looked at.
    """
    last = ending.rpartition(".")[2]
    if entry.size > MAX_LOOK or last in (*PROGRAMS, *IMAGES) or ending in ("npy", "x.npy"):
        return ""
    content = data[entry.offset : entry.offset + entry.size]
    try:
        if last == "json":
            values = read_json(content)
            if isinstance(values, dict):
                return shown(", ".join(map(str, list(values)[:FIELDS])))
            return f"{ALL}{shown(repr(as_label(values))[:60])}"
        if last == "npy":
            return shown(repr(array_label(content))[:60])
        return shown(repr(text_label(content))[:60])
    except BadSample:
        return ""


def merged(several: Iterable[Kinds]) -> Kinds:
    """The kinds of several shards together, the most frequent first."""
    total: Kinds = {}
    for kinds in several:
        for ending, one in kinds.items():
            known = total.setdefault(ending, {**one, "count": 0})
            known["count"] += one["count"]
            known["found"] = known["found"] or one["found"]
    total = _folded(total)
    return dict(sorted(total.items(), key=lambda item: (-item[1]["count"], item[0])))


def _folded(kinds: Kinds) -> Kinds:
    """With endings such as 000.png, 001.png ... as one, where there are more than a few."""
    same = Counter(ending.rpartition(".")[2] for ending in kinds if "." in ending)
    result: Kinds = {}
    for ending, one in kinds.items():
        last = ending.rpartition(".")[2]
        if "." in ending and same[last] > FEW:
            known = result.setdefault(f"*.{last}", {**one, "count": 0})
            known["count"] += one["count"]
        else:
            result[ending] = one
    return result


def listed(kinds: Kinds, used: Sequence[str]) -> str:
    """`png 8, cls 8; not used: json 8 (0000.json ...)`; used: the endings that are read."""
    ours = [f"{ending} {one['count']:,}" for ending, one in kinds.items() if ending in used]
    others = [f"{ending} {one['count']:,} ({one['first']})" for ending, one in kinds.items() if ending not in used]
    shown_others = ", ".join(others[:FOLDERS]) + ", ..." * (len(others) > FOLDERS)
    return "; ".join(filter(None, [", ".join(ours), f"not used: {shown_others}" * bool(others)]))


def label_options(kinds: Kinds, folders: Iterable[str]) -> list[str]:
    """What looks like a label beside samples that have none, with the option that reads it."""
    options = []
    for ending, one in kinds.items():
        if not one["found"] or ending.startswith(("(", "*")):
            continue
        if ending.rpartition(".")[2] == "json":
            if one["found"].startswith(ALL):
                options.append(f"{ending} {one['count']:,} ({one['found'][len(ALL) :]} first): data.y={ending}:.")
                continue
            fields = one["found"].split(", ")
            field = next((name for name in LABEL_FIELDS if name in fields), "")
            options.append(f"{ending} {one['count']:,} (with {one['found']}): data.y={ending}:{field or 'FIELD'}")
        else:
            options.append(f"{ending} {one['count']:,} ({one['found']} first): data.y={ending}")
    named = sorted(set(folders) - {""})
    if len(named) > 1:
        options.append(f"folders {', '.join(named[:5])}{', ...' * (len(named) > 5)}: data.y=folder")
    return options
