"""Every source read back bit for bit against what it was made from, and what is wrong with one told in a line."""

from __future__ import annotations

import gzip
import importlib
import json
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from helpers.launching import ROOT
from PIL import Image, ImageOps

from savae_dist.data import Order, Reader, Request, Shards, pack
from savae_dist.data.formats.images import decode_picture
from savae_dist.data.formats.npy import encode_npy
from savae_dist.data.formats.picture_files import read_file
from savae_dist.data.order.permutation import PACK, permutation
from savae_dist.data.packing.packer import Options, pack_source
from savae_dist.data.packing.sources import Source, arrays, idx
from savae_dist.data.packing.sources.base import resolve
from savae_dist.data.packing.sources.columns import Columns
from savae_dist.data.packing.sources.hub import hub
from savae_dist.data.packing.sources.images import images
from savae_dist.data.packing.sources.tables import table
from savae_dist.data.packing.told import DROPPED
from savae_dist.errors import BadSample, ConfigError, DataError
from savae_dist.origin import PictureFiles

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (41, 9, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (41, 9, 7, 3), dtype=np.uint8)
WINDOWS = RNG.standard_normal((41, 2, 33)).astype(np.float32)
Y = np.r_[np.arange(30) % 3, np.full(11, -1)]
TOOL = [sys.executable, str(ROOT / "tools" / "make_shards.py")]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def check_equal(source: Source, out: Path, x: np.ndarray, y: np.ndarray, **options: object) -> Shards:
    """Packed by two processes, the samples come back bit for bit in the order of the seed."""
    made = Options(shard_size=15, block=8, seed=3, **options)
    pack_source(source, out, made, processes=2)
    shards = Shards.open(out)
    batch = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, len(x), range(len(x)))]
    stored = permutation(len(x), 3, PACK)
    assert shards.size == len(x)
    assert batch.x.numpy().tobytes() == x[stored].tobytes()
    assert batch.y.tolist() == y[stored].tolist()
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []  # nothing is left over
    return shards


@pytest.mark.parametrize("layout", ["packed", "samples"])
@pytest.mark.parametrize("x", [GRAY, RGB, WINDOWS, GRAY[..., None]], ids=["gray", "rgb", "windows", "one_channel"])
def test_arrays_make_the_same_bytes_as_in_memory(tmp_path, layout, x):
    np.savez_compressed(tmp_path / "a.npz", x=x, y=Y, class_names=["a", "b", "c"])
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "y.npy", Y)
    given = {"layout": layout, "shard_size": 15, "block": 8, "seed": 3, "rate": 50.0, "class_names": ("a", "b", "c")}
    pack(x, Y, tmp_path / "memory", **given)
    pack_source(arrays(tmp_path / "a.npz"), tmp_path / "npz", Options(**given), processes=2)
    pack_source(arrays(tmp_path / "a.npy", tmp_path / "y.npy"), tmp_path / "npy", Options(**given))
    for kind in ("npz", "npy"):
        made = contents(tmp_path / kind)
        assert b"labels from" in made.pop("notes.csv")  # what was understood of the source
        assert made == contents(tmp_path / "memory")


@pytest.mark.parametrize("count", [2, 7, 12, 30])
def test_a_few_labels_are_kept_of_all_classes_equally(tmp_path, count):
    np.savez(tmp_path / "a.npz", x=GRAY, y=np.r_[np.zeros(20, int), np.ones(6, int), [2] * 4, [-1] * 11])
    y = {}
    for name, seed, processes in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        options = Options(shard_size=15, seed=seed, labelled=count)
        (made,) = pack_source(arrays(tmp_path / "a.npz"), tmp_path / name, options, processes=processes)
        shards = Shards.open(tmp_path / name)
        batch = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, 41, range(41))]
        y[name] = np.empty(41, int)
        y[name][permutation(41, seed, PACK)] = batch.y  # in the order of the source
        assert made["unlabelled"] == 41 - count
    kept = np.unique(y["a"][y["a"] >= 0], return_counts=True)[1].tolist()
    assert sorted(kept) == sorted({2: [1, 1], 7: [2, 2, 3], 12: [4, 4, 4], 30: [20, 6, 4]}[count])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (y["a"] != y["c"]).any() == (count < 30)
    assert (y["a"][y["a"] >= 0] == np.r_[np.zeros(20), np.ones(6), [2] * 4, [-1] * 11][y["a"] >= 0]).all()


def test_labels_that_cannot_be_kept_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=GRAY, y=Y)
    for count, error, words in ((31, DataError, "only 30"), (0, ConfigError, "at least 1")):
        with pytest.raises(error, match=words):
            pack_source(arrays(tmp_path / "a.npz"), tmp_path / "s", Options(labelled=count))
        assert not (tmp_path / "s").exists()


def test_parts_of_npy_are_rows(tmp_path, monkeypatch):
    module = importlib.import_module(
        "savae_dist.data.packing.sources.arrays"
    )  # the package shows the function by this name
    monkeypatch.setattr(module, "ROWS", 6)
    np.save(tmp_path / "a.npy", WINDOWS.astype(np.float64))
    source = arrays(tmp_path / "a.npy")
    assert len(source.splits) == 7
    check_equal(source, tmp_path / "s", WINDOWS, np.full(41, -1))


def test_arrays_that_are_stored_by_columns(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(RGB), y=Y)
    np.save(tmp_path / "a.npy", np.asfortranarray(RGB))
    check_equal(arrays(tmp_path / "a.npz"), tmp_path / "s", RGB, Y)
    check_equal(arrays(tmp_path / "a.npy"), tmp_path / "t", RGB, np.full(41, -1))


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(("code", "x"), [(8, GRAY), (0x0D, WINDOWS[:, 0]), (0x0B, (WINDOWS[:, 1] * 99).round() + 0)])
def test_idx(tmp_path, end, code, x):
    kind = {8: "u1", 0x0D: ">f4", 0x0B: ">i2"}[code]
    for name, array, number in (("images-idx3", x.astype(kind), code), ("labels-idx1", (Y + 1).astype("u1"), 8)):
        data = struct.pack(f">HBB{array.ndim}I", 0, number, array.ndim, *array.shape) + array.tobytes()
        (tmp_path / f"{name}-ubyte{end}").write_bytes(gzip.compress(data) if end else data)
    check_equal(idx(tmp_path / f"images-idx3-ubyte{end}"), tmp_path / "s", x, Y + 1)
    (tmp_path / f"labels-idx1-ubyte{end}").unlink()
    check_equal(idx(tmp_path / f"images-idx3-ubyte{end}"), tmp_path / "t", x, np.full(41, -1))


def test_images_by_folder(tmp_path):
    for i, label in enumerate(Y):
        path = tmp_path / "set" / ("" if label < 0 else ["cat", "dog", "owl"][label]) / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RGB[i]).save(path)
    files = sorted(path.relative_to(tmp_path / "set") for path in (tmp_path / "set").rglob("*.png"))
    order = [int(path.stem) for path in files]
    for layout in ("packed", "samples"):
        shards = check_equal(images(tmp_path / "set"), tmp_path / layout, RGB[order], Y[order], layout=layout)
        assert shards.spec.class_names == ("cat", "dog", "owl")
        read = webdataset.WebDataset(str(tmp_path / layout / "shards-000000.tar"), shardshuffle=False)
        first = json.loads(next(iter(read))["json"])
        expected = files[permutation(41, 3, PACK)[0]].as_posix()
        assert (first["path"] if layout == "samples" else first["path"][0]) == expected


@pytest.mark.parametrize("named", [False, True])
def test_images_by_csv(tmp_path, named):
    rows = ["path,label"]
    for i, label in enumerate(Y):
        Image.fromarray(GRAY[i]).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png," + ("" if label < 0 else "abc"[label] if named else str(label)))
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    shards = check_equal(images(tmp_path / "list.csv"), tmp_path / "s", GRAY, Y)
    assert shards.spec.class_names == (("a", "b", "c") if named else ())


def test_images_that_cannot_be_used_are_counted_and_named(tmp_path):
    for i in range(9):
        Image.fromarray(GRAY[i]).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:60])
    Image.fromarray(GRAY[5][:5]).save(tmp_path / "5.png")
    Image.fromarray(RGB[6]).save(tmp_path / "6.png")
    with pytest.raises(DataError, match=r"shape: 2, undecodable: 2 \(.*2\.png.*--bad-budget 3") as caught:
        pack_source(images(tmp_path), tmp_path / "s", Options(bad_budget=3))
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "s").exists()
    (made,) = pack_source(images(tmp_path), tmp_path / "s", Options(bad_budget=4))
    assert made["samples"] == 5
    assert made["dropped"].startswith("4, shape: 2, undecodable: 2 (")
    lines = (tmp_path / "s" / DROPPED).read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["reason", "undecodable", "undecodable", "shape", "shape"]
    (made,) = pack_source(images(tmp_path, (9, 7), "gray"), tmp_path / "t", Options(bad_budget=2))
    assert made["samples"] == 7


def png(x: np.ndarray) -> bytes:
    if x.ndim == 3:
        x = x[..., [2, 1, 0, 3][: x.shape[2]]]
    return cv2.imencode(".png", x)[1].tobytes()


def saved(image: Image.Image, tmp_path: Path, extension: str, **options: object) -> bytes:
    image.save(tmp_path / f"a.{extension}", **options)
    return (tmp_path / f"a.{extension}").read_bytes()


def test_sixteen_bits_are_scaled(tmp_path):
    deep = np.array([[0, 1, 128, 129, 257, 32768, 65278, 65535]], np.uint16)
    expected = np.round(deep / 257).astype(np.uint8)
    assert (decode_picture(png(deep)) == expected).all()
    assert (decode_picture(saved(Image.fromarray(deep), tmp_path, "tiff")) == expected).all()
    colour = np.stack([deep, deep[:, ::-1], deep // 2], 2)
    assert (decode_picture(png(colour)) == np.round(colour / 257)).all()
    assert (decode_picture(cv2.imencode(".tiff", colour[..., ::-1])[1].tobytes()) == np.round(colour / 257)).all()


def test_alpha_is_composited_on_black(tmp_path):
    x = RNG.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    expected = np.round(x[..., :3] * (x[..., 3:] / 255)).astype(np.uint8)
    assert (decode_picture(png(x)) == expected).all()
    two = np.ascontiguousarray(x[..., 2:])
    gray = decode_picture(saved(Image.fromarray(two, "LA"), tmp_path, "png"))
    assert (gray == np.round(two[..., 0] * (two[..., 1] / 255))).all()
    assert (decode_picture(png(x.astype(np.uint16) * 257)) == expected).all()


def test_palette_and_cmyk_become_rgb(tmp_path):
    palette = Image.fromarray(RGB[0]).quantize(16)
    assert (decode_picture(saved(palette, tmp_path, "png")) == np.asarray(palette.convert("RGB"))).all()
    clear = decode_picture(saved(palette, tmp_path, "png", transparency=0))
    index = np.asarray(palette)
    assert (clear[index == 0] == 0).all()
    assert (clear[index > 0] == np.asarray(palette.convert("RGB"))[index > 0]).all()
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 0] = 255  # cyan
    seen = decode_picture(saved(Image.fromarray(ink, "CMYK"), tmp_path, "jpg", quality=95))
    assert np.abs(seen.astype(int) - [0, 255, 255]).max() <= 3
    bits = Image.fromarray(GRAY[0] > 127)
    assert set(np.unique(decode_picture(saved(bits, tmp_path, "png")))) == {0, 255}
    assert decode_picture(png(GRAY[0]), mode="rgb").shape == (9, 7, 3)
    assert decode_picture(png(RGB[0]), mode="gray").shape == (9, 7)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(RGB[0]), tmp_path, "png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert decode_picture(data).tobytes() == expected.tobytes()


def test_size_crops_and_scales(tmp_path):
    x = np.zeros((20, 60), np.uint8)
    x[:, 8:52] = 200  # the square around the centre is all that is left, and the filter reaches 12 pixels beyond
    assert (read_file(png(x), PictureFiles((5, 5))) == 200).all()
    stripes = np.tile(np.array([0, 255], np.uint8), (40, 20))  # of one pixel: gone after antialiasing
    assert np.abs(read_file(png(stripes), PictureFiles((10, 10))).astype(int) - 127).max() <= 14
    assert read_file(png(GRAY[0]), PictureFiles((9, 7))).tobytes() == GRAY[0].tobytes()
    assert read_file(png(RGB[0]), PictureFiles((4, 6))).shape == (4, 6, 3)


def test_pictures_that_are_none(tmp_path, monkeypatch):
    whole = png(RGB[0])
    floats = saved(Image.fromarray(WINDOWS[0]), tmp_path, "tiff")
    for data, reason in ((b"", "undecodable"), (whole[:50], "undecodable"), (floats, "type F")):
        with pytest.raises(BadSample, match=reason):
            decode_picture(data)
    monkeypatch.setattr("savae_dist.data.formats.headers.MAX_PIXELS", 62)
    with pytest.raises(BadSample, match="too many pixels"):
        decode_picture(whole)


def features(x: object) -> object:
    from datasets import ClassLabel, Features

    return Features({"pixels": x, "kind": ClassLabel(names=["a", "b", "c"])})


def columns_of(kind: str) -> tuple[list[object], np.ndarray]:
    if kind == "encoded":
        return [{"bytes": png(x), "path": None} for x in RGB], RGB
    if kind == "npy":
        return [encode_npy(x) for x in WINDOWS], WINDOWS
    x = GRAY if kind in ("nested", "flat") else WINDOWS
    return [one.reshape(-1).tolist() if kind == "flat" else one.tolist() for one in x], x


@pytest.mark.parametrize("ending", ["parquet", "arrow", "stream"])
@pytest.mark.parametrize("kind", ["encoded", "npy", "nested", "flat", "windows"])
def test_tables(tmp_path, kind, ending):
    values, x = columns_of(kind)
    number = pa.uint8() if kind in ("nested", "flat") else pa.float32()
    types = {"nested": pa.list_(pa.list_(number)), "flat": pa.list_(number), "windows": pa.list_(pa.list_(number, 33))}
    made = pa.table({"x": pa.array(values, types.get(kind)), "label": [None if one < 0 else int(one) for one in Y]})
    path = tmp_path / f"a.{ending.replace('stream', 'arrow')}"
    if ending == "parquet":
        pq.write_table(made, path, row_group_size=10)
    else:
        writer = pa.ipc.new_file if ending == "arrow" else pa.ipc.new_stream
        with writer(str(path), made.schema) as file:
            file.write_table(made, max_chunksize=10)
    source = table(path, Columns(shape=(9, 7) if kind == "flat" else ()))
    assert len(source.splits) == (1 if ending == "stream" else 5)
    check_equal(source, tmp_path / "s", x, Y)


def test_table_with_bad_rows_and_names(tmp_path):
    pixels = [one.tolist() for one in GRAY[:6]]
    pixels[1], pixels[3] = None, [[1, 2], [3]]
    labels = ["red", "blue", "red", None, "", "green"]
    made = pa.table({"pixels": pa.array(pixels, pa.list_(pa.list_(pa.uint8()))), "kind": labels})
    pq.write_table(made, tmp_path / "a.parquet")
    source = table(tmp_path, Columns(x="pixels", y="kind"))
    (summary,) = pack_source(source, tmp_path / "s", Options(bad_budget=2))
    assert "missing: 1, shape: 1" in summary["dropped"]
    assert (summary["names"], summary["counts"], summary["unlabelled"]) == ("green, red", {0: 1, 1: 2}, 1)
    with pytest.raises(ConfigError, match="pixels, kind; name one with --x"):
        table(tmp_path, Columns())
    with pytest.raises(DataError, match="is not among the classes x, y"):
        pack_source(source, tmp_path / "t", Options(bad_budget=2, class_names=("x", "y")))


def test_hub_by_local_files(tmp_path, monkeypatch):
    from datasets import Array2D, Dataset
    from datasets import Image as Picture

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for i, rows in enumerate(np.array_split(np.arange(41), 3)):
        data = {"pixels": [Image.fromarray(x) for x in RGB[rows]], "kind": Y[rows].tolist()}
        Dataset.from_dict(data, features=features(Picture())).to_parquet(tmp_path / f"p{i}.parquet")
        data = {"pixels": list(GRAY[rows]), "kind": Y[rows].tolist()}
        Dataset.from_dict(data, features=features(Array2D((9, 7), "uint8"))).to_parquet(tmp_path / f"q{i}.parquet")
    for letter, x in (("p", RGB), ("q", GRAY)):
        files = [str(tmp_path / f"{letter}{i}.parquet") for i in range(3)]
        source = hub("parquet", Columns(x="pixels", y="kind"), data_files=files)
        assert len(source.splits) == 3
        shards = check_equal(source, tmp_path / f"s{letter}", x, Y)
        assert shards.spec.class_names == ("a", "b", "c")


def test_hub_by_a_folder_of_images(tmp_path):
    for i in range(6):
        path = tmp_path / "set" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RGB[i]).save(path)
    order = [0, 2, 4, 1, 3, 5]
    source = hub(str(tmp_path / "set"), Columns())
    check_equal(source, tmp_path / "s", RGB[order], np.array([0, 0, 0, 1, 1, 1]))
    Image.fromarray(RGB[7]).save(tmp_path / "set" / "a" / "0.png")
    assert hub(str(tmp_path / "set"), Columns()).identity != source.identity  # half-done work is not continued
    with pytest.raises(DataError, match="cannot be streamed"):
        hub(str(tmp_path / "none"), Columns())
    with pytest.raises(DataError, match="cannot be streamed"):
        hub(str(tmp_path / "set"), Columns(), split="nonesuch")


def test_identity_follows_the_files_and_the_options(tmp_path):
    Image.fromarray(GRAY[0]).save(tmp_path / "a.png")
    one = images(tmp_path).identity
    assert images(tmp_path).identity == one
    assert images(tmp_path, (4, 4)).identity != one
    Image.fromarray(GRAY[:2].reshape(18, 7)).save(tmp_path / "a.png")
    assert images(tmp_path).identity != one


def test_labels_are_resolved_alike_everywhere():
    assert resolve([2, 0], ()) == ({2: 2, 0: 0}, ())
    assert resolve(["2", "0"], ()) == ({"2": 2, "0": 0}, ())
    assert resolve(["b", "2"], ()) == ({"b": 1, "2": 0}, ("2", "b"))
    assert resolve(["007", "014"], ()) == ({"007": 0, "014": 1}, ("007", "014"))
    assert resolve(["b", 0], ("a", "b")) == ({"b": 1, 0: 0}, ("a", "b"))
    assert resolve(["5"], ("3", "5")) == ({"5": 1}, ("3", "5"))
    for wrong in ("c", 2, "2"):
        with pytest.raises(DataError, match="not among the classes a, b"):
            resolve([wrong], ("a", "b"))


def broken(tmp_path: Path) -> dict[str, tuple[object, str]]:
    np.savez(tmp_path / "z.npz", z=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", x=np.array([{}], dtype=object))
    np.savez(tmp_path / "y.npz", x=np.zeros((3, 4)), y=np.zeros(2))
    np.savez(tmp_path / "half.npz", x=np.zeros((3, 4)), y=np.full(3, 0.5))
    np.save(tmp_path / "int.npy", np.zeros((3, 4), np.int32))
    np.save(tmp_path / "cut.npy", np.zeros((3, 4)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-8])
    (tmp_path / "idx").write_bytes(b"\0\0\7\1abcd")
    (tmp_path / "list.csv").write_text("file,label\na,1\n")
    (tmp_path / "empty").mkdir()
    return {
        "holds no array x, but z": (arrays, "z.npz"),
        "pickle.npz": (arrays, "pickle.npz"),
        "one label per sample": (arrays, "y.npz"),
        "0.5 is no class": (arrays, "half.npz"),
        "samples are int32 4; give uint8": (arrays, "int.npy"),
        "cut short": (arrays, "cut.npy"),
        "missing or not an .npz": (arrays, "none.npz"),
        "does not begin as an idx": (idx, "idx"),
        "it needs path,label": (images, "list.csv"),
        "neither a folder": (images, "nowhere"),
        "holds no files and none that can be read; convert them to .png": (images, "empty"),
    }


def test_sources_that_cannot_be_read(tmp_path):
    for message, (make, name) in broken(tmp_path).items():
        with pytest.raises(DataError, match=message.replace(".", r"\.")) as caught:
            pack_source(make(tmp_path / name), tmp_path / "s")
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "s").exists()


def test_the_tool_packs_images(tmp_path):
    for i in range(8):
        path = tmp_path / "set" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RGB[i, : 9 - i % 2]).save(path)
    command = [*TOOL, "images", str(tmp_path / "set"), str(tmp_path / "s"), "--size", "6x6", "--processes", "2"]
    done = subprocess.run([*command, "--class-names", "b,a"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for word in ("uint8 [6, 6, 3]", "names  b, a", "samples  8"):
        assert word in done.stdout
    again = subprocess.run(command, capture_output=True, text=True)
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)
