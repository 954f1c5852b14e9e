"""The card and the picture of a set: what they show is what the shards hold."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from savae_dist.data import Shards, pack
from savae_dist.data.card import CARD, PICTURE, card
from savae_dist.data.preview import draw_preview
from tools.index_shards import main as index_shards
from tools.make_shards import main as make_shards

pytestmark = pytest.mark.rendered

SHADES = {"ant": 40, "bee": 120, "cow": 220}  # a class is of one gray


def folder_of_images(home: Path, size: tuple[int, int] = (12, 20)) -> Path:
    for name, shade in SHADES.items():
        for i in range(6):
            path = home / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full(size, shade, np.uint8)).save(path)
    return home


def shades(picture: Path) -> list[set[int]]:
    """The grays of large even areas in each band of the picture from top to bottom, white left out."""
    x = np.asarray(Image.open(picture).convert("L"))
    found: list[set[int]] = []
    for line in x[::4]:
        values, counts = np.unique(line, return_counts=True)
        large = {int(value) for value, count in zip(values, counts) if count > 100 and value < 250}
        if large and (not found or large != found[-1]):
            found.append(large)
    return found


def test_the_sheet_has_a_row_of_each_class_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["images", str(folder_of_images(tmp_path / "set")), str(tmp_path / "out"), "--processes", "1"]
    assert make_shards([*command, "--preview"]) == 0
    assert f"card  {tmp_path / 'out' / CARD}" in capsys.readouterr().out
    assert shades(tmp_path / "out" / PICTURE) == [{shade} for shade in SHADES.values()]
    text = (tmp_path / "out" / CARD).read_text()
    assert "18 images 1x12x20, 3 classes, 0 unlabelled." in text
    assert f"]({PICTURE})" in text
    for number, name in enumerate(SHADES):
        assert f"| {number} | {name} | 6 | 33.3% |" in text
    assert "- labels from: the first folder of each path\n" in text
    assert f"`make_shards {' '.join(command)} --preview`" in text
    assert Shards.open(tmp_path / "out").digest in text
    # Without a preview the shards are the same, and there is neither card nor picture.
    assert make_shards([*command[:2], str(tmp_path / "plain"), *command[3:]]) == 0
    plain = {path.name: path.read_bytes() for path in (tmp_path / "plain").iterdir()}
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert kept.keys() - plain.keys() == {CARD, PICTURE}
    assert plain == {name: kept[name] for name in plain}


def test_each_of_several_sets_has_a_card_of_its_own(tmp_path: Path) -> None:
    rows = ["path,label,machine"]
    for i in range(12):
        t = np.arange(512) / 1000
        np.savez(
            tmp_path / f"{i}.npz", acc=np.sin(2 * np.pi * 100 * t), volt=0.1 * np.sin(2 * np.pi * 200 * t), fs=1000
        )
        rows.append(f"{i}.npz,{'ab'[i % 2]},m{i // 4}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    command = ["recordings", str(tmp_path / "list.csv"), str(tmp_path / "out"), "--length", "256"]
    variables = ["--variable", "acc", "--variable", "volt"]
    assert make_shards([*command, *variables, "--leave-out", "m1", "--preview", "--processes", "1"]) == 0
    for name, count in (("train", 16), ("test", 8)):
        text = (tmp_path / "out" / name / CARD).read_text()
        assert text.startswith(f"# out, {name}\n\n{count} signals 2x256 at 1000 Hz, 2 classes")
        assert "- channels: acc, volt\n" in text
        assert "- sampling rate: 1000 Hz\n" in text
        assert "- divided: by machine: 2 in train, 1 in test\n" in text
        assert re.search(r"- standard deviation: 0\.70\d+, 0\.070\d+\n", text)
        with Image.open(tmp_path / "out" / name / PICTURE) as picture:
            assert min(picture.size) > 300


def test_tars_of_other_writers_have_one_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(12):
            shade = list(SHADES.values())[i // 4]
            image = io.BytesIO()
            Image.fromarray(np.full((12, 20), shade, np.uint8)).save(image, "PNG")
            content = b"no picture" if i == 5 else image.getvalue()
            for end, data in (("png", content), ("cls", str(i // 4).encode())):
                member = tarfile.TarInfo(f"{i}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    assert index_shards([str(tmp_path), "--processes", "1", "--preview"]) == 0
    assert f"card        {tmp_path / CARD}" in capsys.readouterr().out
    assert shades(tmp_path / PICTURE) == [{shade} for shade in SHADES.values()]  # what cannot be decoded is not there
    text = (tmp_path / CARD).read_text()
    assert "| 1 | 1 | 4 | 33.3% |" in text
    assert f"`index_shards {tmp_path} --processes 1 --preview`" in text


def test_pictures_of_many_sizes_are_all_in_the_sheet(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(12):
            image = io.BytesIO()
            size = (200, 40 + 10 * i)
            Image.fromarray(np.full(size, list(SHADES.values())[i // 4], np.uint8)).save(image, "PNG")
            for end, data in (("png", image.getvalue()), ("cls", str(i // 4).encode())):
                member = tarfile.TarInfo(f"{i}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    assert index_shards([str(tmp_path), "--processes", "1", "--preview"]) == 0
    with Image.open(tmp_path / PICTURE) as picture:
        x = np.asarray(picture.convert("L"))
    areas = [(x == shade).sum() for shade in SHADES.values()]
    assert areas[0] < areas[1] < areas[2]  # each class's are wider than those of the class before
    assert areas[0] > 4 * 100 * 30


@pytest.mark.parametrize("kind", ["image", "colour", "signal"])
def test_many_classes_and_samples_without_one(tmp_path: Path, kind: str) -> None:
    shape = {"image": (9, 7), "colour": (30, 400, 3), "signal": (2, 65)}[kind]
    x = np.zeros((90, *shape), np.float32 if kind == "signal" else np.uint8)
    pack(x, np.arange(90) % 30 - 1, tmp_path / "set", class_names=[f"${'long' * 9}_{n}\n" for n in range(29)])
    shards = Shards.open(tmp_path / "set")
    draw_preview(shards, tmp_path / PICTURE)
    with Image.open(tmp_path / PICTURE) as picture:
        assert max(picture.size) < 4000
    text = card(shards, {}, ["x"])
    assert text.count("\n| ") == 2 + 30
    assert "|  | unlabelled | 3 | 3.3% |" in text


def test_names_out_of_files_are_shown_and_not_acted_on(tmp_path: Path) -> None:
    names = ["<script>alert(1)</script>", "a|b", "[x](http://y)"]
    pack(np.zeros((3, 8, 8), np.uint8), np.arange(3), tmp_path / "set", class_names=names)
    text = card(Shards.open(tmp_path / "set"), {"passed over": "`rm`\n# title"}, ["a`b"])
    assert "| 0 | \\<script>alert(1)\\</script> | 1 |" in text
    assert "| 1 | a\\|b | 1 |" in text
    assert "\\[x](http://y)" in text
    assert "- passed over: \\`rm\\`\\\\n\\# title\n" in text
    assert "- command: `ab`\n" in text
