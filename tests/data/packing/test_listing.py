"""Which files a source has, what their classes and groups are, and what is told of those passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from savae_dist.data import Shards
from savae_dist.data.packing.packer import Options, pack_source
from savae_dist.data.packing.sources.images import images
from savae_dist.data.packing.sources.listing import Listed, Rules, list_files
from savae_dist.data.packing.splits import Splits
from savae_dist.errors import ConfigError, DataError


def listed(folder: Path, *names: str, rules: Rules | None = None) -> tuple[dict[str, Listed], dict[str, str]]:
    """The files by name, and the notes by topic, of a folder with empty files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    found, notes = list_files(folder, lambda name: name.endswith(".png"), rules or Rules(), "convert them")
    return {one.name: one for one in found}, {note.topic: note.text for note in notes}


def test_folders_of_sets_are_sets_and_no_classes(tmp_path: Path) -> None:
    files, notes = listed(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/cat/2.png")
    assert [(one.label, one.split) for one in files.values()] == [
        ("cat", "train"),
        ("dog", "train"),
        ("cat", "validation"),
    ]
    assert notes["sets"] == "of the folders train (train), val (validation)"
    with pytest.raises(DataError, match="test and also horse: sets or classes"):
        listed(tmp_path / "b", "test/1.png", "horse/1.png")


def test_names_with_a_dot_and_other_files_are_passed_over_and_told(tmp_path: Path) -> None:
    files, notes = listed(tmp_path, "a/1.png", "a/._1.png", ".ipynb_checkpoints/2.png", "b/2.png")
    assert list(files) == ["a/1.png", "b/2.png"]
    assert notes["passed over"] == "2 whose name begins with a dot (.ipynb_checkpoints/2.png)"
    _, notes = listed(tmp_path / "c", "a/1.png", "a/1.gif", "a/2.gif", "a/README")
    assert notes["passed over"] == "2 files *.gif, 1 file without an ending: convert them"
    with pytest.raises(DataError, match=r"holds 1 file \*\.gif and none that can be read; convert them"):
        listed(tmp_path / "d", "a/1.gif")


def test_the_class_is_the_first_folder_the_last_or_what_a_pattern_says(tmp_path: Path) -> None:
    names = ("35Hz/inner/a1.png", "40Hz/outer/b2.png")
    files, notes = listed(tmp_path, *names)
    assert [one.label for one in files.values()] == ["35Hz", "40Hz"]
    assert notes["labels"] == "35Hz, 40Hz: of the first folder; --label parent takes the last (inner, outer)"
    for rule, labels in (("parent", ["inner", "outer"]), ("none", [None, None]), (r"/([ab])\d", ["a", "b"])):
        files, notes = listed(tmp_path, *names, rules=Rules(label=rule))
        assert [one.label for one in files.values()] == labels
        assert notes == {}
    with pytest.raises(DataError, match="does not match"):
        listed(tmp_path, *names, rules=Rules(label="(35)"))
    with pytest.raises(ConfigError, match="one group in round brackets"):
        Rules(label="(a)(b)")


def table(folder: Path, header: str, *rows: str) -> Path:
    """A CSV that lists images, each of which is there."""
    for i, row in enumerate(rows):
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(folder / row.split(",")[0])
    (folder / "list.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "list.csv"


def test_a_table_of_images_may_name_sets_and_groups(tmp_path: Path) -> None:
    rows = [f"{i}.png,{'ab'[i % 2]},{'train' if i < 6 else 'test'},p{i // 2}" for i in range(8)]
    path = table(tmp_path, "path,label,split,patient", *rows)
    made = pack_source(images(path), tmp_path / "s")
    assert [(Path(one["folder"]).name, one["samples"]) for one in made] == [("train", 6), ("test", 2)]
    assert made[0]["passed over"] == "columns patient of list.csv"
    path = table(tmp_path, "path,label,patient", *(",".join(np.delete(row.split(","), 2)) for row in rows))
    source = images(path, rules=Rules(group="patient"), splits=Splits(leave_out=("p2",)))
    made = pack_source(source, tmp_path / "t")
    assert [(Path(one["folder"]).name, one["samples"]) for one in made] == [("train", 6), ("test", 2)]
    assert made[0]["divided"] == "by patient: 3 in train, 1 in test"
    assert Shards.open(tmp_path / "t" / "test").label_counts == {0: 1, 1: 1}
    path = table(tmp_path, "path,label,split,patient", *[row.replace("p2", "p3") for row in rows])
    with pytest.raises(DataError, match="p3 is in 'train' and in 'test'"):
        images(path, rules=Rules(group="patient"))
    with pytest.raises(ConfigError, match=r"--group-by machine: .* has the columns label, path, patient, split"):
        images(path, rules=Rules(group="machine"))


def test_a_class_of_which_nothing_is_left_is_told(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "0.png,a", "1.png,a", "2.png,b")
    (tmp_path / "2.png").write_bytes(b"no picture")
    (made,) = pack_source(images(path), tmp_path / "s", Options(bad_budget=1))
    assert made["labels"] == "lost as a whole, since no sample of them can be used: b"
    assert made["dropped"].startswith("1, undecodable: 1")


def test_a_table_with_a_wrong_row_is_refused_with_its_number(tmp_path: Path) -> None:
    path = table(tmp_path, "path,label", "0.png,a", "1.png,a,b")
    with pytest.raises(DataError, match=r"row 3: not 2 cells; quote commas"):
        images(path)
