"""What is in a set of shards, for people: counts, classes, what would be left out and why, and the memory it takes."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from savae_dist.data.index.choice import Choice
from savae_dist.data.index.losses import advice, check_losses, doubts, members_line, share_lost, unlabelled
from savae_dist.data.index.open import expand
from savae_dist.data.index.pictures import served, told
from savae_dist.data.index.reasons import Tally
from savae_dist.data.index.remote import Catalogue
from savae_dist.data.index.shards import Shards
from savae_dist.data.index.tables import build_index, read_index
from savae_dist.data.remote.store import Store
from savae_dist.errors import ConfigError, printable

MANY = 20  # classes that are listed


def index_set(
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str] | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    attributes: str | None = None,
    class_names: Sequence[str] = (),
    rate: float = 0.0,
    decode_all: bool = False,
    processes: int = 1,
) -> Shards:
    """Index tars anew, beside them or in the folder `out`, which then stands for them; see `build_index`.

    x, y, attributes: as in `data`.
    """
    named = [shard for one in sources for shard in expand(one, Catalogue(Store()), anew=True)]
    paths = [shard for shard in named if isinstance(shard, Path)]
    if len(paths) < len(named):
        raise ConfigError("shards behind URLs are indexed on first use: name them in data.train")
    homes = {path.parent for path in paths}
    if out is None and len(homes) > 1:
        raise ConfigError(f"the shards lie in {len(homes)} folders; name one for their index with --out")
    if processes < 1:
        raise ConfigError("--processes must be at least 1")
    home = Path(out).absolute() if out is not None else homes.pop()
    choice = Choice(x, y, attributes)
    build_index(paths, home, class_names, rate, choice=choice, decode_all=decode_all, processes=processes)
    return Shards(home, read_index(home))


def check_usable(shards: Shards) -> None:
    """DataError where not one sample can be used."""
    n, total = share_lost(shards.index)
    if n == total:
        check_losses(shards.home, shards.index, 0.0)


def survey(shards: Shards) -> list[str]:
    """Lines of `name  what`, from the index alone. What it does not know: images that cannot be decoded are found when
    they are read, or by `index_shards --decode`."""
    index = shards.index["shards"]
    dropped, bad = Tally(one["dropped"] for one in index), Tally(one["bad"] for one in index)
    n, total = share_lost(shards.index)
    others = "; all of them" if n == total else "; others take their place"
    cut = Tally()
    for name, one in zip(shards.names, index, strict=True):
        if not one["whole"]:
            cut.add("without an end", [name])
    size = sum(one["bytes"] for one in index)
    stored = f"{shards.stored_dtype} {'x'.join(map(str, shards.stored_shape))}"
    shape, dtype = served(shards)
    memory = int(shards.counts.sum()) * math.prod(shape) * dtype.itemsize
    lines = {
        "samples": f"{shards.describe()}",
        "shards": f"{len(index):,} of {_bytes(size)}, {shards.index['layout']}, stored as {stored}",
        "members": members_line(shards.index),
        "classes": _classes(shards),
        "labels": f"of data.y={shards.index['y']}" if "y" in shards.index else unlabelled(shards.index),
        "attributes": _attributes(shards),
        "told": "; ".join(doubts(shards.index)),
        "dropped": f"{dropped.total:,}: {dropped}" if dropped.total else "none",
        "bad": f"{bad.total:,}: {bad}{others}" if bad.total else "none known",
        "of no use": f"{n:,} of {total:,} samples ({n / total:.1%}); {advice(shards.index)}" * (n > 0),
        "cut short": str(cut),
        "pictures": "; ".join(told(shards)),
        "memory": f"{_bytes(memory)} with data.cache=memory",
    }
    return [f"{name:<10}  {what}" for name, what in lines.items() if what]


def _attributes(shards: Shards) -> str:
    names, made = shards.spec.attributes, shards.index.get("attributes", {}).get("rule", "")
    return printable(f"{', '.join(names[:MANY])}{', ...' * (len(names) > MANY)} of {made}") if names else ""


def _classes(shards: Shards) -> str:
    counts = {label: n for label, n in sorted(shards.label_counts.items()) if label >= 0}
    names = dict(enumerate(shards.spec.class_names))
    shown = [f"{printable(str(names.get(label, label)))} {n:,}" for label, n in list(counts.items())[:MANY]]
    empty = shards.spec.classes - len(counts)
    return (
        f"{', '.join(shown) or 'none'}{', ...' * (len(counts) > MANY)}"
        f"{f'; {empty:,} of {shards.spec.classes:,} classes have no sample' * (empty > 0)}"
    )


def _bytes(count: int) -> str:
    """`6.3 MB`."""
    power = min((len(str(count)) - 1) // 3, 4)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
