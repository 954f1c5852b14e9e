"""Image files of any common kind, of one size, labelled by their folder or by a table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from savae_dist.data.formats.images import Mode, decode_picture
from savae_dist.data.packing.sources.base import Bad, Item, Sample, Source, by_name, grouped, identity
from savae_dist.data.packing.sources.listing import Listed, Rules, label_origin, list_files
from savae_dist.data.packing.splits import Splits, sets_of
from savae_dist.errors import BadSample

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FILES = 256  # files per part


def images(
    source: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    mode: Mode = "auto",
    *,
    rules: Rules | None = None,
    splits: Splits | None = None,
) -> Source:
    """A folder in which each sub-folder is a class, or a CSV with the columns path (relative to it), label and split.

    size: (height, width); other images are scaled and cropped to it. mode: `auto` keeps gray gray. splits: by image
    where `rules` name no group.
    """
    path, rules, splits = Path(source).absolute(), rules or Rules(), splits or Splits()
    hint = f"convert them to {' '.join(EXTENSIONS)}"
    files, notes = list_files(path, lambda name: name.lower().endswith(EXTENSIONS), rules, hint)
    names = () if path.suffix.lower() == ".csv" else by_name(str(one.label) for one in files if one.label is not None)
    groups, given, labels = zip(*((one.group or one.name, one.split, one.label) for one in files), strict=True)
    own, told = sets_of(groups, given, labels, splits, rules.group or "image")
    parts, sets = _parts(files, own)
    options = {"source": "images", "size": size, "mode": mode, "labels": labels, "sets": own}
    options |= {"groups": groups} if rules.group else {}
    return Source(
        partial(_read_files, parts, size, mode),
        sets,
        identity(options, (one.path for one in files)),
        names,
        (label_origin(path, rules), *notes, *told),
        frozenset(one.label for one in files if one.label is not None),
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


def _read_files(
    parts: Sequence[Sequence[Listed]], size: tuple[int, int] | None, mode: Mode, part: int
) -> Iterator[Item]:
    for one in parts[part]:
        try:
            yield Sample(fitted(one.path.read_bytes(), size, mode), one.label, {"path": one.name} | grouped(one.group))
        except FileNotFoundError:
            yield Bad("missing", str(one.path))
        except OSError as error:
            yield Bad(f"unreadable: {error.strerror}", str(one.path))
        except BadSample as error:
            yield Bad(str(error), str(one.path))


def fitted(data: bytes, size: tuple[int, int] | None = None, mode: Mode = "auto") -> np.ndarray:
    """uint8 [h, w] or [h, w, 3] as `decode_picture`, of the size (height, width) if one is given.

    Other images are cropped around the centre to its proportions and scaled by Lanczos with antialiasing; those of
    that size stay bit for bit.
    """
    x = decode_picture(data, mode)
    if size is not None and x.shape[:2] != tuple(size):
        x = np.asarray(ImageOps.fit(Image.fromarray(x), (size[1], size[0]), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(x)
