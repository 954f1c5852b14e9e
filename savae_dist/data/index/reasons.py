"""Unusable samples of a set, counted by reason, with the first keys of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from savae_dist.errors import printable

FIRST = 5  # keys that are kept of each reason
# reason: {"count": n, "keys": the first, "found": what the first was instead, if that is known}, as the index holds it
Reasons = dict[str, dict[str, Any]]


class Tally:
    """Counts by reason: `truncated`, `header` (of the tar), `name`, `not a file`, `duplicate`, `no sample`,
    `dot in the name`, `several samples`, `too many bytes`, and those of `BadSample`."""

    def __init__(self, several: Iterable[Reasons] = ()) -> None:
        self.reasons: Reasons = {}
        for reasons in several:
            for reason, one in reasons.items():
                self.add(reason, one["keys"], one["count"], one.get("found", ""))

    def add(self, reason: str, keys: Iterable[str], count: int = 1, found: str = "") -> None:
        """`count` samples; of their keys at least the first `FIRST`. found: what they were instead."""
        one = self.reasons.setdefault(reason, {"count": 0, "keys": []})
        one["count"] += count
        if found:
            one.setdefault("found", found)
        for key in keys:
            if len(one["keys"]) == FIRST:
                break
            one["keys"].append(key)

    @property
    def total(self) -> int:
        return sum(one["count"] for one in self.reasons.values())

    def __str__(self) -> str:
        """`crc 2 (a, b), shape 7 (c, d, e, f, g, ...: float32 3x8x8)`."""
        text = ", ".join(
            f"{reason} {one['count']:,} ({', '.join(one['keys'])}{', ...' * (one['count'] > len(one['keys']))}"
            f"{': ' * ('found' in one)}{one.get('found', '')})"
            for reason, one in sorted(self.reasons.items())
        )
        return printable(text)  # they may come from an index that is not ours


def shown(name: str) -> str:
    """A name out of a tar, fit for messages: one line, printable and not endless."""
    name = name[:200]
    return name if name.isprintable() else name.encode("unicode_escape", "backslashreplace").decode()
