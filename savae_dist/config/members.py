"""`data.x` and `data.y`: the members of a tar's keys that hold the samples, and what tells their labels."""

from __future__ import annotations

import re
from typing import NamedTuple

from savae_dist.errors import ConfigError

ENDING = re.compile(r"[\w-]+(\.[\w-]+)*")
FORMS = "cls, txt or another ending of text members, json:PATH, folder, key:REGEX or none"


class LabelRule(NamedTuple):
    """kind: `member` (its whole text), `json`, `folder`, `key` or `none`; detail: the ending, or the expression.

    path: in the JSON, the names from the outermost to the label; none where it is all that the JSON holds (`json:.`).
    """

    kind: str
    detail: str = ""
    path: tuple[str, ...] = ()


class AttributeRule(NamedTuple):
    """The ending of the members that hold a sample's attributes; paths: in their JSON, `.` for all of it; none: numbers
    in a text or an array.
    """

    ending: str
    paths: tuple[str, ...] = ()


def check_members(x: str | None, y: str | None, attributes: str | None) -> None:
    """ConfigError where `data.x`, `data.y` or `data.attributes` says nothing."""
    if attributes is not None:
        attribute_rule(attributes)
    if x is not None:
        sample_endings(x)
    if y is not None:
        label_rule(y)


def sample_endings(x: str) -> tuple[str, ...]:
    """`left.png` or `jpg|png` as endings in small letters; of several the first that a key holds is its sample."""
    endings = tuple(one.strip().removeprefix(".").lower() for one in x.split("|"))
    for one in endings:
        if ENDING.fullmatch(one) is None:
            raise ConfigError(f"data.x={x}: give the ending of the samples' members, such as jpg, left.png or jpg|png")
    return endings


def label_rule(y: str) -> LabelRule:
    """What `data.y` says; ConfigError unless it is one of `FORMS`."""
    kind, colon, detail = y.partition(":")
    if y in ("none", "folder"):
        return LabelRule(y)
    if kind == "key" and colon:
        return LabelRule("key", _expression(y, detail))
    ending = kind.removeprefix(".").lower()
    if ENDING.fullmatch(ending) is None:
        raise ConfigError(f"data.y={y}: give {FORMS}")
    is_json = ending == "json" or ending.endswith(".json")
    if is_json and detail != "." and not all(detail.split(".")):
        raise ConfigError(f"data.y={y} does not say where in the JSON the label stands: data.y={kind}:label")
    if colon and not is_json:
        raise ConfigError(f"data.y={y}: give {FORMS}")
    path = tuple(detail.split(".")) if detail != "." else ()
    return LabelRule("json", ending, path) if is_json else LabelRule("member", ending)


def attribute_rule(text: str) -> AttributeRule:
    """`json:face`, `json:age,smile`, `json:.`, `attr.json:face`, `attr.txt` or `attr.npy`."""
    kind, colon, detail = text.partition(":")
    ending, paths = kind.removeprefix(".").lower(), tuple(detail.split(",")) if detail else ()
    is_json = ending.rpartition(".")[2] == "json"
    if ENDING.fullmatch(ending) is None or bool(paths) != is_json or bool(colon) != is_json or not all(paths):
        raise ConfigError(
            f"data.attributes={text}: give json:PATH, several paths with commas between, json:. for all that the JSON "
            "holds, or the ending of members that hold numbers"
        )
    return AttributeRule(ending, paths)


def _expression(y: str, text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ConfigError(f"data.y={y}: no regular expression ({error})") from error
    if groups != 1:
        raise ConfigError(f"data.y={y}: give a regular expression with one group in round brackets")
    return text
