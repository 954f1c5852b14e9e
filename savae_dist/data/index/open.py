"""What a source names: its tars, here or behind URLs, the index that covers them, and several sets as one."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from savae_dist.config.braces import expand_braces
from savae_dist.config.urls import is_remote
from savae_dist.data.index.choice import Choice
from savae_dist.data.index.forms import join_forms
from savae_dist.data.index.reasons import shown
from savae_dist.data.index.remote import Catalogue, find_or_fetch
from savae_dist.data.index.scan import Moments
from savae_dist.data.index.tables import INDEX, build_index, read_index, tell_left_out
from savae_dist.data.remote.cache import cache_folder
from savae_dist.errors import ConfigError, DataError, printable
from savae_dist.locks import PathLock

Source = str | os.PathLike[str]
Found = tuple[Path, dict[str, Any]]  # the folder of an index, and that index, perhaps cut to some of its shards


def find_all(sources: Source | Sequence[Source], catalogue: Catalogue) -> Found:
    """The index of a set, or of several that are joined: a folder, a brace pattern, one tar, or a list of these."""
    if isinstance(sources, (str, os.PathLike)):
        return find(sources, catalogue)
    if not sources:
        raise ConfigError("the list of shards is empty; name a folder made by tools/make_shards.py")
    tars = [shard for one in sources for shard in expand(one, catalogue)]
    if len(tars) == len(sources) and all(os.fspath(one).endswith(".tar") for one in sources):
        home, index = _covering(tars, catalogue)  # one index for the whole list of tars, not one per tar
        return home, {**index, "shards": [{**shard, "part": part} for part, shard in enumerate(index["shards"])]}
    sets = [find(one, catalogue) for one in sources]
    return sets[0][0], join(sets)


def find(source: Source, catalogue: Catalogue) -> Found:
    """The index of one set; that of a local folder may name shards that lie elsewhere."""
    if not is_remote(source):
        home = Path(source).expanduser().absolute()
        if (home / INDEX).exists() and catalogue.choice.fits(index := read_index(home)):
            return home, index
    return _covering(expand(source, catalogue), catalogue)


def expand(source: Source, catalogue: Catalogue, anew: bool = False) -> list[Path | str]:
    """A folder, one tar or a brace pattern to the paths or URLs of its shards, in order.

    anew: the index of a local folder is not asked which shards it covers.
    """
    if isinstance(source, str) and re.match(r"\s*(pipe:|\|)|.*\|\s*$", source, re.IGNORECASE | re.DOTALL):
        raise ConfigError(f"{shown(source)!r} names a command, which is never run; name a folder, files or a URL")
    if isinstance(source, str) and is_remote(source):
        return list(catalogue.expand(source))
    folder = Path(source).expanduser()
    if not folder.is_dir():
        return [Path(one).expanduser().absolute() for one in expand_braces(os.fspath(source))]
    paths = sorted(folder.glob("*.tar"))
    if not anew and (folder / INDEX).exists():
        paths = [folder / shard["name"] for shard in read_index(folder)["shards"]]
    if not paths:
        sets = sorted(one.parent.name for one in folder.glob(f"*/{INDEX}"))
        hint = f"name one of its sets, {', '.join(sets)}" if sets else "make some with tools/make_shards.py"
        raise DataError(f"{folder} holds no .tar shards; {hint}")
    return [path.absolute() for path in paths]


def _covering(named: Sequence[Path | str], catalogue: Catalogue) -> Found:
    paths = [one for one in named if isinstance(one, Path)]
    return find_or_build(paths, catalogue.choice) if len(paths) == len(named) else find_or_fetch(named, catalogue)


def find_or_build(paths: list[Path], choice: Choice) -> Found:
    """The index that covers these local shards; built where there is none that was made by this choice.

    It lies beside the shards if it covers that folder and may be written there, else in the cache.
    """
    for path in paths:
        if not path.is_file():
            raise DataError(f"shard {path} is missing; bring it back, or correct data.train / data.validation")
    home = paths[0].parent
    if (home / INDEX).exists():
        index = read_index(home)
        beside = {home / shard["name"] for shard in index["shards"]} >= set(paths) and choice.fits(index)
    else:
        beside = set(paths) == set(home.glob("*.tar")) and os.access(home, os.W_OK)
    if not beside:
        named = "\n".join(map(str, paths)) + choice.name
        home = cache_folder() / "index" / hashlib.sha256(named.encode()).hexdigest()[:16]
        home.mkdir(parents=True, exist_ok=True)
    if not (home / INDEX).exists():
        with PathLock(home / ".index.lock"):  # one process builds the index; the others wait and then find it
            if not (home / INDEX).exists():
                build_index(paths, home, choice=choice)
                tell_left_out(home)
    index = read_index(home)
    known = {home / shard["name"]: shard for shard in index["shards"]}
    return home, {**index, "shards": [known[path] for path in paths]}


def check_shards(home: Path, shards: list[dict[str, Any]]) -> None:
    """DataError where a local one is missing; a line where some have changed: the reader counts what is damaged.

    Remote ones, perhaps thousands, show it when they are fetched.
    """
    changed = []
    for shard in shards:
        if is_remote(shard["name"]):
            continue
        path = home / shard["name"]
        if not path.is_file():
            raise DataError(f"shard {path} is missing; bring it back, or make the set again")
        if path.stat().st_size != shard["bytes"]:
            changed.append(f"{path} has {path.stat().st_size:,} bytes, its index says {shard['bytes']:,}")
    if changed:
        more = f", and {len(changed) - 1} more like it" * (len(changed) > 1)
        advice = f"copy it again, or delete {home / INDEX} if it was changed on purpose"
        print(printable(f"savae_dist: {changed[0]}{more}: what is damaged counts as bad; {advice}"), file=sys.stderr)


def join(sets: Sequence[Found]) -> dict[str, Any]:
    """One index of several sets, whose shards lie where they are; DataError where they do not fit together."""
    (home, first), *others = sets
    pictures = all("forms" in index for _, index in sets)  # then all sizes are known, and a run may bring them to one
    for other, index in others:
        for key in ("kind", "layout", "dtype", *(() if pictures else ("shape",)), "rate"):
            if index[key] != first[key]:
                raise DataError(
                    f"{home} and {other} do not fit together: {key} {first[key]} and {index[key]}; pack them alike"
                )
        if index.get("attributes") != first.get("attributes"):
            raise DataError(f"{home} and {other} have different attributes; index them by the same data.attributes")
        if index["class_names"] and first["class_names"] and index["class_names"] != first["class_names"]:
            raise DataError(f"{home} and {other} name their classes differently; pack them with the same")
    shards = [
        {
            **shard,
            "part": part,
            "folder": str(folder),
            "name": shard["name"] if is_remote(shard["name"]) else str(folder / shard["name"]),
            "table": str(folder / shard["table"]),
        }
        for part, (folder, index) in enumerate(sets)
        for shard in index["shards"]
    ]
    if pictures:
        first = {**first, "forms": join_forms(index["forms"] for _, index in sets)}
    names: list[str] = next((index["class_names"] for _, index in sets if index["class_names"]), [])
    classes = max(index["classes"] for _, index in sets)
    if any(index.get("origin") != first.get("origin") for _, index in sets):
        first = {key: value for key, value in first.items() if key != "origin"}  # no one way leads to all of them
    told = list(dict.fromkeys(line for _, index in sets for line in index.get("told", [])))
    return {
        **first,
        "told": told,
        "shards": shards,
        "classes": classes,
        "class_names": names,
        "statistics": _pooled(sets),
    }


def _pooled(sets: Sequence[Found]) -> dict[str, list[float]] | None:
    """Mean and deviation of all sets together, by Chan's rule."""
    if sets[0][1]["statistics"] is None:
        return None
    moments = Moments(len(sets[0][1]["statistics"]["mean"]))
    for _, index in sets:
        mean, std = (np.array(index["statistics"][key]) for key in ("mean", "std"))
        size = sum(shard["count"] for shard in index["shards"])
        moments.merge(size, mean, size * std**2)
    return {"mean": moments.mean.tolist(), "std": moments.std().tolist()}
