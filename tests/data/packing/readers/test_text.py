"""Tables of numbers as instruments and spreadsheets write them; clocks are no channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from savae_dist.data.packing.readers import read_recording
from savae_dist.data.packing.readers.signal import Choice, Signal, Unreadable

X = np.random.default_rng(0).standard_normal((40, 2)).round(6)
BODY = "".join(f"{v:.6f},{w:.6f}\n" for v, w in X)


def read(folder: Path, text: str | bytes, name: str = "a.csv", choice: Choice | None = None) -> Signal:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_recording(path, choice or Choice())


def found(folder: Path, text: str | bytes, **options: object) -> str:
    with pytest.raises(Unreadable) as raised:
        read(folder, text, choice=Choice(**options))
    return f"{raised.value}: {raised.value.found}"


SEMICOLONS = BODY.replace(",", ";").replace(".", ",")
DIALECTS = {
    "plain": (BODY, ("column 1", "column 2")),
    "names": ("a,b\n" + BODY, ("a", "b")),
    "units row": ("a,b\nm/s2,m/s2\n" + BODY, ("a", "b")),
    "units row in brackets": ("acc,rpm\n[g],[1/min]\n" + BODY, ("acc", "rpm")),
    "preamble": ("Title: run 7\nDate,2020-01-01\n\na,b\n" + BODY, ("a", "b")),
    "preamble with numbers": ("Samples,1000\nOperator,nobody\na,b\n" + BODY, ("a", "b")),
    "comments": ("# device 1\n# rate 2000, range 4\na,b\n" + BODY, ("a", "b")),
    "names in a comment": ("# a,b\n" + BODY, ("a", "b")),
    "trailing separator": (BODY.replace("\n", ",\n"), ("column 1", "column 2")),
    "names and trailing separator": (("a,b\n" + BODY).replace("\n", ",\n"), ("a", "b")),
    "quotes": ("a,b\n" + "".join(f'"{v:.6f}","{w:.6f}"\n' for v, w in X), ("a", "b")),
    "decimal commas": ("a;b\n" + SEMICOLONS, ("a", "b")),
    "decimal commas and tabs": ("a\tb\n" + SEMICOLONS.replace(";", "\t"), ("a", "b")),
    "decimal commas and blanks": (SEMICOLONS.replace(";", "   "), ("column 1", "column 2")),
    "blank first line": ("\n" + BODY, ("column 1", "column 2")),
    "blanks": ("  a   b\n" + BODY.replace(",", "    "), ("a", "b")),
    "tabs": ("a\tb\n" + BODY.replace(",", "\t"), ("a", "b")),
    "bars": (BODY.replace(",", "|"), ("column 1", "column 2")),
    "CRLF": ("a,b\r\n" + BODY.replace("\n", "\r\n"), ("a", "b")),
    "exponents": ("a,b\n" + "".join(f"{v:.6e},{w:.6E}\n" for v, w in X), ("a", "b")),
    "byte order mark": (b"\xef\xbb\xbf" + ("a,b\n" + BODY).encode(), ("a", "b")),
    "UTF-16": (("a,b\n" + BODY).encode("utf-16"), ("a", "b")),
    "Latin-1": ("a m/s²,b °C\n".encode("latin-1") + BODY.encode(), ("a m/s�", "b �C")[:0]),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_dialects(tmp_path: Path, dialect: str, name: str) -> None:
    text, names = DIALECTS[dialect]
    signal = read(tmp_path, text, name)
    assert signal.read(0, signal.length).tobytes() == np.ascontiguousarray(X.T).tobytes()
    assert signal.left_out == ()
    if names:
        assert signal.channels == names


def test_one_column(tmp_path: Path) -> None:
    for text in ("\n".join(map(str, X[:, 0])), "acc\n" + "\n".join(map(str, X[:, 0])) + "\n"):
        signal = read(tmp_path, text, "a.dat")
        assert signal.read(0, 40).tobytes() == np.ascontiguousarray(X.T[:1]).tobytes()


def test_an_empty_cell_spoils_its_place_only(tmp_path: Path) -> None:
    lines = BODY.splitlines()
    lines[20] = lines[20].split(",")[0] + ","
    x = read(tmp_path, "\n".join(lines)).read(0, 40)
    assert np.argwhere(np.isnan(x)).tolist() == [[1, 20]]


def test_what_is_wrong_is_said_with_its_line(tmp_path: Path) -> None:
    lines = BODY.splitlines()
    lines[20] = "0.5,four"
    assert found(tmp_path, "a,b\n" + "\n".join(lines)) == "undecodable: line 22, b: 'four' is no number"
    lines[20] = "0.5,1,2"
    assert "undecodable: line 21 has more than 2 columns" in found(tmp_path, "\n".join(lines))
    assert found(tmp_path, "a,b\nc,d\n") == "no table of numbers: its first line is 'a,b'"
    listed = found(tmp_path, "path,label\na.wav,good\n")
    assert listed.endswith(
        "its first line is 'path,label'; if it is a list of recordings, give it in place of its folder"
    )
    assert found(tmp_path, "") == "no table of numbers: it is empty"
    assert found(tmp_path, "a,b\n" + BODY, variables=("c",)) == "no variable c: it holds a (float64 40), b (float64 40)"


def test_columns_by_name_pattern_and_number(tmp_path: Path) -> None:
    text = "acc_x,acc_y,temp\n" + BODY.replace("\n", ",20.5\n")
    for variables, names in (
        ((), ("acc_x", "acc_y", "temp")),
        (("acc_*",), ("acc_x", "acc_y")),
        (("acc_y", "acc_x"), ("acc_y", "acc_x")),
        (("3", "1"), ("temp", "acc_x")),
    ):
        signal = read(tmp_path, text, choice=Choice(variables))
        assert signal.channels == names
        assert len(signal.left_out) == 3 - len(names)


def rows(*columns: object) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in zip(*columns, X[:, 0], X[:, 1], strict=True))


STEPS = np.arange(40)
MINUTES = [f"23:{40 + i}" if i < 20 else f"00:{i - 20:02d}" for i in STEPS]  # over midnight
CLOCKS = {
    "time": ("time,a,b\n" + rows(np.round(STEPS / 12000, 6)), 12000, "time (time, taken as seconds)"),
    "ms": ("Time [ms],a,b\n" + rows(STEPS * 0.5), 2000, "Time [ms] (time in ms)"),
    "units row": ("t,a,b\nms,g,g\n" + rows(STEPS * 0.5), 2000, "t (time in ms)"),
    "moments": ("timestamp,a,b\n" + rows([f"2020-01-01 10:00:{i:02d}.5" for i in STEPS]), 1, "timestamp (time)"),
    "since 1970": ("timestamp,a,b\n" + rows(1_700_000_000_000 + 5 * STEPS), 200, "timestamp (time in ms since 1970)"),
    "nanoseconds": ("t,a,b\n" + rows(1_700_000_000_000_000_000 + 500_000 * STEPS), 2000, "t (time in ns since 1970)"),
    "date and time": (
        "Date,Time,a,b\n" + rows(["2020-02-28"] * 20 + ["2020-02-29"] * 20, MINUTES),
        1 / 60,
        "Date, Time (date and time)",
    ),
    "pandas' index": (",a,b\n" + rows(STEPS), 0, "column 1 (counts rows)"),
    "a counter": ("sample,a,b\n" + rows(STEPS + 1), 0, "sample (counts rows)"),
    "no names": (rows(STEPS / 100), 100, "column 1 (rises in equal steps: time, taken as seconds)"),
    "FEMTO": (
        "".join(
            f"9,39,{39 + (65664 + 39 * i) // 1000000},{(65664 + round(39.0625 * i)) % 1000000},{v},{w}\n"
            for i, (v, w) in enumerate(X)
        ),
        25600,
        "columns 1 to 4 (hour, minute, second, microsecond)",
    ),
}


@pytest.mark.parametrize("kind", CLOCKS)
def test_clocks_are_no_channels_and_give_the_rate(tmp_path: Path, kind: str) -> None:
    text, rate, told = CLOCKS[kind]
    signal = read(tmp_path, text)
    assert signal.read(0, 40).tobytes() == np.ascontiguousarray(X.T).tobytes()
    assert signal.left_out == (told,)
    assert signal.rate == pytest.approx(rate, rel=2e-3)


def test_a_clock_that_is_asked_for_is_a_channel(tmp_path: Path) -> None:
    signal = read(tmp_path, CLOCKS["time"][0], choice=Choice(("time", "a")))
    assert signal.channels == ("time", "a")
    assert signal.left_out == ("b (not asked for)",)


def test_a_ramp_alone_is_a_channel(tmp_path: Path) -> None:
    assert read(tmp_path, "\n".join(map(str, STEPS * 0.5))).read(0, 40).tolist() == [(STEPS * 0.5).tolist()]


def test_irregular_times(tmp_path: Path) -> None:
    times = np.r_[STEPS[:20] / 100, STEPS[20:] / 100 + 1.0]
    text = "time,a,b\n" + rows(times)
    assert found(tmp_path, text).startswith("irregular times: steps of time (time, taken as seconds) go from 0.01 to")
    assert read(tmp_path, text, choice=Choice(irregular_times="ignore")).rate == 0
    even = read(tmp_path, text, choice=Choice(irregular_times="interpolate"))
    assert (even.rate, even.length) == (100, 140)
    np.testing.assert_allclose(even.read(0, 140)[0], np.interp(np.arange(140) / 100, times, X[:, 0]), atol=1e-9)


def test_one_recording_of_a_table_of_several(tmp_path: Path) -> None:
    text = "run,a,b\n" + rows(["p"] * 25 + ["q"] * 15)
    signal = read(tmp_path, text, choice=Choice(recording=("run", "q")))
    assert signal.read(0, 15).tobytes() == np.ascontiguousarray(X[25:].T).tobytes()
    assert signal.left_out == ("run (tells recordings apart)",)


@pytest.mark.parametrize("unit", ["m/s²", "°C", "µm/s"])
def test_units_of_another_encoding_are_no_names(tmp_path: Path, unit: str) -> None:
    text = f"Zeit;Weg\ns;{unit}\n" + "".join(f"{i / 100:.2f};{v!r}\n" for i, v in enumerate(X[:, 0].tolist()))
    (tmp_path / "a.csv").write_bytes(text.encode("cp1252"))
    signal = read_recording(tmp_path / "a.csv", Choice())
    assert signal.channels == ("Weg",)
    assert (signal.rate, signal.left_out) == (100, ("Zeit (time in s)",))


def test_a_comment_at_the_end_of_a_long_table(tmp_path: Path) -> None:
    lines = "".join(f"{i % 7},{i % 11}\n" for i in range(600))
    signal = read(tmp_path, "a,b\n" + lines + "# end of the file\n")
    assert signal.length == 600
