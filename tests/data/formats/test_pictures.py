"""Pictures of any size and format to samples of one form, beside Pillow's full decoding and resizing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.pictures import deep, photo, saved
from PIL import Image

from savae_dist.data.formats import resize
from savae_dist.data.formats.headers import header
from savae_dist.data.formats.images import decode_picture
from savae_dist.data.formats.npy import decode_any, encode_npy
from savae_dist.data.formats.resize import as_sample, fitted, read_picture
from savae_dist.errors import BadSample
from savae_dist.preprocess import Pictures

MEAN_ERROR = 4.0  # of 255: the mean over a photograph's pixels, beside Pillow's full decoding and bilinear resizing
LOSSLESS = ["png", "bmp", "tiff", "gif", "ppm", "webp"]


def by_pillow(x: np.ndarray, size: tuple[int, int], how: str) -> np.ndarray:
    """Full pixels [h, w, 3] cropped or stretched by Pillow, with its antialiasing."""
    height, width = x.shape[:2]
    box = (0.0, 0.0, width, height)
    if how == "crop":
        scale = min(height / size[0], width / size[1])
        tall, wide = size[0] * scale, size[1] * scale
        box = ((width - wide) / 2, (height - tall) / 2, (width + wide) / 2, (height + tall) / 2)
    return np.asarray(Image.fromarray(x).resize(size[::-1], Image.Resampling.BILINEAR, box=box))


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (256, 256), (48, 96), (500, 520)])
@pytest.mark.parametrize("how", ["crop", "stretch"])
def test_the_error_beside_pillow_is_bounded(size: tuple[int, int], how: str) -> None:
    for seed, (height, width) in enumerate([(300, 500), (420, 310), (375, 500), (500, 333), (301, 301)]):
        data = saved(photo(height, width, seed), "jpeg", quality=90)
        expected = by_pillow(decode_picture(data), size, how).astype(int)
        found = read_picture(data, Pictures(size, how))
        assert found.shape == (*size, 3)
        assert np.abs(found - expected).mean() <= MEAN_ERROR


@pytest.mark.parametrize(("size", "scale"), [(301, 1), (300, 1), (151, 1), (150, 2), (76, 2), (75, 4), (37, 8), (9, 8)])
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_suffices(
    size: int, scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def opencv(data: bytes, flag: int) -> np.ndarray:
        seen.append(next((scale for scale, one in resize.SCALES.items() if flag & one), 1))
        return decode_picture(data)

    monkeypatch.setattr(resize, "opencv", opencv)
    read_picture(saved(photo(300, 400), "jpeg"), Pictures((size, size)))
    assert seen == ([scale] if scale > 1 else [])
    x = photo(300, 400)
    for how, longer in (("crop", 100), ("pad", 133), ("stretch", 100)):  # what `pad` makes is smaller: 100 x 133
        seen.clear()
        read_picture(saved(x, "jpeg"), Pictures((longer, longer), how))
        assert seen == [2]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["jpeg", "png", "tiff", "webp"])
def test_pictures_stand_upright_at_every_scale(orientation: int, kind: str) -> None:
    x = photo(90, 140)
    data = saved(x, kind, orientation, **({"lossless": True} if kind == "webp" else {}))
    form = header(data)
    assert (form.height, form.width, form.channels, form.bits) == (90, 140, 3, 8)
    assert np.abs(decode_picture(data).astype(int) - x).mean() < 3
    for size in ((90, 140), (30, 40), (40, 30), (11, 17)):
        expected = by_pillow(x, size, "crop").astype(int)
        assert np.abs(read_picture(data, Pictures(size)) - expected).mean() <= MEAN_ERROR


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_format(kind: str, channels: int) -> None:
    x = photo(20, 30, channels=channels)
    if kind == "gif":
        x = (x // 64 * 64)[:, :, None][..., [0]][..., 0] if channels == 1 else np.repeat(x[..., :1] // 64 * 64, 3, 2)
    data = saved(x, kind, **({"lossless": True} if kind == "webp" else {}))
    gray = x if channels == 1 else np.asarray(Image.fromarray(x).convert("L"))
    form = header(data)
    assert form[:2] == (20, 30)
    found = read_picture(data, Pictures((20, 30), mode="gray"))
    assert np.abs(found.astype(int) - gray).max() <= (1 if kind == "webp" else 0)
    colours = read_picture(data, Pictures((20, 30), mode="rgb"))
    assert (colours == (x if channels == 3 else x[..., None])).all()


@pytest.mark.parametrize(
    ("kind", "text"), [("gif", "3 frames"), ("tiff", "3 pages"), ("webp", "3 frames"), ("png", "3 frames")]
)
def test_several_pictures_in_a_file_are_refused_with_their_number(kind: str, text: str) -> None:
    frames = [Image.fromarray(photo(20, 30, seed, 1)) for seed in range(3)]
    data = saved(np.asarray(frames[0]), kind, save_all=True, append_images=frames[1:])
    for read in (header, decode_picture, lambda data: read_picture(data, Pictures((8, 8)))):
        with pytest.raises(BadSample, match=text):
            read(data)


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_sixteen_bits_stay_sixteen_bits(kind: str) -> None:
    x = photo(24, 24, channels=1).astype(np.uint16) * 16 + 7  # 12 bits
    data = deep(x, kind)
    assert header(data)[:4] == (24, 24, 1, 16)
    wide = Pictures((24, 24), mode="gray", bits=16, range=(0, 4095))
    assert (read_picture(data, wide) == x).all()
    white = 4095 if kind == "pgm" else 65535
    assert (decode_picture(data) == ((x.astype(int) * 255 + white // 2) // white)).all()
    smaller = read_picture(data, replace(wide, size=(12, 12)))
    assert smaller.dtype == np.uint16
    assert np.abs(smaller.astype(int) - x.reshape(12, 2, 12, 2).mean((1, 3))).max() <= 1
    coloured = deep(np.stack([x, x // 2, x // 4], 2), "png")
    assert (read_picture(coloured, replace(wide, mode="rgb")) == np.stack([x, x // 2, x // 4], 2)).all()
    eight = saved(photo(24, 24, channels=1), "png")
    assert (read_picture(eight, wide) == photo(24, 24, channels=1) * np.uint16(257)).all()


def test_crop_pad_and_stretch() -> None:
    x = np.zeros((40, 80), np.uint8)
    x[:, 20:60] = 200
    assert (fitted(x, (10, 10), "crop") == 200).all()
    padded = fitted(x, (20, 20), "pad")
    assert (padded[:5] == 0).all()
    assert (padded[15:] == 0).all()
    assert (padded[5:15, 5:15] == 200).all()
    assert (fitted(x, (40, 20), "stretch") == np.repeat([[0, 200, 0]], 40, 0).repeat([5, 10, 5], 1)).all()
    assert (fitted(x, (40, 40), "stretch")[:, 10:30] == 200).all()  # across only
    assert fitted(x, (7, 300), "stretch").shape == (7, 300)  # smaller one way and larger the other
    assert fitted(x, (1, 1)).shape == (1, 1)
    assert fitted(x[:1, :1], (5, 9)).shape == (5, 9)


def test_of_its_size_a_picture_stays_bit_for_bit() -> None:
    x = photo(17, 23)
    for how in ("crop", "pad", "stretch"):
        assert (fitted(x, (17, 23), how) == x).all()


def test_arrays_are_read_as_files_of_the_same_pixels_are() -> None:
    x = photo(50, 70)
    for pictures in (Pictures((20, 20)), Pictures((64, 64), "pad", "gray"), Pictures((9, 90), "stretch", "gray")):
        expected = read_picture(saved(x, "png"), pictures)
        assert (as_sample(x, pictures) == expected).all()
        assert (decode_any(encode_npy(x), pictures) == expected).all()
    for wrong, reason in ((x.astype(np.float32), "dtype"), (x[..., :2], "shape"), (x[0, 0], "shape")):
        with pytest.raises(BadSample, match=reason):
            as_sample(wrong, Pictures((20, 20)))


def test_damage_is_a_reason() -> None:
    data = saved(photo(90, 120), "jpeg")
    for broken in (data[:200], data[: len(data) // 2], b"", b"\xff\xd8\xff\xd9", data[:60] + data[-2:]):
        with pytest.raises(BadSample, match="undecodable"):
            read_picture(broken, Pictures((16, 16)))


def test_another_decoder_s_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="decoder 99"):
        Pictures((8, 8), decoder=99)
