"""Batches of photographs brought to one size: by three libraries from the same tars of JPEGs of 300 to 500 pixels."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import numpy as np
import torch
from fsspec.core import url_to_fs
from PIL import Image, ImageOps
from torch import Tensor

from savae_dist.benchmarks.loaders import SHARDS, Batches, read
from savae_dist.data import Shards
from savae_dist.data.index.pictures import Wanted, with_pictures
from savae_dist.data.remote.store import Store
from savae_dist.errors import ConfigError

Place = Path | str  # the folder of the tars, on disk or behind a URL
LEAST, MOST = 300, 500  # pixels of a side
QUALITY = 90
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def smooth(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [h, w, 3]: noise of all scales, whose strength falls with its frequency as that of photographs does."""
    import cv2

    made = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        coarse = rng.normal(size=(2 + (height << octave) // 256, 2 + (width << octave) // 256, 3)).astype(np.float32)
        made += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    made = (made - made.min()) / (made.max() - made.min())
    return (made * 255).round().astype(np.uint8)


def parts(folder: Path, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless random parts, uint8 [h, w, 3], of the pictures in a folder that are large enough."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    pictures = []
    for path in files:
        with Image.open(path) as image:
            if min(image.size) >= LEAST:
                pictures.append(np.asarray(image.convert("RGB")))
    if not pictures:
        raise ConfigError(f"--photos={folder} holds no pictures of {LEAST} pixels or more; name another folder")
    while True:
        x = pictures[rng.integers(len(pictures))]
        height, width = (int(rng.integers(LEAST, min(MOST, side) + 1)) for side in x.shape[:2])
        top, left = (int(rng.integers(side - own + 1)) for side, own in zip(x.shape[:2], (height, width), strict=True))
        yield x[top : top + height, left : left + width]


def make(out: Path, samples: int, photos: Path | None) -> None:
    """Tars of so many JPEGs with labels, as the webdataset library writes them."""
    from webdataset.writer import TarWriter

    rng = np.random.default_rng(0)
    given = parts(photos, rng) if photos is not None else None
    out.mkdir()
    for shard in range(SHARDS):
        with (out / f"{shard}.tar").open("wb") as file, TarWriter(file, encoder=False, compress=False) as tar:
            for number in range(samples // SHARDS):
                height, width = rng.integers(LEAST, MOST + 1, 2).tolist()
                x = next(given) if given is not None else smooth(height, width, rng)
                stream = io.BytesIO()
                Image.fromarray(x).save(stream, "JPEG", quality=QUALITY)
                key, label = f"{shard:03d}-{number:06d}", b"%d" % (number % 10)
                tar.write({"__key__": key, "jpg": stream.getvalue(), "cls": label})


def copied(folder: Path, url: str) -> str:
    """The URL, once the tars and their index lie there."""
    Shards.open(folder)  # makes the index
    filesystem, path = url_to_fs(url)
    for file in sorted(folder.glob("[!.]*")):
        filesystem.put_file(str(file), f"{path}/{file.name}")
    return url


def tars(place: Place) -> list[str]:
    if isinstance(place, Path):
        return [str(path) for path in sorted(place.glob("*.tar"))]
    return [f"{place}/{shard}.tar" for shard in range(SHARDS)]


def sized(place: Place, side: int, store: Store | None = None) -> Shards:
    return with_pictures(Shards.open(place, store), Wanted((side, side)))


def ours(place: Place, side: int, batch: int, workers: int, store: Store | None = None) -> Batches:
    return read(sized(place, side, store), batch, workers)


def fit(image: Image.Image, side: int) -> np.ndarray:
    """The usual way: cropped to a square and resized, here with Pillow's bilinear filter, the faster one of its two."""
    return np.asarray(ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BILINEAR))


def drafted(side: int, data: bytes) -> Image.Image:
    """Decoded at the smallest scale that suffices, which Pillow calls a draft."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (side, side))
    return image


def _in_full(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def _opened(url: str, *_: Any, **__: Any) -> Any:
    """How the webdataset library is to open a URL of a store that it knows no program for."""
    return fsspec.open(url, "rb").open()


def _webdataset(decode: Callable[[bytes], Image.Image], place: Place, side: int, batch: int, workers: int) -> Batches:
    """The library's loader: to_tuple, map_tuple, batched, WebLoader; in stored order, which is its fastest."""
    import webdataset as wds
    from webdataset.gopen import gopen_schemes

    def pixels(data: bytes) -> np.ndarray:
        return fit(decode(data), side)

    urls = tars(place)
    if isinstance(place, str):
        gopen_schemes[urlsplit(place).scheme] = _opened
    samples = wds.WebDataset(urls, shardshuffle=False).repeat().to_tuple("jpg", "cls").map_tuple(pixels, int)
    for values, labels in wds.WebLoader(samples.batched(batch), batch_size=None, num_workers=workers):
        yield torch.as_tensor(np.asarray(values)), torch.as_tensor(labels)


def webdataset(place: Place, side: int, batch: int, workers: int) -> Batches:
    return _webdataset(_in_full, place, side, batch, workers)


def webdataset_draft(place: Place, side: int, batch: int, workers: int) -> Batches:
    return _webdataset(partial(drafted, side), place, side, batch, workers)


def datasets(place: Place, side: int, batch: int, workers: int) -> Batches:
    """`load_dataset` with streaming, through torch's DataLoader."""
    from datasets import load_dataset
    from torch.utils.data import DataLoader

    files = {"train": tars(place)}
    stream = load_dataset("webdataset", data_files=files, split="train", streaming=True)

    def collate(samples: Any) -> tuple[Tensor, Tensor]:
        values = np.stack([fit(one["jpg"], side) for one in samples])
        return torch.from_numpy(values), torch.tensor([one["cls"] for one in samples])

    yield from DataLoader(stream.repeat(None), batch_size=batch, collate_fn=collate, num_workers=workers)


# Its builder gives every file system an argument that those of S3 refuse (datasets 5.2, s3fs 2026).
NOT_FROM_STORES = "datasets, PIL"
OURS, USUAL = "savae_dist", "webdataset, PIL"
READERS: dict[str, Callable[[Place, int, int, int], Batches]] = {
    OURS: ours,
    USUAL: webdataset,
    "webdataset, draft": webdataset_draft,
    NOT_FROM_STORES: datasets,
}


def once(name: str, url: str, side: int, batch: int, batches: int, workers: int) -> float:
    """Seconds for so many batches of a set behind a URL, nothing of which is on this machine."""
    with tempfile.TemporaryDirectory() as cache:
        read = partial(ours, store=Store(Path(cache))) if name == OURS else READERS[name]
        start = time.perf_counter()
        given = read(url, side, batch, workers)
        for _ in range(batches):
            next(given)
        return time.perf_counter() - start
