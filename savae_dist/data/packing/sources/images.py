"""Image files of any common kind, of one size, labelled by their folder or by a table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from savae_dist.data.formats.images import Mode, decode_picture
from savae_dist.data.packing.sources.base import (
    Bad,
    Item,
    Label,
    Sample,
    Source,
    as_label,
    by_name,
    find_files,
    read_table,
)
from savae_dist.data.packing.sources.base import identity as identity_of
from savae_dist.errors import BadSample

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FILES = 256  # files per part
Listed = tuple[Path, str, Label]


def images(source: str | os.PathLike[str], size: tuple[int, int] | None = None, mode: Mode = "auto") -> Source:
    """A folder in which each sub-folder is a class, or a CSV with the columns path (relative to it) and label.

    size: (height, width); other images are scaled and cropped to it. mode: `auto` keeps gray gray.
    """
    path = Path(source).absolute()
    if path.suffix.lower() == ".csv":
        rows = read_table(path, ("path", "label"))
        files: list[Listed] = [(path.parent / row["path"], row["path"], as_label(row["label"])) for row in rows]
        names: tuple[str, ...] = ()
    else:
        files = find_files(path, EXTENSIONS)
        names = by_name(str(label) for _, _, label in files if label is not None)
    options = {"source": "images", "size": size, "mode": mode, "labels": [label for _, _, label in files]}
    return Source(
        partial(_read_files, files, size, mode),
        ("",) * -(-len(files) // FILES),
        identity_of(options, (file for file, _, _ in files)),
        names,
    )


def _read_files(files: list[Listed], size: tuple[int, int] | None, mode: Mode, part: int) -> Iterator[Item]:
    for path, name, label in files[part * FILES : (part + 1) * FILES]:
        try:
            yield Sample(fitted(path.read_bytes(), size, mode), label, {"path": name})
        except FileNotFoundError:
            yield Bad("missing", str(path))
        except OSError as error:
            yield Bad(f"unreadable: {error.strerror}", str(path))
        except BadSample as error:
            yield Bad(str(error), str(path))


def fitted(data: bytes, size: tuple[int, int] | None = None, mode: Mode = "auto") -> np.ndarray:
    """uint8 [h, w] or [h, w, 3] as `decode_picture`, of the size (height, width) if one is given.

    Other images are cropped around the centre to its proportions and scaled by Lanczos with antialiasing; those of
    that size stay bit for bit.
    """
    x = decode_picture(data, mode)
    if size is not None and x.shape[:2] != tuple(size):
        x = np.asarray(ImageOps.fit(Image.fromarray(x), (size[1], size[0]), Image.Resampling.LANCZOS))
    return np.ascontiguousarray(x)
