"""A data set's card: what it holds, where its classes and sets come from and how it was made, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from savae_dist import __version__
from savae_dist.data.index.shards import Shards
from savae_dist.data.preview import class_name, draw_preview, title
from savae_dist.errors import SaveError, printable
from savae_dist.files import write_text

CARD, PICTURE = "card.md", "preview.png"
MANY = 1000  # classes that are listed


def write_card(shards: Shards, told: Mapping[str, Any], command: Sequence[str], channels: Sequence[str] = ()) -> Path:
    """Write `card.md` and `preview.png` beside the index of a local set; SaveError where they cannot be.

    told: what else is known of the set, by topic. command: that made it. channels: what each is.
    """
    path = shards.home / CARD
    try:
        draw_preview(shards, shards.home / PICTURE, channels)
        write_text(path, card(shards, told, command, channels))
    except OSError as error:
        raise SaveError(f"{path} cannot be written ({error}); free some space or leave --preview away") from error
    return path


def card(shards: Shards, told: Mapping[str, Any], command: Sequence[str], channels: Sequence[str] = ()) -> str:
    """The card as text; it names the picture."""
    sections = [
        f"# {_plain(title(shards))}",
        f"{shards.describe()}.",
        f"![Samples of every class]({PICTURE})",
        f"## Samples\n\n{_list(_samples(shards, channels))}",
        f"## Classes\n\n{_classes(shards)}",
        f"## What was found in the source\n\n{_list(told)}" if told else "",
        f"## How it was made\n\n{_made(shards, command)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def facts(shards: Shards) -> dict[str, Any]:
    """What a set holds, as JSON-able values: `samples` topic -> text, `classes` [label, name, samples], `count`."""
    labels = _labels(shards)
    return {
        "what": shards.describe(),
        "count": shards.size,
        "samples": _samples(shards, ()),
        "classes": [[label, class_name(shards, label), shards.label_counts[label]] for label in labels[:MANY]],
        "sha256": shards.digest,
    }


def _samples(shards: Shards, channels: Sequence[str]) -> dict[str, Any]:
    spec, statistics = shards.spec, shards.index["statistics"]
    count = spec.shape[0]
    named = list(channels) or (
        [f"{count}"] if spec.kind == "signal" else ["gray" if count == 1 else "red, green, blue"]
    )
    values = {
        "kind": spec.kind,
        "stored as": f"{shards.stored_dtype} {list(shards.stored_shape)}",
        "channels": ", ".join(named),
        "made from": spec.origin.told() if spec.origin else "",
        "sampling rate": f"{spec.rate:g} Hz" if spec.rate else "",
        "mean": statistics and ", ".join(f"{one:.6g}" for one in statistics["mean"]),
        "standard deviation": statistics and ", ".join(f"{one:.6g}" for one in statistics["std"]),
        "shards": f"{len(shards.counts):,} ({shards.index['layout']}), "
        f"{sum(one['bytes'] for one in shards.index['shards']):,} bytes",
    }
    return {name: value for name, value in values.items() if value}


def _classes(shards: Shards) -> str:
    labels = _labels(shards)
    rows = [
        f"| {label if label >= 0 else ''} | {_plain(class_name(shards, label))} | {shards.label_counts[label]:,} | "
        f"{shards.label_counts[label] / shards.size:.1%} |"
        for label in labels[:MANY]
    ]
    more = f"\n\n{len(labels) - MANY:,} more classes are in the index." if len(labels) > MANY else ""
    return "\n".join(["| class | name | samples | share |", "| --- | --- | --- | --- |", *rows]) + more


def _labels(shards: Shards) -> list[int]:
    """The classes in the order of their numbers, then the unlabelled."""
    return sorted(shards.label_counts, key=lambda label: (label < 0, label))


def _made(shards: Shards, command: Sequence[str]) -> str:
    lines = {
        "command": f"`{printable(' '.join(command)).replace('`', '')}`",
        "savae_dist": __version__,
        "sha256 of the index's content": f"`{shards.digest}`",
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())


def _list(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- {_plain(name)}: {_plain(str(value))}" for name, value in values.items())


def _plain(text: str) -> str:
    """Text as it stands, on one line: names out of files may hold what Markdown or HTML would act on."""
    text = printable(text)
    for sign in ("\\", "|", "`", "*", "_", "<", "[", "#"):
        text = text.replace(sign, f"\\{sign}")
    return text
