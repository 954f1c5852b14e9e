"""Image files of any common kind, of one size, labelled by their folder or by a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from savae_dist.data.formats.headers import header, white
from savae_dist.data.formats.images import Mode, decode_picture
from savae_dist.data.formats.picture_files import EXTENSIONS, read_file
from savae_dist.data.packing.sources.base import Bad, Item, Note, Sample, Source, by_name, grouped, identity
from savae_dist.data.packing.sources.listing import Listed, Rules, label_origin, list_files
from savae_dist.data.packing.splits import Splits, sets_of
from savae_dist.errors import BadSample
from savae_dist.origin import DECODER, PictureFiles, Resize

FILES = 256  # files per part
Limits = tuple[float, float] | None


def images(
    source: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    mode: Mode = "auto",
    *,
    resize: Resize = "crop",
    limits: Limits = None,
    rules: Rules | None = None,
    splits: Splits | None = None,
) -> Source:
    """A folder in which each sub-folder is a class, or a CSV with the columns path (relative to it), label and split.

    size: (height, width), to which images are brought by `resize`. mode: `auto` keeps gray gray. limits: the values
    that become black and white; None: all. splits: by image where `rules` name no group.
    """
    path, rules, splits = Path(source).absolute(), rules or Rules(), splits or Splits()
    hint = f"convert them to {' '.join(EXTENSIONS)}"
    files, notes = list_files(path, lambda name: name.lower().endswith(EXTENSIONS), rules, hint)
    names = () if path.suffix.lower() == ".csv" else by_name(str(one.label) for one in files if one.label is not None)
    groups, given, labels = zip(*((one.group or one.name, one.split, one.label) for one in files), strict=True)
    own, told = sets_of(groups, given, labels, splits, rules.group or "image")
    parts, sets = _parts(files, own)
    options: dict[str, Any] = {"source": "images", "size": size, "mode": mode, "labels": labels, "sets": own}
    options |= {"groups": groups} if rules.group else {}
    options |= {"resize": resize, "decoder": DECODER} if size else {}
    options |= {"limits": limits} if limits else {}
    origin = PictureFiles(size, resize, mode, limits)
    return Source(
        partial(_read_files, parts, origin),
        sets,
        identity(options, (one.path for one in files)),
        names,
        (label_origin(path, rules), *notes, *told),
        frozenset(one.label for one in files if one.label is not None),
        origin if size or limits else None,
    )


def _parts(files: Sequence[Listed], sets: Sequence[str]) -> tuple[list[list[Listed]], tuple[str, ...]]:
    """Some hundred files of one set each, and the set of each part."""
    parts: list[list[Listed]] = []
    names: list[str] = []
    for name in dict.fromkeys(sets):
        mine = [one for one, own in zip(files, sets, strict=True) if own == name]
        parts += [mine[start : start + FILES] for start in range(0, len(mine), FILES)]
        names += [name] * -(-len(mine) // FILES)
    return parts, tuple(names)


def _read_files(parts: Sequence[Sequence[Listed]], files: PictureFiles, part: int) -> Iterator[Item]:
    for one in parts[part]:
        try:
            data = one.path.read_bytes()
            yield from noted(data, files.range, one.name)
            yield Sample(read_file(data, files), one.label, {"path": one.name} | grouped(one.group))
        except FileNotFoundError:
            yield Bad("missing", str(one.path))
        except OSError as error:
            yield Bad(f"unreadable: {error.strerror}", str(one.path))
        except BadSample as error:
            yield Bad(str(error), str(one.path))


def noted(data: bytes, limits: Limits, name: str) -> Iterator[Note]:
    """That a file of 16 bits uses less than a quarter of their range, and loses most of that where it is cut to 8."""
    if limits is not None or header(data).bits == 8 or white(data):
        return
    used = int(decode_picture(data, bits=16).max()).bit_length()
    if used < 15:
        text = f"no value above {2**used - 1:,} of 65,535, and cut to 8 bits: --range 0,{2**used - 1} spreads them"
        yield Note("16 bits", text, name)
