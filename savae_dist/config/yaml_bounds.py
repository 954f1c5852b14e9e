"""The bounds of a YAML text, checked on its events: libyaml and OmegaConf call themselves for each level of it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from savae_dist.errors import ConfigError

LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
MAX_BYTES = 4 << 20
MAX_DEPTH = 32  # lists and mappings inside one another
MAX_DIGITS = 300  # floating point holds no whole number of more digits
MAX_VALUES = 50_000  # with aliases unfolded


def read_text(path: Path) -> str:
    """A file's text; ConfigError if it is too large, not UTF-8, or beyond the bounds."""
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES:,} bytes, which no configuration needs")
    text = data.decode()
    check_bounds(text, str(path))
    return text


def check_bounds(text: str, where: str) -> None:
    """ConfigError that names the bound if the text is nested too deeply, or unfolds to too many values."""
    anchors: dict[str, int] = {}  # name -> values inside
    levels: list[tuple[str | None, int]] = []  # for each open list or mapping its anchor, and the values before it
    count = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.AliasEvent):
            count += anchors.get(event.anchor, MAX_VALUES + 1)  # one that is still open would hold itself
        elif isinstance(event, yaml.CollectionStartEvent):
            levels.append((event.anchor, count))
            if len(levels) > MAX_DEPTH:
                raise ConfigError(f"{where} is nested deeper than {MAX_DEPTH}")
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = levels.pop()
            if anchor:
                anchors[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if len(event.value) > MAX_DIGITS and re.fullmatch(r"[-+]?[0-9_]+", event.value):
                raise ConfigError(f"{where} holds a number of more than {MAX_DIGITS} digits")
            if event.anchor:
                anchors[event.anchor] = 1
        if count > MAX_VALUES:
            raise ConfigError(f"{where} holds more than {MAX_VALUES:,} values, its aliases unfolded")
