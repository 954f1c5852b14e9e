"""Broken and hostile input: each kind made here, with the exact count of what it costs; all else is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.tars import ALL, GOOD, PICTURES, RNG, WHOLE, Members, X, Y, chunk, npy, read, sample, saved, tar
from PIL import Image

from savae_dist.data import Order, Reader, Request, Shards, index_set, pack, survey
from savae_dist.data.formats.headers import MAX_PIXELS
from savae_dist.data.formats.images import _pillow, decode_picture
from savae_dist.data.formats.npy import decode, encode_image, encode_npy, npy_header
from savae_dist.data.formats.picture_files import read_file
from savae_dist.errors import BadSample, ConfigError, DataError, UserError
from savae_dist.origin import PictureFiles


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def at(name: str, data: bytes = WHOLE) -> tuple[int, int]:
    """Where the content of a member starts and ends."""
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        info = file.getmember(name)
        return info.offset_data, info.offset_data + info.size


def counts(reasons: dict[str, dict]) -> dict[str, int]:
    return {reason: one["count"] for reason, one in reasons.items()}


def check_counts(
    content: bytes, folder: Path, good: list[int], dropped: dict[str, int], bad: dict[str, int] | None = None
) -> Shards:
    """Indexed and read, `good` of X and Y come out bit for bit, and all else is counted."""
    folder.mkdir(exist_ok=True)
    (folder / "a.tar").write_bytes(content)
    shards = index_set([folder], decode_all=True)
    (shard,) = shards.index["shards"]
    assert (counts(shard["dropped"]), counts(shard["bad"])) == (dropped, bad or {})
    assert shard["count"] == len(good) + sum((bad or {}).values())
    x, y, reasons = read(shards)
    assert reasons == (bad or {})
    assert (x == X[good]).all()
    assert y.tolist() == Y[good].tolist()
    text = "\n".join(survey(shards))
    for reason, one in (shard["dropped"] | shard["bad"]).items():
        assert f"{reason} {one['count']} ({one['keys'][0]}" in text
    return shards


def one_line(caught: pytest.ExceptionInfo[UserError], *words: str) -> None:
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert all(word in message for word in words), message


CUTS: dict[str, tuple[int, list[int], dict[str, int]]] = {
    "inside a member": (at("k07.png")[0] + 20, ALL[:7], {"truncated": 1}),
    "inside a label": (at("k07.cls")[0], ALL[:7], {"truncated": 1}),
    "inside a header": (at("k07.png")[0] - 300, ALL[:7], {"truncated": 1}),
    "inside the header of a label": (at("k07.cls")[0] - 300, ALL[:7], {"truncated": 1}),
    "inside a name": (at("k07.cls")[0] - 510, ALL[:7], {"truncated": 1}),
    "between sample and label": (at("k07.cls")[0] - 512, ALL[:7], {"truncated": 1}),
    "between samples": (at("k07.png")[0] - 512, ALL[:7], {}),
    "the end blocks": (at("k11.cls")[0] + 512, ALL, {}),
    "one end block": (at("k11.cls")[0] + 1024, ALL, {}),
}


@pytest.mark.parametrize("where", CUTS)
def test_cut_tar_gives_what_is_whole(tmp_path, where):
    size, good, dropped = CUTS[where]
    shards = check_counts(WHOLE[:size], tmp_path / "s", good, dropped)
    assert shards.index["shards"][0]["whole"] == (where == "one end block")
    assert ("without an end 1 (a.tar)" in "\n".join(survey(shards))) == (where != "one end block")


def flipped(position: int, value: int = 1) -> bytes:
    data = bytearray(WHOLE)
    data[position] ^= value
    return bytes(data)


def test_a_damaged_header_costs_its_sample_and_no_more(tmp_path):
    for i, member in enumerate(("k07.png", "k07.cls")):
        header = at(member)[0] - 512
        check_counts(flipped(header + 156), tmp_path / f"t{i}", ALL[:7] + ALL[8:], {"header": 1})
        zeros = WHOLE[:header] + bytes(512) + WHOLE[header + 512 :]
        check_counts(zeros, tmp_path / f"z{i}", ALL[:7] + ALL[8:], {"header": 1})
        grown = WHOLE[:header] + b"unaligned" + WHOLE[header:]
        check_counts(grown, tmp_path / f"g{i}", ALL, {"header": 1})


def packed(folder: Path, windows: bool = False) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A shard of 97 samples in blocks of 16, and the samples in its order."""
    x = RNG.standard_normal((97, 3, 8)).astype(np.float32) if windows else RNG.integers(0, 256, (97, 4, 4), np.uint8)
    pack(x, np.arange(97) % 5, folder, block=16)
    shards = Shards.open(folder)
    x, y, _ = read(shards)
    return shards.path(0).read_bytes(), x, y


@pytest.mark.parametrize("windows", [False, True])
def test_cut_tar_of_blocks(tmp_path, windows):
    content, x, y = packed(tmp_path / "whole", windows)
    block, labels = at("000000-000003.x.npy", content), at("000000-000003.y.npy", content)
    first = at("000000-000003.json", content)[0] - 512
    for i, (size, lost) in enumerate([(block[1] - 5, 16), (labels[0] + 9, 16), (block[0] + 9, 1), (first, 0)]):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "a.tar").write_bytes(content[:size])
        shards = index_set([folder])
        assert counts(shards.index["shards"][0]["dropped"]) == ({"truncated": lost} if lost else {})
        got = read(shards)
        assert (got[0] == x[:48]).all()
        assert (got[1] == y[:48]).all()


@pytest.mark.parametrize("layout", ["packed", "samples"])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_cut_after_it_was_indexed(tmp_path, capsys, layout, cache):
    x = RNG.integers(0, 256, (97, 4, 4), dtype=np.uint8)
    pack(x, np.arange(97) % 5, tmp_path / "s", layout=layout, shard_size=49, block=16)
    before, labels, _ = read(Shards.open(tmp_path / "s"))
    path = tmp_path / "s" / "shards-000001.tar"
    whole = path.read_bytes()
    table = Shards.open(tmp_path / "s").samples(1)
    for size in (int(table["offset"][20]) + 3, 700, 1, 0):
        path.write_bytes(whole[:size])
        shards = Shards.open(tmp_path / "s")
        assert len(capsys.readouterr().err.splitlines()) == 1
        keep = np.r_[np.full(49, True), table["offset"] + table["size"] <= size]
        reader = Reader(shards, Order.sequential(shards.counts), 97, cache)
        batch = reader[Request(0, 97, range(97))]
        assert dict(Counter(reason for reason, _, _ in batch.bad)) == {"truncated": int((~keep).sum())}
        assert (batch.x.numpy() == before[keep]).all()
        assert (batch.y.numpy() == labels[keep]).all()
    drawn = Reader(shards, Order(shards.counts, 0, 1, 9), 97, cache)[Request(0, 97, range(97))]
    assert len(drawn.y) == 97  # others take their place
    assert (drawn.id < 49).all()
    with pytest.raises(DataError, match=r"truncated: .*bad_budget=3"):
        Reader(shards, Order(shards.counts, 0, 1, 9), 3, cache)[Request(0, 97, range(97))]


def png_claiming(width: int, height: int, kind: int = 0, depth: int = 8, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def jpeg_claiming(width: int, height: int, **options: object) -> bytes:
    data = bytearray(saved(Image.fromarray(X[0]), "jpeg", **options))
    frame = next(data.find(bytes([0xFF, mark])) for mark in (0xC0, 0xC2) if bytes([0xFF, mark]) in data)
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_claiming(kind: bytes) -> bytes:
    if kind == b"VP8X":
        body = bytes(4) + (99999).to_bytes(3, "little") * 2
    elif kind == b"VP8L":
        body = b"\x2f" + (16383 | 16383 << 14).to_bytes(4, "little") + bytes(20)
    else:
        body = b"\x10\2\0\x9d\1\x2a" + struct.pack("<HH", 16383, 16383) + bytes(20)
    body = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


BOMBS = {
    "png": png_claiming(50_000, 50_000),
    "png.largest": png_claiming(2**31 - 1, 2**31 - 1, 2),
    "png.palette": png_claiming(50_000, 50_000, 3, extra=chunk(b"PLTE", bytes(3))),
    "png.deep": png_claiming(50_000, 50_000, 2, 16),
    "png.just": png_claiming(8193, 8192, 6),
    "jpg": jpeg_claiming(65_500, 65_500),
    "jpg.progressive": jpeg_claiming(65_500, 65_500, progressive=True),
    "jpg.exif": jpeg_claiming(65_500, 65_500, exif=Image.Exif().tobytes() + b"x"),
    "webp": webp_claiming(b"VP8 "),
    "webp.lossless": webp_claiming(b"VP8L"),
    "webp.extended": webp_claiming(b"VP8X"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_header(monkeypatch, name):
    def decoded(*_: object) -> None:
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(cv2, "imdecode", decoded)
    monkeypatch.setattr(Image.Image, "load", decoded)
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", decoded)
    for size in (None, (6, 5)):
        with pytest.raises(BadSample, match="too many pixels"):
            decode_picture(BOMBS[name], size=size)
    with pytest.raises(BadSample, match="too many pixels"):
        decode(BOMBS[name], (6, 5), np.dtype(np.uint8))


def test_a_wrong_size_is_refused_by_the_header_too(monkeypatch):
    calls: list[object] = []
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(Image.Image, "load", lambda *arguments: calls.append(arguments))
    for data in (png_claiming(8000, 8000), png_claiming(8000, 8000, 3, extra=chunk(b"PLTE", bytes(3)))):
        with pytest.raises(BadSample, match="shape"):
            decode(data, (6, 5))
    assert calls == []
    assert MAX_PIXELS >= 8000 * 8000


def alpha(i: int, opaque: int = 255) -> bytes:
    return saved(Image.merge("LA", (Image.fromarray(X[i]), Image.new("L", (5, 6), opaque))), "png")


def test_images_of_every_sort_in_one_shard(tmp_path):
    image = Image.fromarray(X[0])
    turned = Image.Exif()
    turned[0x0112] = 6
    bad: Members = [
        *((f"bomb{i}.{name}", data) for i, (name, data) in enumerate(BOMBS.items()) if "." not in name),
        ("text.png", b"no image"),
        ("empty.png", b""),
        ("half.png", encode_image(X[0])[:-30]),
        ("halfjpg.jpg", saved(image, "jpeg")[:-40]),
        ("halfwebp.webp", saved(image, "webp")[:-10]),
        ("frames.gif", saved(image, "gif", save_all=True, append_images=[Image.fromarray(X[1])])),
        ("pages.tif", saved(image, "tiff", save_all=True, append_images=[Image.fromarray(X[1])] * 2)),
        ("wide.png", encode_image(np.zeros((5, 6), np.uint8))),
        ("window.npy", encode_npy(np.zeros(5, np.float32))),
        ("volume.npy", encode_npy(np.zeros((6, 5, 2), np.uint8))),
    ]
    good: Members = [
        ("deep.png", cv2.imencode(".png", X[1].astype(np.uint16) * 257 + 3)[1].tobytes()),
        ("alpha.png", alpha(2)),
        ("palette.png", saved(Image.fromarray(X[3]).quantize(256), "png")),
        ("turned.png", saved(Image.fromarray(np.rot90(X[4])), "png", exif=turned)),
        ("array.npy", encode_npy(X[5])),
        ("jpeg.png", saved(image, "png")),
        ("bitmap.bmp", saved(Image.fromarray(X[6]), "bmp")),
        ("tiff.tif", saved(Image.fromarray(X[7]), "tiff")),
        ("netpbm.pgm", saved(Image.fromarray(X[8]), "ppm")),
        ("gif.png", saved(image, "gif")),
    ]
    expected = {"too many pixels": 3, "undecodable": 5, "dtype": 1, "2 frames": 1, "3 pages": 1}
    members = [*sample(0), *bad, *good]
    (tmp_path / "a.tar").write_bytes(tar(members))
    shards = index_set([tmp_path], decode_all=True)
    assert counts(shards.index["shards"][0]["bad"]) == expected
    x, _, reasons = read(shards)
    assert reasons == expected | {"shape": 2}  # a run may make one size of them, so to the index they are not bad
    assert (x == X[[0, 1, 2, 3, 4, 5, 0, 6, 7, 8, 0]]).all()


@pytest.mark.parametrize("name", PICTURES)
def test_reading_foreign_shards_decodes_as_packing_does(tmp_path, name):
    data = PICTURES[name]
    expected = read_file(data, PictureFiles())
    assert (decode(data) == expected).all()
    assert decode(data, expected.shape, np.dtype(np.uint8)).tobytes() == expected.tobytes()
    # Fast or slow, the same pixels: what OpenCV is trusted with, Pillow decodes alike.
    assert _pillow(data, None, ("PNG", "JPEG", "WEBP"), 8).tobytes() == expected.tobytes()
    shape = expected.shape[:2]
    assert (decode(data, shape) == read_file(data, PictureFiles(mode="gray"))).all()
    assert (decode(data, (*shape, 3)) == read_file(data, PictureFiles(mode="rgb"))).all()


LABELS = {
    "2": 2, " 2\n": 2, "-1": -1, "0": 0, "007": 7, "-2": -2, "1000000000000": -2, str(1 << 20): -2, "": -2, "cat": -2,
    "1.0": 1, "\ufeff2": 2, "4.": 4, "1e3": -2, "1.5": -2, "nan": -2, "\u0661": -2, "1" + " " * 80: 1, "0x1": -2,
    "1 2": -2, "\0": -2, "1" + " " * 2000: -2,
}  # fmt: skip


def test_labels(tmp_path):
    members = [(f"k{i}.{end}", data) for i, text in enumerate(LABELS) for end, data in zip(
        ("png", "cls"), (encode_image(X[i % 12]), text.encode()))]  # fmt: skip
    members += [("none.png", encode_image(X[0]))]
    (tmp_path / "a.tar").write_bytes(tar(members))
    shards = index_set([tmp_path / "a.tar"])
    assert shards.all_labels().tolist() == [*LABELS.values(), -1]
    wrong = list(LABELS.values()).count(-2)
    label = shards.index["shards"][0]["bad"]["label"]
    assert (label["count"], label["keys"][:4], label["found"]) == (wrong, ["k5", "k6", "k7", "k8"], "-2")
    assert (shards.spec.classes, shards.label_counts[-1]) == (8, 2)
    assert "3 names (cat, 0x1, 1 2) among 8 numbers" in survey(shards)[4]
    _, y, reasons = read(shards)
    assert reasons == {"label": wrong}
    assert y.tolist() == [label for label in LABELS.values() if label >= -1] + [-1]
    named = index_set([tmp_path / "a.tar"], class_names=["a", "b", "c"])  # 7 and 4 are none of them
    assert named.spec.classes == 3
    assert counts(named.index["shards"][0]["bad"]) == {"label": wrong + 2}


@pytest.mark.parametrize("dtype", ["<i8", ">i4", "u1", "<u8"])
def test_labels_of_blocks(tmp_path, dtype):
    y = np.array([0, 3, 1 << 20, 2**63 + 5 if dtype == "<u8" else -7, 2**64 - 1 if dtype == "<u8" else -1])
    if dtype == "u1":
        y = np.array([0, 3, 200, 255, 1])
    y = y.astype(dtype) if dtype != "<u8" else np.array([0, 3, 1 << 20, 2**63 + 5, 2**64 - 1], np.uint64)
    blocks = [("b0.x.npy", encode_npy(X[:5])), ("b0.y.npy", encode_npy(y))]
    blocks += [("b1.x.npy", encode_npy(X[5:9])), ("b1.y.npy", encode_npy(np.zeros(3, np.int64)))]
    blocks += [("b2.x.npy", encode_npy(X[5:9])), ("b2.y.npy", encode_npy(np.full(4, 0.5)))]
    blocks += [("b3.x.npy", encode_npy(X[9:]))]
    (tmp_path / "a.tar").write_bytes(tar(blocks))
    shards = index_set([tmp_path / "a.tar"])
    wanted = [int(one) if -1 <= int(one) < 1 << 20 else -2 for one in y.tolist()]
    assert shards.all_labels().tolist() == [*wanted, -1, -1, -1]
    assert counts(shards.index["shards"][0]["dropped"]) == {"label": 8}
    assert counts(shards.index["shards"][0]["bad"]) == ({"label": wanted.count(-2)} if -2 in wanted else {})


def windows() -> dict[str, tuple[bytes, str]]:
    """Members of a set of float32 windows [2, 9], and why they are bad."""
    x = RNG.standard_normal((2, 9)).astype(np.float32)
    values = {name: x.copy() for name in ("nan", "inf", "minus")}
    values["nan"][1, 3], values["inf"][0, 0], values["minus"][0, 1] = np.nan, np.inf, -np.inf
    good = encode_npy(x)
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}, print], dtype=object), allow_pickle=True)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }"
    claims = {
        "huge": b"9223372036854775807, 4294967297", "wraps": b"4611686018427387904, 36, 4", "negative": b"-2, -9",
        "nested": b"(" * 150 + b")" * 150,
    }  # fmt: skip
    made = {name: (encode_npy(one), "finite") for name, one in values.items()}
    made |= {"overflow": (encode_npy(np.full((2, 9), 1e300)), "finite")}
    made |= {"short": (encode_npy(x[:, :8]), "shape"), "turned": (encode_npy(x.T), "shape")}
    made |= {"flat": (encode_npy(x.ravel()), "shape"), "scalar": (encode_npy(x[0, 0]), "shape")}
    made |= {"pixels": (encode_npy(np.zeros((2, 9), np.uint8)), "dtype"), "complex": (encode_npy(x * 1j), "dtype")}
    made |= {"int64": (encode_npy(np.zeros((2, 9), np.int64)), "dtype"), "object": (objects.getvalue(), "undecodable")}
    made |= {"text": (encode_npy(np.array(["a"])), "undecodable"), "cut": (good[:-3], "undecodable")}
    made |= {"more": (good + b"x", "undecodable"), "head": (good[:50], "undecodable"), "none": (b"", "dtype")}
    made |= {"columns": (good.replace(b"False", b"True "), "undecodable"), "image": (encode_image(X[0]), "dtype")}
    for name, shape in claims.items():
        made[name] = (npy(header % shape, x.tobytes()), "undecodable")
    return made


def test_windows(tmp_path):
    made = windows()
    good = RNG.standard_normal((3, 2, 9)).astype(np.float32)
    members = [(f"good{i}.npy", encode_npy(one)) for i, one in enumerate(good)]
    members[1:1] = [(f"{name}.npy", data) for name, (data, _) in made.items()]
    (tmp_path / "a.tar").write_bytes(tar(members))
    shards = index_set([tmp_path / "a.tar"])  # windows are decoded for the statistics: all is known
    expected = dict(Counter(reason for _, reason in made.values()))
    assert counts(shards.index["shards"][0]["bad"]) == expected
    x, _, reasons = read(shards)
    assert reasons == expected
    assert (x == good).all()
    np.testing.assert_allclose(shards.index["statistics"]["mean"], good.mean((0, 2), np.float64), rtol=1e-6)


def test_windows_of_blocks(tmp_path):
    x = RNG.standard_normal((8, 9)).astype(np.float32)
    x[2, 3], x[5, 0] = np.nan, np.inf
    blocks: Members = [("a.x.npy", encode_npy(x)), ("b.x.npy", encode_npy(x[:, :8])), ("c.x.npy", b"none")]
    blocks += [("d.x.npy", encode_npy(x.astype(np.float64))), ("e.x.npy", encode_npy(x)[:-4])]
    blocks += [("f.x.npy", encode_npy(x[:0])), ("g.x.npy", encode_npy(x[0, 0]))]
    (tmp_path / "a.tar").write_bytes(tar(blocks))
    shards = index_set([tmp_path / "a.tar"])
    (shard,) = shards.index["shards"]
    assert counts(shard["dropped"]) == {"shape": 9, "undecodable": 9, "dtype": 8}
    assert shard["bad"] == {"finite": {"count": 2, "keys": ["a[2]", "a[5]"]}}
    got = read(shards)
    assert (got[0] == x[[0, 1, 3, 4, 6, 7]]).all()
    assert got[2] == {"finite": 2}


def test_duplicate_keys(tmp_path):
    """Of a key's members the first of each name are used; members may stand apart; shards do not share keys."""
    twice = [*GOOD, *sample(3, "k05"), ("k06.cls", b"0"), *sample(4, "k05")]
    shards = check_counts(tar(twice), tmp_path / "twice", ALL, {"duplicate": 3})
    assert shards.index["shards"][0]["dropped"]["duplicate"]["keys"] == ["k05", "k06"]
    apart = [member for member in GOOD if member[0].endswith("png")] + [one for one in GOOD if one[0].endswith("cls")]
    check_counts(tar(apart), tmp_path / "apart", ALL, {})
    for name in ("a", "b"):
        (tmp_path / f"{name}.tar").write_bytes(WHOLE)
    both = index_set([tmp_path / "a.tar", tmp_path / "b.tar"])
    assert both.size == 24
    assert [one["dropped"] for one in both.index["shards"]] == [{}, {}]


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_members_that_are_no_plain_files(tmp_path):
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
    odd = [special(f"odd{i}.png", kind, "/etc/passwd") for i, kind in enumerate(kinds)]
    odd += [("link.png", encode_image(X[0])), special("link.cls", tarfile.SYMTYPE, "k00.cls")]
    odd += [
        special("folder", tarfile.DIRTYPE),
        special("latest", tarfile.SYMTYPE, "x"),
        (".hidden.png", b"x"),
        ("x/._k.png", b"x"),
    ]
    check_counts(tar([*GOOD, *odd]), tmp_path / "s", ALL, {"not a file": 6})


def test_names(tmp_path):
    names = ["/etc/a", "../b", "x/../../c", "/../d", "..", "x/.."]
    wild: list[str] = [
        "./dot",
        "a//b",
        "{0,9}",
        "$(touch x)",
        "; rm -rf ~",
        "tab\tnew\nline\x1b[2J",
        "\u202egnp",
        "b\udcff",
        "pipe:x",
    ]
    members = [*GOOD, *(one for name in names for one in sample(0, name)), ("n" * 400 + "/k.png", encode_image(X[1]))]
    members += [one for name in wild for one in sample(2, name)]
    shards = check_counts(
        tar([*members, ("n" * 400 + "/k.cls", b"1")]), tmp_path / "s", [*ALL, 1, *[2] * len(wild)], {"name": 4}
    )
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "a.forms.npy", "a.idx.npy", "a.tar", "index.json", "labels.npy"
    ]  # fmt: skip
    keys = shards.index["shards"][0]["dropped"]["name"]["keys"]
    assert keys == ["/etc/a", "../b", "x/../../c", "/../d"]


def test_messages_are_printable_whatever_the_key(tmp_path):
    key = "tab\tnew\nline\x1b[2J\udcff\u202e"
    shards = check_counts(tar([*GOOD, *sample(1, key, b"x")]), tmp_path / "s", ALL, {}, {"label": 1})
    batch = Reader(shards, Order.sequential(shards.counts), 9)[Request(0, 13, range(13))]
    for text in (*survey(shards), batch.bad[0][2]):
        assert text.isprintable()
        assert text.encode()
    with pytest.raises(DataError) as caught:
        read_strictly(shards)
    one_line(caught, r"new\nline\x1b[2J")


def read_strictly(shards: Shards) -> None:
    Reader(shards, Order.sequential(shards.counts), 0)[Request(0, shards.size, range(shards.size))]


def test_pickles_and_other_members_are_not_even_read(tmp_path):
    extra = [
        (f"p{i}.{end}", b"cos\nsystem\n(S'touch x'\ntR.") for i, end in enumerate(("pkl", "pth", "pyd", "pt", "py"))
    ]
    beside = [(f"k{i:02d}.{end}", b"\x80\4.") for i, end in enumerate(("pkl", "pth", "pyd", "json", "txt", "npz"))]
    shards = check_counts(tar([*GOOD, *extra, *beside]), tmp_path / "s", ALL, {"no sample": 5})
    assert shards.index["shards"][0]["dropped"]["no sample"]["keys"] == ["p0", "p1", "p2", "p3", "p4"]


COMMANDS = ["pipe:touch x", "PIPE:cat a.tar", " pipe:echo", "cat a.tar |", "|cat", ["a.tar", "pipe:touch x"]]


@pytest.mark.parametrize("source", COMMANDS, ids=str)
def test_commands_are_refused_and_never_run(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        Shards.open(source)
    one_line(caught, "never run")
    for wild in ("$(touch x)", "`touch x`", "a.tar; touch x", "a && touch x", "file:///etc/passwd"):
        with pytest.raises(UserError) as caught:
            Shards.open(wild)
        one_line(caught)
    assert list(tmp_path.iterdir()) == []


def test_empty_shards(tmp_path):
    """No bytes or only end blocks: no samples. Beside others they cost nothing, alone there is no set."""
    empty = {"zero": b"", "ends": bytes(1024), "record": bytes(10240)}
    for name, content in empty.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.tar").write_bytes(content)
        with pytest.raises(DataError) as caught:
            Shards.open(tmp_path / name)
        one_line(caught, "no sample that can be read")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for i, content in enumerate([*empty.values(), WHOLE, *empty.values(), WHOLE]):
        (mixed / f"{i}.tar").write_bytes(content)
    shards = Shards.open(mixed)
    assert shards.counts.tolist() == [0, 0, 0, 12, 0, 0, 0, 12]
    assert [one["whole"] for one in shards.index["shards"]] == [False, True, True, True, False, True, True, True]
    assert (read(shards)[0] == X[ALL * 2]).all()
    order = Order(shards.counts, 0, 8, 2)
    batch = Reader(shards, order, 0)[Request(0, 100, range(100))]  # more than there are: the order goes round
    assert sorted(Counter(batch.id.tolist()[:96]).items()) == [(i, 4) for i in range(24)]


def test_compressed_and_other_files_are_refused(tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", encode_image(X[0]))
    files = {"gzip": gzip.compress(WHOLE), "bzip2": bz2.compress(WHOLE), "xz": lzma.compress(WHOLE)}
    files |= {"zip": archive.getvalue(), "zstandard": b"\x28\xb5\x2f\xfd" + bytes(600)}
    files |= {"no tar": b"<html>404</html>" * 100, "is no tar": RNG.bytes(10_000), "begin": WHOLE[:300]}
    for word, content in files.items():
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(DataError) as caught:
            Shards.open(tmp_path / "a.tar")
        one_line(caught, word, "a.tar")
    (tmp_path / "PK.tar").write_bytes(tar(sample(0, "PK")))  # a tar whose first name begins as a zip does
    assert Shards.open(tmp_path / "PK.tar").size == 1


def numbered(kind: bytes, size: int) -> bytes:
    """A header of any type and size with the right checksum."""
    info = tarfile.TarInfo("odd.png")
    info.type, info.size = kind, 0
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    head[124:136] = size.to_bytes(12, "big", signed=True)
    head[124] |= 0x80
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


@pytest.mark.parametrize("size", [-512, -1, -(2**60), 2**60, 2**90])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, b"9"])
def test_sizes_that_lead_nowhere_end_nothing(tmp_path, kind, size):
    at_seven = at("k07.png")[0] - 512
    content = WHOLE[:at_seven] + numbered(kind, size) + WHOLE[at_seven:]
    (tmp_path / "a.tar").write_bytes(content)
    shards = index_set([tmp_path])
    assert (read(shards)[0] == X).all()
    assert sum(counts(shards.index["shards"][0]["dropped"]).values()) == 1


@pytest.mark.parametrize(
    "records",
    [b"99 path=x\n", b"path=x\n", b"5 a=\n" * 100_000, b"14 size=-512\n", b"\xff" * 300, b"11 size=1e9\n"],
)
def test_attributes_that_cannot_be_read(tmp_path, records):
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    head = info.tobuf(tarfile.USTAR_FORMAT)[:512] + records + bytes(-len(records) % 512)
    at_seven = at("k07.png")[0] - 512
    whole = records.startswith(b"5")
    dropped = {} if whole else {"header": 1}
    check_counts(
        WHOLE[:at_seven] + head + WHOLE[at_seven:], tmp_path / "s", ALL if whole else ALL[:7] + ALL[8:], dropped
    )


def test_header_of_an_array_takes_only_plain_ones():
    for array in (np.zeros((2, 3), ">i2"), np.zeros((), "?"), np.zeros((0, 4)), np.zeros(5, "<c16")):
        dtype, shape, start = npy_header(encode_npy(array))
        assert (dtype, shape) == (array.dtype, np.ascontiguousarray(array).shape)
        assert start % 64 == 0
    for version in ((1, 0), (2, 0), (3, 0)):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, X[0], version)
        assert npy_header(stream.getvalue())[:2] == (np.dtype(np.uint8), (6, 5))
    plain = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"
    assert npy_header(npy(plain, bytes(4)))[1] == (1,)
    for wrong in (b"|O", b"<f3", b"<U4", b"<M8", b"<V4", b"f4,f4"):
        with pytest.raises(ValueError):
            npy_header(npy(plain.replace(b"<f4", wrong), bytes(4)))
