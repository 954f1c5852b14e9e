"""What an index leaves out, doubts or has understood, in words; and whether so much may be left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from savae_dist.data.formats.axes import read_axes
from savae_dist.data.formats.npy import IMAGES
from savae_dist.data.index.choice import Choice
from savae_dist.data.index.labels import UNLABELLED
from savae_dist.data.index.reasons import Tally
from savae_dist.data.index.seen import Kinds, label_options, listed, merged
from savae_dist.errors import ConfigError, DataError, printable

# By reason: what to do about it. All others are damage.
REMEDIES = {
    "several samples": "say which of its members is the sample of a key, such as data.x={several}",
    "dot in the name": "a key ends at the first dot of its name: {hidden}",
    "no sample": "a sample is KEY.png, another image or KEY.npy, not compressed; data.x=ENDING names other members",
    "name": "write the members with relative names and without ..",
    "not a file": "put files in the place of links",
    "duplicate": "give every sample a name of its own",
    "label": "say what tells the labels: data.y=cls, json:PATH, folder, key:REGEX or none",
    "shape": "pack what differs with tools/make_shards.py",
    "dtype": "pack it with tools/make_shards.py",
    "undecodable": "write arrays in C order and without objects, and copy or make again what is damaged",
}
DAMAGE = "copy or make the damaged shards again"


def lost(index: Mapping[str, Any]) -> Tally:
    """The samples that are known to be of no use: those without a row, and the bad ones."""
    return Tally(reasons for shard in index["shards"] for reasons in (shard["dropped"], shard["bad"]))


def samples_left_out(index: Mapping[str, Any]) -> tuple[int, int]:
    """How many samples have no row in an index, and of how many."""
    dropped = Tally(shard["dropped"] for shard in index["shards"]).total
    return dropped, dropped + sum(shard["count"] for shard in index["shards"])


def share_lost(index: Mapping[str, Any]) -> tuple[int, int]:
    """How many samples are known to be of no use, and of how many."""
    return lost(index).total, samples_left_out(index)[1]


def lost_line(index: Mapping[str, Any]) -> str:
    """`2 of 40 samples (5.0%) are of no use: ...`, "" where all can be used."""
    n, total = share_lost(index)
    return f"{n:,} of {total:,} samples ({n / total:.1%}) are of no use: {lost(index)}" if n else ""


def check_losses(where: object, index: Mapping[str, Any], budget: float) -> None:
    """DataError where a larger share than `budget` of the samples is known to be of no use."""
    n, total = share_lost(index)
    if n > budget * total:
        all_of_them = "all " * (n == total)
        raise DataError(
            f"{where}: {all_of_them}{n:,} of {total:,} samples are of no use, more than data.bad_budget={budget:g} "
            f"allows: {lost(index)}; {advice(index)}"
        )


def advice(index: Mapping[str, Any]) -> str:
    """What to do about the samples that are of no use."""
    return printable(remedies(lost(index), _kinds(index)))


def remedies(reasons: Tally, kinds: Kinds) -> str:
    """What to do about each reason."""
    several = reasons.reasons.get("several samples", {}).get("found", "jpg").replace(" and ", " or data.x=")
    texts = [REMEDIES.get(reason, DAMAGE) for reason in sorted(reasons.reasons)]
    filled = [text.format(several=several, hidden=_hidden(kinds)) for text in dict.fromkeys(texts)]
    return "; ".join(filled)


def _hidden(kinds: Kinds) -> str:
    """What to do where members end as samples do, but behind a dot too many."""
    endings = [one for one in kinds if "." in one and one.rpartition(".")[2] in (*IMAGES, "npy")]
    if not endings or endings[0].startswith("*") or (len(kinds) > 2 and kinds[endings[0]]["count"] == 1):
        return "rename the members, or unpack them and use tools/make_shards.py"
    named = [one for one in endings[:3] if not one.startswith("*")]
    asked = " or ".join(f"data.x={one}" for one in named)
    return f"rename the members, or {asked} reads those such as {kinds[endings[0]]['first']}"


def nothing_usable(where: Path, shards: Sequence[Mapping[str, Any]], choice: Choice) -> DataError:
    """The error for a set without a sample that can be read: what was found, and why each of it is of no use."""
    kinds, reasons = merged(shard.get("members", {}) for shard in shards), lost({"shards": shards})
    found = ", ".join(f"{ending} {one['count']:,} ({one['first']})" for ending, one in list(kinds.items())[:8])
    asked = "".join(f" with data.{key}={value}" for key, value in choice.chosen.items())
    why = f"; {reasons}; {remedies(reasons, kinds)}" if reasons.total else ""
    return DataError(f"{where}: no sample that can be read{asked}; members are {found or 'none'}{why}")


def unlabelled(index: Mapping[str, Any]) -> str:
    """Where no sample has a label and nobody said so: what looks like one, and the option that reads it; else ""."""
    if index.get("y") == "none" or _has_labels(index):
        return ""
    names = index.get("attributes", {}).get("names", [])
    if names:
        rule = index["attributes"]["rule"]
        several = f"{', '.join(names[:5])}{', ...' * (len(names) > 5)}"
        return printable(
            f"each sample has {len(names)} attributes ({several}) by data.attributes={rule} and no one label, which "
            f"data.y names, such as one of them"
        )
    options = label_options(_kinds(index), [name for shard in index["shards"] for name in shard.get("folders", ())])
    return printable(f"no sample has a label, and beside them stand {'; or '.join(options)}") if options else ""


def check_labelled(where: object, index: Mapping[str, Any]) -> None:
    """DataError where `data.y` finds no label at all."""
    asked, attributes = index.get("y"), index.get("attributes")
    if attributes is not None and not attributes["names"]:
        found = listed(_kinds(index), list(_kinds(index)))
        raise DataError(f"{where}: data.attributes={attributes['rule']} finds nothing; members are {found}")
    if asked in (None, "none") or _has_labels(index):
        return
    kinds = _kinds(index)
    found = unlabelled(index) or f"members are {listed(kinds, list(kinds))}"
    raise DataError(f"{where}: data.y={asked} finds no label; {found}; data.y=none if there are none")


def _has_labels(index: Mapping[str, Any]) -> bool:
    return any(int(label) != UNLABELLED for shard in index["shards"] for label in shard["labels"])


def members_line(index: Mapping[str, Any]) -> str:
    """`png 8, cls 8; not used: json 8 (0000.json)`, "" for an index that does not say."""
    choice = Choice.of(index)
    kinds = _kinds(index)
    return printable(listed(kinds, [ending for ending in kinds if choice.wanted.reads(ending)])) if kinds else ""


def doubts(index: Mapping[str, Any]) -> list[str]:
    """What was done to the samples, and what they may be instead."""
    lines = list(map(printable, index.get("told", [])))
    if index["kind"] == "signal":
        try:
            read_axes(np.dtype("float32"), tuple(index["shape"]))
        except ConfigError as error:
            lines.append(f"{error}; they are taken for windows")
    return lines


def told_of(index: Mapping[str, Any]) -> list[str]:
    """All that is to be told of an index that was made on first use."""
    members = members_line(index)
    lines = [lost_line(index), f"members {members}" if "not used" in members else "", unlabelled(index)]
    return [line for line in (*lines, *doubts(index)) if line]


def _kinds(index: Mapping[str, Any]) -> Kinds:
    return merged(shard.get("members", {}) for shard in index["shards"])
