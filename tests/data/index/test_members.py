"""Members of other writers' tars: which are used, what is said of the others, and what their loss counts."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest
from helpers.tars import ALL, Members, X, Y, read, sample, tar

from savae_dist.data import Order, Reader, Request, Shards, check_usable, index_set, survey
from savae_dist.data.formats.axes import channels_last
from savae_dist.data.formats.npy import decode, encode_image, encode_npy
from savae_dist.data.index.choice import Choice
from savae_dist.data.index.losses import check_losses
from savae_dist.errors import BadSample, DataError

RGB = np.random.default_rng(1).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
PNG, FLOATS = encode_image(X[0]), np.zeros((3, 32, 32), np.float32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def keyed(*endings: str, key: str = "k{:02d}", n: int = 8) -> Members:
    """For each key an image under each ending: of the second X one further on; and its label."""
    found: Members = []
    for i in range(n):
        found += [
            (f"{key.format(i)}.{ending}", encode_image(X[(i + shift) % 12])) for shift, ending in enumerate(endings)
        ]
        found.append((f"{key.format(i)}.cls", b"%d" % Y[i]))
    return found


CHOSEN = {
    "a mask beside the image": (("jpg", "png"), "jpg", 0),
    "the mask": (("jpg", "png"), "png", 1),
    "left and right": (("left.png", "right.png"), "right.png", 1),
    "a dotted ending": (("image.jpg",), "image.jpg", 0),
    "two dots": (("v1.rgb.png", "v1.depth.png"), "v1.rgb.png", 0),
    "the first that is there": (("png",), "jpg|png", 0),
    "an ending that is no image's": (("frame",), "frame", 0),
}


@pytest.mark.parametrize("kind", CHOSEN)
def test_the_members_that_were_chosen_are_the_samples(tmp_path, kind):
    endings, x, shift = CHOSEN[kind]
    (tmp_path / "a.tar").write_bytes(tar(keyed(*endings)))
    shards = index_set([tmp_path], x=x)
    images, labels, reasons = read(shards)
    assert (images == X[np.arange(8) + shift]).all()
    assert (labels.tolist(), reasons) == (Y[:8].tolist(), {})
    others = [f"{ending} 8 (k00.{ending})" for ending in endings if ending not in x.split("|")]
    assert ("; not used: " + ", ".join(others) in survey(shards)[2]) == bool(others)
    first_use = Shards.open(tmp_path / "a.tar", choice=Choice(x=x))
    assert first_use.digest == shards.digest


TWO = {"jpg and png": ("jpg", "png"), "png and npy": ("npy", "png"), "webp and jpeg": ("webp", "jpeg")}


@pytest.mark.parametrize("kind", TWO)
def test_two_samples_under_one_key_are_never_chosen_from_silently(tmp_path, kind):
    one, other = TWO[kind]
    (tmp_path / "a.tar").write_bytes(tar(keyed(one, other)))
    with pytest.raises(DataError, match=r"several samples 8 .*data\.x=\w+ or data\.x=\w+") as caught:
        Shards.open(tmp_path)
    assert re.search(f"{one} 8 .k00.{one}", str(caught.value))
    (tmp_path / "a.tar").write_bytes(tar([*keyed(one, other, n=2), *(m for i in range(2, 8) for m in sample(i))]))
    some = index_set([tmp_path])
    assert some.size == 6
    assert "of no use   2 of 8 samples (25.0%); say which of its members is the sample" in "\n".join(survey(some))
    check_losses("s", some.index, 0.25)
    with pytest.raises(DataError, match=r"s: 2 of 8 samples are of no use, more than data\.bad_budget=0\.2 allows: "):
        check_losses("s", some.index, 0.2)


# Members, and what the error says of them: what was found and what to do.
NOTHING: dict[str, tuple[Members, tuple[str, ...]]] = {
    "dotted": (keyed("image.jpg"), ("image.jpg 8 (k00.image.jpg)", "data.x=image.jpg reads")),
    "left and right": (keyed("left.png", "right.png"), ("dot in the name 16", "data.x=left.png or data.x=right.png")),
    "an ending that nobody knows": ([("a.xyz", PNG), ("a.cls", b"1")], ("xyz 1 (a.xyz)", "data.x=ENDING")),
    "compressed": ([("a.jpg.gz", gzip.compress(PNG))], ("jpg.gz 1 (a.jpg.gz)", "not compressed")),
    "floats": ([("a.npy", encode_npy(FLOATS))], ("float32 3x32x32, neither", "make_shards")),
    "integers": ([("a.npy", encode_npy(np.arange(64, dtype=np.int32)))], ("dtype 1 (a: int32 64", "make_shards")),
    "fortran": ([("a.npy", encode_npy(X[0]).replace(b"'fortran_order': False", b"'fortran_order': True "))],
                ("undecodable 1 (a: an array in Fortran order)", "C order")),
    "texts": ([("a.npy", encode_npy(np.array(["a"])))], ("an array of <U1, not of numbers",)),
    "absolute": ([("/data/a.png", PNG)], ("name 1 (/data/a)", "relative names")),
    "windows that are turned": ([("a.npy", encode_npy(FLOATS[0, :, :2]))], ("a window of 32 channels?", "time last")),
    "32 channels": ([("a.npy", encode_npy(np.zeros((5, 32, 32), np.uint8)))], ("an image of 32 channels?",)),
    "no image": ([("a.png", b"GIF"), ("b.jpg", b"")], ("undecodable 2 (a, b)", "jpg 1 (b.jpg), png 1 (a.png)")),
    "hidden": ([("x/.a.png", PNG), ("README", b"")], ("(dot first) 1 (x/.a.png)", "(no ending) 1 (README)")),
    "too few": ([("a.cls", b"1")], ("cls 1 (a.cls)", "no sample 1 (a)")),
    "nothing": ([], ("members are none",)),
}  # fmt: skip


@pytest.mark.parametrize("kind", NOTHING)
def test_where_nothing_can_be_read_the_error_says_what_was_seen_and_why(tmp_path, kind):
    members, told = NOTHING[kind]
    (tmp_path / "a.tar").write_bytes(tar(members))
    with pytest.raises(DataError) as caught:
        index_set([tmp_path])
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.tar'}: no sample that can be read; members are ")
    assert all(one in message for one in told), message
    assert (message.isprintable(), caught.value.code) == (True, 65)
    with pytest.raises(DataError, match=r"no sample that can be read with data\.x=abc; members are "):
        index_set([tmp_path], x="abc")


LOST = {
    "half of the keys": ([m for i in range(10) for m in sample(i, f"k{i}" if i % 2 else f"k{i}.v1")], 5, 5),
    "a series": ([m for i in range(9) for m in sample(i, f"scan.{i:03d}")] + sample(9, "a") + sample(10, "b"), 2, 9),
    "dates": ([m for i in range(6) for m in sample(i, f"2024.{i}.1/x")] + sample(6) + sample(7, "12.5.2024"), 7, 1),
    "versions and arrays": ([("s.1.npy", encode_npy(X[0])), ("s.2.npy", encode_npy(X[1])), *sample(2)], 1, 2),
    "a dot too many in a folder's sample": ([("f/a.b.c.png", PNG), ("f/d.e.c.png", PNG), *sample(2)], 1, 2),
}


@pytest.mark.parametrize("kind", LOST)
def test_each_member_that_the_first_dot_hides_is_a_sample_lost(tmp_path, kind):
    members, size, lost = LOST[kind]
    (tmp_path / "a.tar").write_bytes(tar(members))
    shards = index_set([tmp_path])
    dropped = shards.index["shards"][0]["dropped"]
    assert (shards.size, {reason: one["count"] for reason, one in dropped.items()}) == (size, {"dot in the name": lost})
    text = "\n".join(survey(shards))
    assert f"of no use   {lost} of {size + lost} samples" in text
    assert "a key ends at the first dot of its name: rename the members, or " in text


def test_many_endings_are_told_together(tmp_path):
    series = [m for i in range(500) for m in sample(i % 12, f"scan.{i:03d}")]
    (tmp_path / "a.tar").write_bytes(tar([*series, *sample(0)]))
    shards = index_set([tmp_path])
    assert survey(shards)[2] == (
        "members     cls 1, png 1; not used: *.cls 500 (scan.000.cls), *.png 500 (scan.000.png)"
    )
    assert len(shards.index["shards"][0]["members"]) < 110
    odd = [(f"a.{i}", b"") for i in range(1000)]
    (tmp_path / "a.tar").write_bytes(tar([*odd, *sample(0)]))
    kinds = index_set([tmp_path]).index["shards"][0]["members"]
    assert len(kinds) < 110
    assert sum(one["count"] for one in kinds.values()) == 1002


def test_of_another_image_beside_its_sample_nothing_is_lost(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar(keyed("png", "mask.png")))
    shards = index_set([tmp_path])
    assert (read(shards)[0] == X[:8]).all()
    assert survey(shards)[2] == "members     cls 8, png 8; not used: mask.png 8 (k00.mask.png)"
    assert shards.index["shards"][0]["dropped"] == {}


def test_a_set_of_which_nothing_can_be_used(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar([m for i in range(8) for m in sample(i, label=b"0.5")]))
    shards = index_set([tmp_path])
    assert "; all of them" in "\n".join(survey(shards))
    with pytest.raises(
        DataError, match=r"all 8 of 8 samples are of no use.*label 8 \(k00, .*'0\.5', no whole"
    ) as caught:
        check_usable(shards)
    assert caught.value.code == 65


def test_the_budget_is_spoken_of_as_a_share(tmp_path):
    members = [m for i in range(40) for m in sample(i % 12, f"k{i:02d}")]
    members[0] = ("k00.png", encode_image(np.zeros((9, 9), np.uint8)))
    (tmp_path / "a.tar").write_bytes(tar([*members[2:], *members[:2]]))
    shards = index_set([tmp_path])
    reader = Reader(shards, Order(shards.counts, 0, 1, 9), 0, share=0.01)
    with pytest.raises(
        DataError, match=r"\(shape: 1\): 1 of 40 is more than data\.bad_budget=0\.01 allows, the last k00"
    ):
        reader[Request(0, 40, range(40))]
    (tmp_path / "a.tar").write_bytes(tar([*members[2:], *members[:2], ("s.1.png", PNG)]))
    reader = Reader(shards := index_set([tmp_path]), Order(shards.counts, 0, 1, 9), 0, share=0.03)
    with pytest.raises(
        DataError, match=r"and 1 that the index leaves out: 2 of 41 is more than data\.bad_budget=0\.03 "
    ):
        reader[Request(0, 40, range(40))]


TURNED = {"rgb": (RGB, ALL), "gray": (X[..., None], ALL), "rgba": (np.concatenate([RGB, RGB[..., :1]], 3), ALL)}


@pytest.mark.parametrize("kind", TURNED)
def test_arrays_with_the_channels_in_front(tmp_path, kind):
    x, _ = TURNED[kind]
    members = [(f"k{i:02d}.npy", encode_npy(np.moveaxis(one, -1, 0).copy())) for i, one in enumerate(x)]
    (tmp_path / "a.tar").write_bytes(tar(members))
    shards = index_set([tmp_path], decode_all=True)
    assert (read(shards)[0] == (x[..., 0] if kind == "gray" else x)).all()
    shown = "x".join(map(str, np.moveaxis(x[0], -1, 0).shape))
    assert f"told        channels stand first (uint8 {shown}, k00) and are put last" in survey(shards)
    mixed = [*members[:6], *((f"k{i:02d}.npy", encode_npy(x[i])) for i in range(6, 12))]
    (tmp_path / "a.tar").write_bytes(tar(mixed))
    assert (read(index_set([tmp_path]))[0] == (x[..., 0] if kind == "gray" else x)).all()


def test_axes_that_mean_something_else():
    for shape in ((32, 32, 32), (5, 32, 32), (2, 32, 32), (32, 32, 20), (6, 5, 7)):
        with pytest.raises(BadSample, match="shape") as caught:
            decode(encode_npy(np.zeros(shape, np.uint8)))
        assert "channels? Put them last" in caught.value.found
    assert channels_last(np.zeros((32, 32, 7), np.uint8)).shape == (32, 32, 7)
    old = np.zeros((3, 32, 32), np.uint8)
    assert decode(encode_npy(old), (3, 32, 32), old.dtype).shape == (3, 32, 32)  # a set that was indexed so


def test_windows_that_may_be_images_are_told(tmp_path):
    images = np.random.default_rng(0).random((3, 28, 28)).astype(np.float32)
    (tmp_path / "a.tar").write_bytes(tar([(f"k{i}.npy", encode_npy(one)) for i, one in enumerate(images)]))
    text = "\n".join(survey(index_set([tmp_path])))
    assert "told        samples are 28x28 floats: images, or windows of 28 channels?" in text
