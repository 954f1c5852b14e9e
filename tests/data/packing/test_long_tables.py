"""Several recordings in one table: told apart by a column, with what other columns say of each as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from savae_dist.data.packing.packer import pack_source
from savae_dist.data.packing.readers import text
from savae_dist.data.packing.readers.signal import Choice
from savae_dist.data.packing.sources import Item, Note, Sample, Source
from savae_dist.data.packing.sources.listing import Rules
from savae_dist.data.packing.sources.recordings import Windows, recordings
from savae_dist.data.packing.splits import Splits
from savae_dist.errors import ConfigError, DataError
from tools.make_shards import main

RUNS, LENGTH = 6, 40
X = np.random.default_rng(0).standard_normal((RUNS, LENGTH))
WINDOWS = Windows(20, 20, id="run")


def columns(names: list[Any], **more: list[Any]) -> dict[str, Any]:
    """Rows of all runs, one after the other, with a time that begins anew in each."""
    made = {"run": np.repeat(names, LENGTH), "time": np.tile(np.arange(LENGTH) / 100, RUNS), "acc": X.ravel()}
    return made | {name: np.repeat(values, LENGTH) for name, values in more.items()}


def csv(path: Path, table: dict[str, Any]) -> Path:
    rows = zip(*(values.tolist() for values in table.values()), strict=True)
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([",".join(table), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def parquet(path: Path, table: dict[str, Any]) -> Path:
    pq.write_table(pa.table(table), path)
    return path


def interleaved(path: Path, table: dict[str, Any]) -> Path:
    """The rows of the runs among one another, each run's in its order."""
    order = np.arange(RUNS * LENGTH).reshape(RUNS, LENGTH).T.ravel()
    return csv(path, {name: values[order] for name, values in table.items()})


def items(source: Source) -> tuple[list[Sample], list[str]]:
    found: list[Item] = [item for part in range(len(source.splits)) for item in source.read(part)]
    notes = [f"{one.topic}: {one.text}" for one in (*source.notes, *found) if isinstance(one, Note)]
    return [one for one in found if isinstance(one, Sample)], notes


@pytest.mark.parametrize(("write", "end"), [(csv, "csv"), (parquet, "parquet"), (interleaved, "txt")])
@pytest.mark.parametrize("names", [list("abcdef"), [10, 20, 30, 40, 50, 60]])
def test_each_recording_is_its_own(
    tmp_path: Path, write: Callable[[Path, dict[str, Any]], Path], end: str, names: list[Any]
) -> None:
    table = columns(names, label=["x", "y"] * 3, machine=["m1", "m1", "m1", "m2", "m2", "m2"])
    path = write(tmp_path / f"long.{end}", table)
    source = recordings(path, WINDOWS)
    found, notes = items(source)
    assert len(source.splits) == RUNS
    for run in range(RUNS):
        mine = [one for one in found if one.attributes["recording"] == f"{path.name}#{names[run]}"]
        assert np.concatenate([one.x for one in mine]).tobytes() == X[run].astype(np.float32).tobytes()
        assert {one.label for one in mine} == {"xy"[run % 2]}
        assert {one.attributes["group"] for one in mine} == {"m1" if run < 3 else "m2"}
        assert {one.attributes["rate"] for one in mine} == {100.0}  # of its own times
    assert "channels: acc" in notes
    told = {"run (tells recordings apart)", "label (said of the recording)", "time (time, taken as seconds)"}
    assert told <= {note.removeprefix("left out: ") for note in notes}


def test_columns_say_class_group_and_set(tmp_path: Path) -> None:
    more = {"fault": [0, 1] * 3, "bearing": list("aabbcc"), "split": ["train"] * 4 + ["val"] * 2}
    path = csv(tmp_path / "long.csv", columns(list("abcdef"), **more))
    source = recordings(path, WINDOWS, rules=Rules("fault", "bearing"))
    assert source.splits == ("train",) * 4 + ("validation",) * 2
    found, notes = items(source)
    assert [one.label for one in found] == [str(run % 2) for run in range(RUNS) for _ in range(2)]
    assert "divided: as given, by bearing: 2 in train, 1 in validation" in notes
    del more["split"]
    path = csv(tmp_path / "long.csv", columns(list("abcdef"), **more))
    left_out = recordings(path, WINDOWS, rules=Rules("fault", "bearing"), splits=Splits(leave_out=("b",)))
    assert left_out.splits == ("train", "train", "test", "test", "train", "train")


def test_a_folder_of_tables(tmp_path: Path) -> None:
    for name in ("inner", "outer"):
        (tmp_path / name).mkdir()
        csv(tmp_path / name / "1.csv", columns(list("abcdef")))
    (one,) = pack_source(recordings(tmp_path, WINDOWS), tmp_path / "out")
    assert (one["samples"], one["names"]) == (2 * 2 * RUNS, "inner, outer")


def test_rows_of_no_recording_are_told(tmp_path: Path) -> None:
    table = columns(list("abcdef"))
    table["run"][LENGTH : LENGTH + 5] = ""
    _, notes = items(recordings(csv(tmp_path / "long.csv", table), WINDOWS))
    assert "left out: 5 rows of no recording, run is empty" in notes


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--id", "test"], 2, "--id test: "),
        (["--id", "run", "--label", "kind"], 2, "--label kind: "),
        (["--id", "run", "--group-by", "shaft"], 2, "--group-by shaft: "),
        (["--id", "run", "--label", "acc"], 65, "run a: acc is "),
    ],
)
def test_what_a_table_does_not_say(tmp_path: Path, options: list[str], code: int, told: str, capsys) -> None:
    path = csv(tmp_path / "long.csv", columns(list("abcdef")))
    assert main(["recordings", str(path), str(tmp_path / "out"), "--length", "20", *options]) == code
    said = capsys.readouterr().err
    assert told in said
    assert "has the columns run, time, acc" in said or "must say one thing of a recording" in said


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(ConfigError, match=r"a.npy is no table; there are \.parquet \.csv \.tsv"):
        recordings(tmp_path / "a.npy", WINDOWS)
    (tmp_path / "b.csv").write_text("no numbers\n")
    with pytest.raises(DataError, match=r"b\.csv: no table of numbers"):
        recordings(tmp_path / "b.csv", WINDOWS)


def test_a_table_of_several_recordings_is_told_without_the_option(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"irregular times: 1 .* where another recording begins --id COLUMN"):
        pack_source(
            recordings(csv(tmp_path / "a" / "long.csv", columns(list("abcdef"))).parent, Windows(20, 20)),
            tmp_path / "out",
        )


def test_a_table_is_read_once_for_all_its_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv(tmp_path / "long.csv", columns(list("abcdef")))
    source, read, asked = recordings(path, WINDOWS), text.find_dialect, []
    monkeypatch.setattr(text, "find_dialect", lambda one, texts: asked.append(one) or read(one, texts))
    assert len(items(source)[0]) == 2 * RUNS
    assert asked == [path]
    text.read_text(path, Choice(("acc",), irregular_times="ignore"))  # without recordings nothing is kept
    assert asked == [path, path]
