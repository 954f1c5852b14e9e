"""Small tars of images, as other writers make them, and the pieces to damage them with."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections import Counter

import cv2
import numpy as np
from PIL import Image

from savae_dist.data import Order, Reader, Request, Shards
from savae_dist.data.formats.npy import encode_image

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (12, 6, 5), dtype=np.uint8)
Y = np.arange(12) % 3
Members = list[tuple[str, bytes]]


ALL = list(range(12))


def sample(i: int, key: str = "", label: bytes | None = None) -> Members:
    key = key or f"k{i:02d}"
    return [(f"{key}.png", encode_image(X[i])), (f"{key}.cls", b"%d" % Y[i] if label is None else label)]


def tar(members: list[tuple[str, bytes] | tarfile.TarInfo]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as file:
        for one in members:
            if isinstance(one, tarfile.TarInfo):
                file.addfile(one)
                continue
            info = tarfile.TarInfo(one[0])
            info.size = len(one[1])
            file.addfile(info, io.BytesIO(one[1]))
    return stream.getvalue()


GOOD = [member for i in range(12) for member in sample(i)]
WHOLE = tar(GOOD)


def read(shards: Shards) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """What evaluation keeps: samples, labels, and the reasons of what it drops."""
    batch = Reader(shards, Order.sequential(shards.counts), 10**6)[Request(0, shards.size, range(shards.size))]
    return batch.x.numpy(), batch.y.numpy(), dict(Counter(reason for reason, _, _ in batch.bad))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pictures() -> dict[str, bytes]:
    rgb = Image.fromarray(RNG.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    gray, ink = rgb.convert("L"), rgb.convert("CMYK")
    clear = rgb.copy()
    clear.putalpha(gray)
    made = {f"{image.mode}-{kind}": saved(image, kind) for image in (rgb, gray) for kind in ("png", "jpeg", "webp")}
    made |= {"cmyk": saved(ink, "jpeg"), "palette": saved(rgb.quantize(20), "png"), "rgba": saved(clear, "png")}
    made |= {"la": saved(clear.convert("LA"), "png"), "rgba-webp": saved(clear, "webp", lossless=True)}
    made |= {"lossless": saved(rgb, "webp", lossless=True), "progressive": saved(rgb, "jpeg", progressive=True)}
    made |= {"keyed": saved(gray, "png", transparency=3), "bits": saved(gray.convert("1"), "png")}
    made |= {"comment": saved(rgb, "jpeg", comment=b"hello"), "icc": saved(rgb, "png", icc_profile=b"none")}
    deep = RNG.integers(0, 65536, (40, 30, 4), dtype=np.uint16)
    for name, x in (("deep", deep[..., 0]), ("deep-rgb", deep[..., :3]), ("deep-rgba", deep)):
        made[name] = cv2.imencode(".png", x)[1].tobytes()
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        made[f"exif{orientation}"] = saved(rgb, ("jpeg", "png", "webp")[orientation % 3], exif=exif)
    return made


PICTURES = pictures()


def npy(header: bytes, values: bytes) -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + values
