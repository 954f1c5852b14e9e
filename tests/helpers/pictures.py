"""Pictures of every format and size, made here: smooth random ones, as photographs are, and tars of them."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from helpers.tars import Members, tar
from PIL import Image

TURNED = 0x0112  # EXIF's orientation
SIZES = [(30, 41), (48, 33), (24, 24), (37, 60), (25, 29)]


@cache
def photo(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """uint8 [h, w, 3], or [h, w] with one channel: waves of many lengths, whose power falls with their frequency."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    made = np.zeros((height, width, channels))
    for frequency in 2 ** np.linspace(0, 4.5, 24):
        angle, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi, channels)
        wave = 2 * np.pi * frequency * (np.cos(angle) * x + np.sin(angle) * y)
        made += np.sin(wave[..., None] + phase) / frequency
    made = 127.5 + 110 * made / np.abs(made).max()
    made = np.ascontiguousarray(made.round().astype(np.uint8)[..., 0 if channels == 1 else slice(None)])
    made.flags.writeable = False  # it is handed out again
    return made


def saved(x: np.ndarray, kind: str, orientation: int = 1, **options: object) -> bytes:
    """The bytes of an image file. orientation: EXIF's, of which the pixels given are those that a viewer shows."""
    turn = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    exif = Image.Exif()
    exif[TURNED] = orientation
    stream = io.BytesIO()
    more = {"exif": exif} if orientation > 1 else {}
    Image.fromarray(np.ascontiguousarray(np.rot90(x, turn))).save(stream, kind, **options, **more)
    return stream.getvalue()


def deep(x: np.ndarray, kind: str) -> bytes:
    """uint16 [h, w] or [h, w, 3] as `png`, `tiff` or Netpbm's `pgm`, whose white is 4095."""
    if kind == "pgm":
        height, width = x.shape
        return b"P5\n# made\n%d %d\n4095\n" % (width, height) + x.astype(">u2").tobytes()
    done, data = cv2.imencode(f".{kind}", x if x.ndim == 2 else np.ascontiguousarray(x[..., ::-1]))
    assert done
    return data.tobytes()


def mixed(n: int, first: int = 0) -> Members:
    """`n` JPEGs of several sizes, every fifth of them gray and every seventh turned, in three classes."""
    members: Members = []
    for i in range(first, first + n):
        x = photo(*SIZES[i % len(SIZES)], seed=i, channels=1 if i % 5 == 4 else 3)
        members.append((f"k{i:03d}.jpg", saved(x, "jpeg", orientation=6 if i % 7 == 3 else 1, quality=92)))
        members.append((f"k{i:03d}.cls", b"%d" % (i % 3)))
    return members


def mixed_tars(folder: Path, n: int = 60, shards: int = 3) -> Path:
    """Tars as other writers make them, without an index."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        part = n // shards
        (folder / f"s-{shard}.tar").write_bytes(tar([*mixed(part, shard * part)]))
    return folder
