"""Brace patterns such as `shard-{000000..000099}.tar`, counted before they are expanded."""

from __future__ import annotations

import re

from braceexpand import alphabet, braceexpand

from savae_dist.errors import ConfigError
from savae_dist.untrusted import shown

MAX_FILES = 1_000_000
MAX_PATTERN = 10_000  # characters
MAX_DEPTH = 32  # braces inside one another
TOKEN = re.compile(r"\\.|[{},]|[^\\{},]+|\\", re.DOTALL)
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?")


def expand_braces(pattern: str) -> list[str]:
    """All that the pattern stands for; ConfigError where that is more than MAX_FILES, or its braces are unbalanced."""
    check_braces(pattern)
    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise ConfigError(f"the shard pattern {shown(pattern)} has unbalanced braces") from error


def check_braces(pattern: str) -> None:
    """ConfigError if the pattern stands for too much."""
    if len(pattern) > MAX_PATTERN:
        raise ConfigError(f"the shard pattern {shown(pattern)} has more than {MAX_PATTERN:,} characters")
    if at_most(pattern) > MAX_FILES:
        raise ConfigError(f"the shard pattern {shown(pattern)} names more than {MAX_FILES:,} files; name a folder")


def at_most(pattern: str) -> int:
    """How many texts the pattern stands for, or somewhat more: counted without making them."""
    # For each open brace: the count of its finished alternatives, that of the current one, and the current text.
    levels = [(0, 1, "")]
    for token in TOKEN.findall(pattern):
        done, product, text = levels[-1]
        if token == "{":
            levels.append((0, 1, ""))
            if len(levels) > MAX_DEPTH:  # braceexpand calls itself for each
                raise ConfigError(f"the shard pattern {shown(pattern)} has more than {MAX_DEPTH} braces in each other")
        elif token == "," and len(levels) > 1:
            levels[-1] = done + product, 1, text + ","
        elif token == "}" and len(levels) > 1:
            levels.pop()
            outer, before, outside = levels[-1]
            levels[-1] = outer, min(before * max(done + product, _steps(text)), MAX_FILES + 1), outside + "{}"
        else:
            levels[-1] = done, product, text + token
    return max(done + product for done, product, _ in levels)


def _steps(text: str) -> int:
    """How many numbers a range `7..12` or `7..12..2` counts; 1 if it is none."""
    found = RANGE.fullmatch(text)
    if found is None:  # it may be a range of letters, which go A..Za..z
        letters = re.fullmatch(r"([A-Za-z])\.\.([A-Za-z])(\.\.-?\d+)?", text)
        return abs(alphabet.index(letters[1]) - alphabet.index(letters[2])) + 1 if letters else 1
    if max(map(len, filter(None, found.groups()))) > 18:
        return MAX_FILES + 1
    first, last, step = (int(one or 1) for one in found.groups())
    return abs(last - first) // (abs(step) or 1) + 1
