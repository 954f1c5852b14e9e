"""Picture files as the packer reads them: by the function that a run uses for tars, and with 16 bits told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import deep, photo, saved

from savae_dist.data.formats.picture_files import read_file
from savae_dist.data.formats.resize import read_picture
from savae_dist.data.packing.sources.base import Note, Sample
from savae_dist.data.packing.sources.images import images
from savae_dist.origin import PictureFiles
from savae_dist.preprocess import Pictures
from tools import make_shards


def test_the_packer_makes_of_a_file_what_a_run_makes_of_a_tar() -> None:
    data = saved(photo(120, 90), "jpeg")
    for resize in ("crop", "pad", "stretch"):
        expected = read_picture(data, Pictures((24, 30), resize, "rgb"))
        assert (read_file(data, PictureFiles((24, 30), resize)) == expected).all()
    gray = read_picture(data, Pictures((24, 30), mode="gray"))
    assert (read_file(data, PictureFiles((24, 30), mode="gray")) == gray).all()


def test_twelve_bits_in_sixteen_are_told_and_spread_by_a_range(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "deep" / "a"
    folder.mkdir(parents=True)
    x = photo(8, 8, 0, 1).astype(np.uint16) * 16 + 7
    for number in range(2):
        (folder / f"{number}.png").write_bytes(deep(x, "png"))
    (folder / "2.gif").write_bytes(saved(photo(8, 8, 0, 1), "gif"))
    (folder / "3.pgm").write_bytes(deep(x, "pgm"))  # says itself that its white is 4095
    source = images(tmp_path / "deep")
    notes = [item for item in source.read(0) if isinstance(item, Note)]
    text = "no value above 4,095 of 65,535, and cut to 8 bits: --range 0,4095 spreads them"
    assert [(note.topic, note.text, note.name) for note in notes] == [
        ("16 bits", text, "a/0.png"),
        ("16 bits", text, "a/1.png"),
    ]
    spread = images(tmp_path / "deep", limits=(0, 4095))
    assert spread.identity != source.identity
    first = next(iter(spread.read(0)))
    assert isinstance(first, Sample)
    assert (first.x == (x * (255 / 4095)).round()).all()
    arguments = ["images", str(tmp_path / "deep"), str(tmp_path / "out"), "--size", "4x6", "--resize", "pad"]
    assert make_shards.main([*arguments, "--mode", "gray"]) == 0
    assert "--range 0,4095 spreads them" in capsys.readouterr().out
    assert make_shards.main(["images", str(tmp_path / "deep"), str(tmp_path / "no"), "--resize", "pad"]) == 2
    assert "--resize pad has no effect without --size" in capsys.readouterr().err


def test_gray_beside_colour_names_the_option_that_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    for number, channels in enumerate((1, 3, 3)):
        (folder / f"{number}.jpg").write_bytes(saved(photo(40, 30, 0, channels), "jpeg"))
    command = ["images", str(tmp_path / "photos"), str(tmp_path / "out"), "--size", "16x16"]
    assert make_shards.main(command) == 65
    told = capsys.readouterr().err
    assert "a/1.jpg: uint8 [16, 16, 3] and not uint8 [16, 16]" in told
    assert "give --mode rgb where only some images are grey" in told
    assert make_shards.main([*command, "--mode", "rgb"]) == 0
