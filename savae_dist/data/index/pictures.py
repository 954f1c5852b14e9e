"""What a run makes of the pictures of a set, which may be of many sizes, and what is to be told of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from savae_dist.config.effect import no_effect
from savae_dist.data.index.scan import FORM
from savae_dist.data.index.schema import check_forms
from savae_dist.data.index.shards import Shards
from savae_dist.data.index.tables import INDEX, checked_table
from savae_dist.errors import ConfigError, DataError
from savae_dist.origin import Resize
from savae_dist.preprocess import Pictures

SHOWN = 5  # sizes that a message names
DEEPEST = 65535


class Wanted(NamedTuple):
    """What a run asks of pictures; size: (height, width), None: that of the set, if it has one."""

    size: tuple[int, int] | None = None
    resize: Resize = "crop"
    mode: Literal["auto", "gray", "rgb"] = "auto"
    range: tuple[float, float] | None = None


def served(shards: Shards) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a sample as a reader gives it: as stored, or what becomes of pictures."""
    pictures = shards.spec.pictures
    if pictures is None:
        return shards.stored_shape, np.dtype(shards.stored_dtype)
    return pictures.shape, np.dtype(np.uint8 if pictures.bits == 8 else np.uint16)


def forms_of(shards: Shards, shard: int) -> np.ndarray:
    """The forms of a shard's pictures (`scan.FORM`), as their headers say; zeros where they are not known."""
    entry = shards.index["shards"][shard]
    if "forms" not in entry:
        return np.zeros(entry["count"], FORM)
    path = shards.home / f"{entry['table']}.forms.npy"
    return checked_table(path, FORM, shards.home / INDEX, lambda table: check_forms(table, entry))


def sizes_of(shards: Shards) -> str:
    """`37 sizes: 300x400 120, 480x640 80, ...` in height x width, or nothing where there is only one."""
    forms = shards.index.get("forms")
    if forms is None or forms["distinct"] < 2:
        return ""
    named = ", ".join(f"{height}x{width} {count:,}" for height, width, count in forms["sizes"][:SHOWN])
    return f"{forms['distinct']:,} sizes: {named}{', ...' * (forms['distinct'] > SHOWN)}"


def odd_sizes(shards: Shards) -> int:
    """How many pictures have not the most common size."""
    forms = shards.index.get("forms")
    return forms["known"] - forms["sizes"][0][2] if forms is not None and forms["distinct"] > 1 else 0


def with_pictures(shards: Shards, wanted: Wanted) -> Shards:
    """The shards whose pictures become what is wanted; ConfigError or DataError where they cannot."""
    usual = Wanted()
    for key, value, default in zip(Wanted._fields, wanted, usual, strict=True):
        if value != default and shards.spec.kind != "image":
            raise no_effect(f"data.{key}", value, f"on {shards.spec.kind}s: it is for images")
    if wanted == usual:
        return shards
    if wanted.size is None and odd_sizes(shards):
        raise DataError(f"{told_sizes(shards)}; data.size=128 or data.size=[HEIGHT,WIDTH] brings them to one")
    forms = shards.index.get("forms") or {"deep": 0}
    bits = 16 if wanted.range is not None and forms["deep"] else 8
    if wanted.range is not None and not 0 <= wanted.range[0] < wanted.range[1] < 2**bits:
        low, high = wanted.range
        raise ConfigError(f"data.range=[{low:g},{high:g}]: pictures of {bits} bits go from 0 to {2**bits - 1}")
    channels = shards.spec.shape[0]
    if channels not in (1, 3):
        raise DataError(f"{shards.home} holds arrays of {channels} channels, no pictures; leave data.size and such out")
    mode = wanted.mode if wanted.mode != "auto" else "gray" if channels == 1 else "rgb"
    height, width = wanted.size or shards.spec.shape[1:]
    pictures = Pictures((height, width), wanted.resize, mode, bits, wanted.range)
    return shards.with_spec(replace(shards.spec, shape=pictures.channels_first, pictures=pictures))


def check_one_size(shards: Shards, budget: float) -> None:
    """DataError where more of the pictures than the budget allows have another size, and nothing brings them to one."""
    odd = odd_sizes(shards)
    if shards.spec.pictures is None and odd > budget * shards.size:
        raise DataError(
            f"{told_sizes(shards)}: {odd:,} of {shards.size:,} are not of the most common one, more than "
            f"data.bad_budget={budget:g}; data.size=128 or data.size=[HEIGHT,WIDTH] brings them to one"
        )


def told_sizes(shards: Shards) -> str:
    return f"{shards.home} holds pictures of {sizes_of(shards)}"


def told(shards: Shards) -> list[str]:
    """What a person should know of the pictures of a set, a line each."""
    forms, pictures = shards.index.get("forms"), shards.spec.pictures
    lines = []
    if pictures is not None:
        height, width = pictures.size
        spread = f", values {pictures.range[0]:g} to {pictures.range[1]:g}" if pictures.range else ""
        lines.append(f"{pictures.resize} to {height}x{width} {pictures.mode}, {pictures.bits} bits{spread}")
    if forms is None:
        return lines
    if forms["distinct"] > 1:
        odd = f"; {odd_sizes(shards):,} are bad: data.size=128 brings them to one" * (pictures is None)
        lines.append(f"{sizes_of(shards)}{odd}")
    channels = shards.spec.shape[0]
    other = forms["gray"] if channels == 3 else forms["known"] - forms["gray"] if channels == 1 else 0
    if other:
        kind = "gray, of which three equal channels are made" if channels == 3 else "in colour, which is left out"
        lines.append(f"{other:,} of {forms['known']:,} are {kind}; data.mode decides")
    if forms["deep"] and (pictures is None or pictures.bits == 8):
        used = f", which use values up to {forms['top']:,} of 65,535" if forms["top"] < DEEPEST else ""
        advice = f"data.range=[0,{forms['top'] or DEEPEST}]"
        lines.append(f"{forms['deep']:,} of {forms['known']:,} have 16 bits{used}: cut to 8; {advice} keeps them")
    return lines
