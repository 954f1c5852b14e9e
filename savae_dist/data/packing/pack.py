"""Arrays to shards: shuffled once, written by webdataset's TarWriter, the same bytes each time, then indexed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from savae_dist.data.formats.npy import encode_image, encode_npy
from savae_dist.data.index.shards import Shards
from savae_dist.data.index.tables import build_index
from savae_dist.data.order.permutation import PACK, permutation
from savae_dist.errors import ConfigError, DataError, SaveError
from savae_dist.files import draft_of, publish, remove_replaced

Rows = tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]  # x, y and the attributes of some samples
OF_A_SET = ("samples", "shards", "bytes", "counts", "unlabelled")  # shown for every set, even if two sets agree


def pack(
    x: np.ndarray,
    y: np.ndarray,
    out: str | os.PathLike[str],
    *,
    layout: Literal["packed", "samples"] = "packed",
    shard_size: int = 8192,
    block: int = 256,
    seed: int = 0,
    class_names: Sequence[str] = (),
    rate: float = 0.0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the folder `out` of shards and index, and return its summary.

    x: uint8 images [n, h, w] or [n, h, w, c], or float32 windows [n, length] or [n, channels, length].
    y: [n] integers, -1 where unlabelled. shard_size, block: samples per shard (at most) and per block.
    rate: sampling rate in Hz, 0 if unknown. The folder appears under its name only when it is whole.
    """
    out = Path(out).absolute()
    x, y = check_arrays(x, y, layout, class_names)
    check_options(layout, shard_size, block, seed)
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        raise ConfigError(f"{out} exists and is not empty; name another folder or pass --overwrite")

    def take(rows: np.ndarray) -> Rows:
        return x[rows], y[rows], [{}] * len(rows)

    with _appearing(out) as partial:
        paths = []
        for number, rows in enumerate(np.array_split(permutation(len(x), seed, PACK), -(-len(x) // shard_size))):
            paths.append(partial / f"shards-{number:06d}.tar")
            write_tar(paths[-1], number, entries_of(take, rows, layout, block, rate))
        build_index(paths, partial, class_names, rate)
    return summary(Shards.open(out))


def check_options(layout: str, shard_size: int, block: int, seed: int) -> None:
    if min(shard_size, block) < 1 or layout not in ("packed", "samples") or seed < 0:
        raise ConfigError("shard_size and block must be at least 1, seed at least 0, layout packed or samples")


def check_arrays(x: np.ndarray, y: np.ndarray, layout: str, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The arrays as they are stored, or DataError."""
    dims = {"uint8": (3, 4), "float32": (2, 3)}.get(x.dtype.name, ())
    if x.ndim not in dims or not x.size:
        raise DataError(f"x is {x.dtype} {x.shape}; give uint8 images [n, h, w(, c)] or float32 windows [n, (c,) l]")
    if x.ndim == 4 and x.shape[3] == 1:
        x = x[..., 0]
    if x.ndim == 4 and layout == "samples" and x.shape[3] != 3:
        raise DataError(f"PNG members hold 1 or 3 channels, not {x.shape[3]}; use --layout packed")
    if x.dtype == np.float32 and not np.isfinite(x).all():
        raise DataError("x holds values that are not finite; remove those windows")
    if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        raise DataError(f"y is {y.dtype} {y.shape}; give one integer per sample of x ({len(x)}), -1 where unlabelled")
    y = y.astype(np.int64)
    if y.min() < -1 or (names and y.max() >= len(names)):
        raise DataError(f"y goes from {y.min()} to {y.max()}; labels are 0 .. classes - 1, or -1 where unlabelled")
    return x, y


def entries_of(
    take: Callable[[np.ndarray], Rows], rows: np.ndarray, layout: str, block: int, rate: float
) -> Iterator[dict[str, bytes]]:
    """The members of one shard; `take` gives the samples of some rows, a block of them at a time."""
    for start in range(0, len(rows), block):
        here = rows[start : start + block]
        x, y, attributes = take(here)
        if layout == "samples":
            yield from _samples(x, y, attributes)
            continue
        columns: dict[str, list[Any]] = {"row": here.tolist()}  # row number in the source
        if rate:
            columns["rate"] = [rate] * len(here)
        # Every attribute of any sample in the block gets a column; it is null for samples without it.
        for name in dict.fromkeys(name for one in attributes for name in one):
            columns[name] = [one.get(name) for one in attributes]
        yield {"x.npy": encode_npy(x), "y.npy": encode_npy(y), "json": encode_json(columns)}


def _samples(x: np.ndarray, y: np.ndarray, attributes: list[dict[str, Any]]) -> Iterator[dict[str, bytes]]:
    for one, label, kept in zip(x, y.tolist(), attributes, strict=True):
        data = {"png": encode_image(one)} if x.dtype == np.uint8 else {"npy": encode_npy(one)}
        yield {**data, "cls": str(label).encode(), **({"json": encode_json(kept)} if kept else {})}


def encode_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def write_tar(path: Path, shard: int, entries: Iterator[dict[str, bytes]]) -> None:
    from webdataset.writer import TarWriter  # here: it takes a second to import, and training never writes

    # mtime as an integer: a float costs a pax header per member, and the time of day makes every run differ.
    with path.open("wb") as file, TarWriter(file, mtime=0, encoder=False, compress=False) as tar:
        for number, entry in enumerate(entries):
            tar.write({"__key__": f"{shard:06d}-{number:06d}", **entry})


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A folder to fill, renamed to `out` once it is whole; what stood there goes then. A failure leaves nothing."""
    partial = draft_of(out)
    try:
        partial.mkdir(parents=True)
        yield partial
        publish(partial, out)
        remove_replaced(out)
    except OSError as error:
        raise SaveError(f"{out} cannot be written ({error}); free some space or name another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def summary(shards: Shards) -> dict[str, Any]:
    """What a set holds, in words and numbers that fit on a screen."""
    counts = {label: n for label, n in sorted(shards.label_counts.items()) if label >= 0}
    result: dict[str, Any] = {
        "folder": str(shards.home),
        "kind": shards.spec.kind,
        "layout": shards.index["layout"],
        "samples": shards.size,
        "shards": len(shards.counts),
        "bytes": sum(one["bytes"] for one in shards.index["shards"]),
        "stored": f"{shards.stored_dtype} {list(shards.stored_shape)}",
        "classes": shards.spec.classes,
        "counts": counts,
        "unlabelled": shards.label_counts.get(-1, 0),
    }
    if shards.spec.class_names:
        result["names"] = ", ".join(shards.spec.class_names)
    if shards.index["statistics"]:
        result |= shards.index["statistics"] | {"rate": shards.spec.rate}
    return result


def in_words(summaries: Sequence[dict[str, Any]]) -> str:
    """The summary of one set, a fact a line; of several, what they have in common once, and then a line for each."""
    if len(summaries) == 1:
        return _facts(summaries[0])
    first, *others = summaries
    common = {
        name: value
        for name, value in first.items()
        if name not in OF_A_SET and all(one.get(name) == value for one in others)
    }
    sets = {}
    for one in summaries:
        own = [f"{name} {value}" for name, value in one.items() if name not in ("folder", *common)]
        sets[Path(one["folder"]).name] = "  ".join(own)
    return _facts({"folder": Path(first["folder"]).parent, **common, **sets})


def _facts(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name:>12}  {value}" for name, value in values.items())
