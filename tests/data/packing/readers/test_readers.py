"""Recordings of every kind of file, read back bit for bit; what is left out is told, what is unclear is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.launching import ROOT
from scipy.io import savemat, wavfile

from savae_dist.data.packing.readers import READERS, kind_of, read_recording
from savae_dist.data.packing.readers.own import OwnReader
from savae_dist.data.packing.readers.signal import Choice, Signal, Unreadable
from savae_dist.errors import BadSample, ConfigError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 1000))


def read(path: Path, *variables: str, **options: Any) -> tuple[np.ndarray, Signal]:
    """The whole recording, and the signal that it was read from."""
    with read_recording(path, Choice(variables, **options)) as signal:
        return signal.read(0, signal.length), signal


def refused(path: Path, *variables: str, **options: Any) -> str:
    """Why the file cannot be used, and what was found in it."""
    with pytest.raises(Unreadable) as raised:
        read(path, *variables, **options)
    return f"{raised.value}: {raised.value.found}"


def write_all(folder: Path) -> dict[str, tuple[np.ndarray, float, tuple[str, ...]]]:
    """Files of all kinds; by name what is to be read from each: values, rate and which variables to ask for."""
    folder.mkdir()
    counts = (X * 5000).astype(np.int16)
    wavfile.write(folder / "pcm.wav", 8000, counts.T)
    wavfile.write(folder / "mono.wav", 8000, counts[0])
    wavfile.write(folder / "float.wav", 48000, X.T.astype(np.float32))
    wavfile.write(folder / "int32.wav", 8000, counts.T.astype(np.int32) * 65536)
    wavfile.write(folder / "bytes.wav", 8000, (counts[0] % 256).astype(np.uint8))
    np.save(folder / "rows.npy", X)
    np.save(folder / "columns.npy", X.T)
    np.savez(folder / "x.npz", x=X, other=X[:, :5], fs=np.array(12000))
    np.savez(folder / "named.npz", a=X[0], b=X[1], rate=500.0)
    np.savez(folder / "only.npz", signal=X)
    savemat(folder / "m.mat", {"X097_DE_time": X[0][:, None], "X097_FE_time": X[1][:, None], "X097RPM": 1796.0})
    savemat(folder / "one.mat", {"signal": X.T, "fs": 25600.0})
    np.savetxt(folder / "plain.csv", X.T, delimiter=",", fmt="%.17g")
    np.savetxt(folder / "named.csv", X.T, delimiter=";", fmt="%.17g", header="left;right", comments="")
    pcm = counts / 32768
    return {
        "pcm.wav": (pcm, 8000, ()),
        "mono.wav": (pcm[:1], 8000, ()),
        "float.wav": (X.astype(np.float32), 48000, ()),
        "int32.wav": (pcm, 8000, ()),
        "bytes.wav": (((counts[:1] % 256) - 128) / 128, 8000, ()),
        "rows.npy": (X, 0, ()),
        "columns.npy": (X, 0, ()),
        "x.npz": (X, 12000, ()),
        "named.npz": (X[::-1], 500, ("b", "a")),
        "only.npz": (X, 0, ()),
        "m.mat": (X[:1], 0, ("*_DE_time",)),
        "one.mat": (X, 25600, ()),
        "plain.csv": (X, 0, ()),
        "named.csv": (X[1:], 0, ("right",)),
    }


def test_every_kind_of_file_bit_for_bit(tmp_path: Path) -> None:
    for name, (expected, rate, variables) in write_all(tmp_path / "f").items():
        x, signal = read(tmp_path / "f" / name, *variables)
        assert x.tobytes() == np.ascontiguousarray(expected, np.float64).tobytes(), name
        assert (x.shape, signal.rate) == (expected.shape, rate), name
        with read_recording(tmp_path / "f" / name, Choice(variables)) as again:
            assert again.read(17, 400).tobytes() == np.ascontiguousarray(x[:, 17:400]).tobytes(), name


def test_files_that_hold_no_signal(tmp_path: Path) -> None:
    write_all(tmp_path / "f")
    np.savez(tmp_path / "pickle.npz", x=np.array([{}], dtype=object))
    (tmp_path / "text.csv").write_text("1,2\n" * 20 + "3,four\n" + "1,2\n" * 20)
    (tmp_path / "prose.txt").write_text("to whom it may concern\n")
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    np.save(tmp_path / "complex.npy", X + 1j)
    for name, content in (("a.mat", b"no"), ("a.wav", b"RIFF"), ("a.npz", b""), ("a.npy", b"\x93N"), ("a.h5", b"x")):
        (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / "f" / "m.mat") == (
        "several variables: name one with --variable; it holds X097_DE_time (float64 1000x1), "
        "X097_FE_time (float64 1000x1)"
    )
    assert "it holds a (float64 1000), b (float64 1000)" in refused(tmp_path / "f" / "named.npz")
    assert refused(tmp_path / "f" / "x.npz", "y").startswith("no variable y: it holds x (float64 2x1000), other")
    assert refused(tmp_path / "cube.npy") == "neither [length] nor [channels, length]: x is 2x3x4"
    assert refused(tmp_path / "complex.npy").startswith("values of type complex128")
    assert refused(tmp_path / "text.csv") == "undecodable: line 21, column 2: 'four' is no number"
    assert refused(tmp_path / "prose.txt") == "no table of numbers: its first line is 'to whom it may concern'"
    for name in ("a.mat", "a.wav", "a.npz", "a.npy", "a.h5", "pickle.npz"):
        assert refused(tmp_path / name).startswith("undecodable: "), name
    with pytest.raises(BadSample, match="missing"):
        read(tmp_path / "none.wav")


def test_what_was_not_asked_for_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, other=X[:, :5], load=2.0, fs=100.0)
    _, signal = read(tmp_path / "a.npz")
    assert signal.left_out == ("other (not asked for)", "load = 2")
    assert signal.channels == ("x1", "x2")


def test_a_clock_beside_the_signal_gives_the_rate(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", t=np.arange(1000) / 500, acc=X[0])
    x, signal = read(tmp_path / "a.npz")
    assert x.tobytes() == X[:1].tobytes()
    assert (signal.rate, signal.left_out) == (500, ("t (time, taken as seconds)",))


def test_segments_are_not_taken_for_channels(tmp_path: Path) -> None:
    segments = RNG.standard_normal((256, 100))
    np.save(tmp_path / "a.npy", segments)
    assert "x is 256x100; say which axis is time: --time-axis first|last" in refused(tmp_path / "a.npy")
    x, _ = read(tmp_path / "a.npy", time_axis="last")
    assert x.tobytes() == segments.tobytes()
    x, _ = read(tmp_path / "a.npy", time_axis="first")
    assert x.tobytes() == np.ascontiguousarray(segments.T).tobytes()


def test_one_pattern_for_many_files_takes_the_one_that_bears_the_name(tmp_path: Path) -> None:
    for name in ("99", "100"):
        savemat(tmp_path / f"{name}.mat", {"X098_DE_time": X[0][:, None], "X099_DE_time": X[1, :900][:, None]})
    x, signal = read(tmp_path / "99.mat", "*_DE_time")
    assert x.tobytes() == X[1:, :900].tobytes()
    assert signal.left_out == ("X098_DE_time (not asked for)",)
    assert refused(tmp_path / "100.mat", "*_DE_time") == (
        "channels of different length: X098_DE_time has 1000, X099_DE_time has 900"
    )


def structs() -> dict[str, Any]:
    """A struct, a struct array whose elements have names, and a cell array."""
    y = np.zeros((1, 3), np.dtype([("Name", "O"), ("Data", "O")]))
    for i, (name, n) in enumerate((("force", 64), ("speed", 64), ("vibration_1", 1000))):
        y[0, i] = (name, X[:1, :n])
    cell = np.empty((1, 2), object)
    cell[0, 0], cell[0, 1] = X[:1], X[1:, :900]
    return {"bearing": {"rate": 25.0, "sr": 97656.0, "gs": X[0][:, None]}, "run": {"Info": 1.0, "Y": y}, "data": cell}


def write_structs_as_hdf5(path: Path) -> None:
    """The same as MATLAB 7.3 lays it out: axes turned, cells and struct arrays by reference."""
    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")

        def kept(name: str, value: Any) -> h5py.Dataset:
            text = isinstance(value, str)
            data = np.frombuffer(value.encode("utf-16-le"), np.uint16)[:, None] if text else np.asarray(value).T
            one = refs.create_dataset(name, data=data)
            one.attrs["MATLAB_class"] = np.bytes_("char" if text else "double")
            return one

        def references(group: h5py.Group, name: str, values: list[Any]) -> h5py.Dataset:
            held = [kept(f"{name}{i}", value).ref for i, value in enumerate(values)]
            return group.create_dataset(name, data=np.array(held, h5py.ref_dtype)[:, None], dtype=h5py.ref_dtype)

        held = structs()
        for name in ("bearing", "run"):
            file.create_group(name).attrs["MATLAB_class"] = np.bytes_("struct")
        for name, value in held["bearing"].items():
            file["bearing"][name] = np.atleast_2d(value).T
        file["run"]["Info"] = np.array([[1.0]])
        y = file["run"].create_group("Y")
        elements = held["run"]["Y"].ravel()
        references(y, "Name", [one["Name"] for one in elements])
        references(y, "Data", [one["Data"] for one in elements])
        references(file, "data", list(held["data"].ravel())).attrs["MATLAB_class"] = np.bytes_("cell")
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124, b" ") + b"\x00\x02IM"
    with path.open("r+b") as raw:
        raw.write(head)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_structs_and_cells_of_matlab_by_path(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.mat"
    savemat(path, structs()) if version == "5" else write_structs_as_hdf5(path)
    for variable, expected in (
        ("bearing.gs", X[:1]),
        ("gs", X[:1]),
        ("*.Y[vibration_1].Data", X[:1]),
        ("*.Y[vibration_1]", X[:1]),
        ("data{2}", X[1:, :900]),
    ):
        x, signal = read(path, variable)
        assert x.tobytes() == np.ascontiguousarray(expected).tobytes(), variable
        assert signal.rate == 97656
        assert "bearing.rate = 25; bearing.sr is the rate" in signal.left_out
    assert "run.Y[force].Data (float64 1x64)" in refused(path, "none") or version == "7.3"
    assert refused(path, "Data").startswith("several variables Data: it holds run.Y[force].Data")


def test_hdf5_by_content_and_not_by_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["run/acc"] = X
        file["run/fs"] = 5000.0
    x, signal = read(tmp_path / "a.mat")
    assert x.tobytes() == X.tobytes()
    assert (signal.rate, signal.channels) == (5000, ("run.acc1", "run.acc2"))
    # Says 7.0 in its text and 7.3 in its version field, and is neither.
    (tmp_path / "odd.mat").write_bytes(b"MATLAB 7.0 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(600))
    assert refused(tmp_path / "odd.mat").startswith("undecodable: ")


def test_tables_and_attributes_in_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["run"] = np.rec.fromarrays([np.arange(1000) / 250, X[0], X[1]], names="t,acc,volt")
    x, signal = read(tmp_path / "table.h5", "acc", "run.volt")
    assert x.tobytes() == X.tobytes()
    assert signal.rate == 250
    assert signal.left_out == ("run.t (time, taken as seconds)",)
    with h5py.File(tmp_path / "attributes.h5", "w") as file:
        file["vib"] = X
        file["vib"].attrs["sampling_rate"] = 5000
        file["vib"].attrs["gain"] = 2.5
        file["vib"].attrs["unit"] = "g"
    x, signal = read(tmp_path / "attributes.h5")
    assert (signal.rate, signal.left_out) == (5000, ("vib.gain = 2.5",))
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["note"] = "of the day"
        file["fs"] = 100.0
    assert refused(tmp_path / "none.h5") == (
        "no variable: it holds no array of numbers with more than one value, but note (text)"
    )


def test_sound_files_of_24_bits_and_flac(tmp_path: Path) -> None:
    import soundfile

    counts = (X * 100_000).astype(np.int32)
    for name, subtype in (("a.wav", "PCM_24"), ("a.flac", "PCM_24"), ("b.wav", "FLOAT"), ("b.flac", "PCM_16")):
        scaled = counts.T / 2**23
        soundfile.write(tmp_path / name, scaled, 44100, subtype=subtype)
        x, signal = read(tmp_path / name)
        assert signal.rate == 44100
        tolerance = 1e-7 if subtype != "PCM_16" else 2**-15
        np.testing.assert_allclose(x, scaled.T, rtol=0, atol=tolerance)
        with read_recording(tmp_path / name, Choice()) as again:
            assert again.read(300, 500).tobytes() == np.ascontiguousarray(x[:, 300:500]).tobytes()


def test_tdms(tmp_path: Path) -> None:
    from nptdms import ChannelObject, TdmsWriter

    with TdmsWriter(tmp_path / "a.tdms") as writer:
        one = ChannelObject("run", "acc_x", X[0], {"wf_increment": 1 / 25600})
        two = ChannelObject("run", "acc_y", X[1], {"wf_increment": 1 / 25600})
        writer.write_segment([one, two, ChannelObject("run", "notes", np.array(["a", "b"]))])
    x, signal = read(tmp_path / "a.tdms")
    assert x.tobytes() == X.tobytes()
    assert (signal.rate, signal.channels) == (25600, ("run.acc_x", "run.acc_y"))
    assert signal.left_out == ("run.notes (text or times)",)
    x, signal = read(tmp_path / "a.tdms", "acc_y")
    assert x.tobytes() == X[1:].tobytes()


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"time": np.arange(1000) / 200, "x": X[0], "y": X[1], "note": ["a"] * 1000}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    x, signal = read(tmp_path / "a.parquet")
    assert x.tobytes() == X.tobytes()
    assert (signal.rate, signal.left_out) == (200, ("note (text)", "time (time, taken as seconds)"))


def test_a_reader_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def read(path):\n"
        "    return {'acc': np.fromfile(path, '<f8')}, 100.0, {'load': 3}\n"
        "def broken(path):\n"
        "    raise RuntimeError('no such\\nheader')\n"
    )
    X[0].tofile(tmp_path / "a.raw")
    own = OwnReader.parse(f"{tmp_path / 'mine.py'}:read")
    with read_recording(tmp_path / "a.raw", Choice(), reader=own) as signal:
        assert signal.read(0, 1000).tobytes() == X[:1].tobytes()
        assert (signal.rate, signal.attributes, signal.channels) == (100, {"load": 3}, ("acc",))
    with pytest.raises(Unreadable) as raised:
        read_recording(tmp_path / "a.raw", Choice(), reader=OwnReader.parse(f"{tmp_path / 'mine.py'}:broken"))
    assert (str(raised.value), raised.value.found) == ("broken failed", "RuntimeError: no such header")
    with pytest.raises(ConfigError, match="has no function 'other'"):
        OwnReader.parse(f"{tmp_path / 'mine.py'}:other")
    with pytest.raises(ConfigError, match=r"is no Python file: give --reader FILE\.py:function"):
        OwnReader.parse(f"{tmp_path / 'none.py'}:read")


def test_gzipped_text(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write("a,b\n" + "".join(f"{v!r},{w!r}\n" for v, w in X.T.tolist()))
    assert kind_of("A.CSV.GZ") == ".csv.gz"
    assert read(tmp_path / "a.csv.gz")[0].tobytes() == X.tobytes()


def test_every_reader_is_tried_here() -> None:
    tried = {".wav", ".flac", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".tdms", ".parquet", ".csv", ".csv.gz"}
    assert READERS.keys() - tried == {".tsv", ".txt", ".dat", ".asc", ".lvm", ".txt.gz"}  # by test_text.py


def nested(depth: int, value: Any) -> Any:
    for level in reversed(range(depth)):
        value = {f"f{level}": value}
    return value


def nested_in_hdf5(path: Path, depth: int) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("run/x", data=X[0])
        file["run/note"] = "of the day"
        file.create_dataset("deep/" + "/".join(f"f{level}" for level in range(depth)), data=X[1])


@pytest.mark.parametrize("kind", ["mat", "h5"])
def test_what_lies_too_deep_and_what_is_no_number_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    for depth, there in ((7, True), (9, False), (12, False)):
        if kind == "mat":
            savemat(path, {"run": {"x": X[0], "note": "of the day"}, "deep": nested(depth, X[1])})
        else:
            nested_in_hdf5(path, depth)
        _, signal = read(path, "run.x")
        told = [text for text in signal.left_out if text.startswith("deep.f0.f1.f2.f3.f4.f5.f6")]
        assert len(told) == 1
        assert told[0].endswith("(not asked for)" if there else "(nested deeper than 8, not looked at)")
        assert "run.note (text)" in signal.left_out


def test_an_object_of_matlab_is_no_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """scipy gives the numbers by which MATLAB finds a table as if they were its values."""
    import scipy.io
    from scipy.io.matlab import MatlabOpaque

    fields = [("s0", "O"), ("s1", "O"), ("s2", "O"), ("arr", "O")]
    table = np.array([(b"t", b"MCOS", b"table", np.arange(6, dtype=np.uint32))], fields).view(MatlabOpaque)
    savemat(tmp_path / "a.mat", {"acc": X[0]})
    held = scipy.io.loadmat(tmp_path / "a.mat") | {"t": table}
    monkeypatch.setattr(scipy.io, "loadmat", lambda path: held)
    x, signal = read(tmp_path / "a.mat")
    assert x.tobytes() == X[:1].tobytes()
    assert "t (an object of MATLAB, such as a table: save its columns as arrays)" in signal.left_out


def test_text_in_an_npz_is_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X[0], who=np.array(["a", "b"]), z=X[0] * 1j)
    _, signal = read(tmp_path / "a.npz")
    assert "who (text)" in signal.left_out


@pytest.mark.parametrize("end", sorted(READERS))
@pytest.mark.parametrize("content", [b"", b"\0" * 700, b"fLaC" + b"\x7f" * 500, bytes(range(256)) * 4])
def test_bytes_that_are_no_file_of_their_kind_are_no_crash(tmp_path: Path, end: str, content: bytes) -> None:
    (tmp_path / f"a{end}").write_bytes(content)
    with pytest.raises(Unreadable) as raised:
        read(tmp_path / f"a{end}")
    assert raised.value.found
    assert "\n" not in raised.value.found


def test_a_file_that_is_damaged_in_its_middle_is_no_crash(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.tile(X[0], 40), chunks=(1000,), compression="gzip")
        offset = file["x"].id.get_chunk_info(20).byte_offset
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[offset : offset + 64] = b"\xff" * 64
    (tmp_path / "a.h5").write_bytes(data)
    with read_recording(tmp_path / "a.h5", Choice()) as signal:
        assert signal.read(0, 1000).tobytes() == X[:1].tobytes()
        with pytest.raises(Unreadable, match="undecodable"):
            signal.read(20_000, 21_000)


def test_the_reader_of_the_documentation_reads(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "data.md").read_text()
    (tmp_path / "logger.py").write_text(page.split("```python\n# logger.py")[1].split("```")[0].partition("\n")[2])
    counts = (X.T * 1000).astype("<i2")
    head = json.dumps({"version": 1, "g_per_count": 0.5, "load": 3}).encode().ljust(64)
    (tmp_path / "day1.raw").write_bytes(head + counts.tobytes())
    (tmp_path / "day2.raw").write_bytes(head.replace(b": 1,", b": 2,") + counts.tobytes())
    own = OwnReader.parse(f"{tmp_path / 'logger.py'}:read")
    with read_recording(tmp_path / "day1.raw", Choice(), reader=own) as signal:
        assert (signal.read(0, 1000) == (counts * [0.5, 1]).T).all()
        assert (signal.channels, signal.rate) == (("acc", "tacho"), 25600)
        assert signal.attributes == {"load": 3, "logger": "day1"}
    with pytest.raises(Unreadable) as raised:
        read_recording(tmp_path / "day2.raw", Choice(), reader=own)
    assert raised.value.found == "ValueError: version 2"
