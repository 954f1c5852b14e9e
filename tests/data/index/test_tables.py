from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from savae_dist.data import Order, Reader, Request, Shards, pack
from savae_dist.data.index import tables
from savae_dist.errors import ConfigError, DataError, UserError
from savae_dist.files import draft_of
from savae_dist.preprocess import DataSpec


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], style: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=style) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 6, 5), dtype=np.uint8)


def foreign(path: Path, x: np.ndarray, y: np.ndarray, style: int = tarfile.GNU_FORMAT) -> Path:
    pairs = [(f"some/folder/img{i}", i) for i in range(len(x))]
    members = [
        entry for key, i in pairs for entry in ((f"{key}.png", png(x[i])), (f"{key}.cls", str(y[i]).encode() + b"\n"))
    ]
    return write_tar(path, members, style)


def everything(shards: Shards) -> tuple[np.ndarray, np.ndarray]:
    batch = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, shards.size, range(shards.size))]
    return batch.x.numpy(), batch.y.numpy()


def one_line(caught: pytest.ExceptionInfo[UserError], *words: str) -> None:
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert all(word in message for word in words), message


@pytest.mark.parametrize("style", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_foreign_tar_of_png_and_cls(tmp_path, style):
    x, y = images(7), np.arange(7) % 3
    shards = Shards.open(foreign(tmp_path / "any.tar", x, y, style))
    assert shards.spec == DataSpec("image", (1, 6, 5), 3, "unit")
    assert shards.label_counts == {0: 3, 1: 2, 2: 2}
    got = everything(shards)
    assert (got[0] == x).all()
    assert (got[1] == y).all()


def test_what_killed_builders_left_is_removed(tmp_path, monkeypatch):
    foreign(tmp_path / "any.tar", images(7), np.arange(7) % 3)
    seen = []

    class Killed(BaseException):
        """In place of SIGKILL."""

    def kill(*_: object) -> None:
        seen.extend(path.name for path in tmp_path.iterdir())
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(tables, "index_shard", kill)
        with pytest.raises(Killed):
            Shards.open(tmp_path / "any.tar")
    (folder,) = (name for name in seen if name.startswith(".index-"))
    (tmp_path / folder).mkdir()  # a kill leaves it
    draft_of(tmp_path / "labels.npy").touch()
    Shards.open(tmp_path / "any.tar")
    names = {"any.tar", "any.idx.npy", "any.forms.npy", "index.json", "labels.npy", ".index.lock"}
    assert {path.name for path in tmp_path.iterdir()} - {"cache"} == names


def test_tar_program_and_long_names(tmp_path):
    x = images(3)
    deep = tmp_path / "src" / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    for i in range(3):
        (deep / f"k{i}.png").write_bytes(png(x[i]))
        (deep / f"k{i}.cls").write_text(str(i))
    subprocess.run(["tar", "--sort=name", "-cf", tmp_path / "gnu.tar", "-C", tmp_path / "src", "."], check=True)
    got = everything(Shards.open(tmp_path / "gnu.tar"))
    assert (got[0] == x).all()
    assert got[1].tolist() == [0, 1, 2]


def test_rgb_jpeg_and_missing_labels(tmp_path):
    rgb = np.full((8, 9, 3), (200, 30, 60), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "jpeg", quality=95)
    members = [("a.png", png(rgb)), ("a.cls", b"2"), ("b.JPG", stream.getvalue()), ("c.txt", b"no sample")]
    shards = Shards.open(write_tar(tmp_path / "mixed.tar", members))
    x, y = everything(shards)
    assert shards.spec.shape == (3, 8, 9)
    assert (x[0] == rgb).all()
    assert abs(x[1].astype(int) - rgb).max() <= 4  # red is still red: the channels are not swapped
    assert y.tolist() == [2, -1]
    assert shards.index["shards"][0]["dropped"] == {"no sample": {"count": 1, "keys": ["c"]}}


def test_windows_of_other_types_become_float32(tmp_path):
    windows = [np.arange(5, dtype=kind) - 2 for kind in ("<f4", "<f8", "<i2", ">f4", "<f2")]
    members = []
    for i, window in enumerate(windows):
        stream = io.BytesIO()
        np.save(stream, window)
        members.append((f"w{i}.npy", stream.getvalue()))
    shards = Shards.open(write_tar(tmp_path / "w.tar", members))
    x, y = everything(shards)
    assert x.dtype == np.float32
    assert (x == np.arange(5) - 2).all()
    assert (y == -1).all()
    assert shards.spec == DataSpec("signal", (1, 5), 0, "window")


def test_offsets_and_crcs_are_those_of_tarfile(tmp_path):
    x, y = images(9), np.array([3, -1, 0, 1, 2, 3, 3, 0, 0])
    path = foreign(tmp_path / "a.tar", x, y)
    table = Shards.open(path).samples(0)
    with tarfile.open(path) as tar:
        members = [info for info in tar if info.name.endswith(".png")]
        assert table["offset"].tolist() == [info.offset_data for info in members]
        assert table["crc"].tolist() == [zlib.crc32(tar.extractfile(info).read()) for info in members]
    assert table["label"].tolist() == y.tolist()


def test_all_ways_to_name_the_same_shards(tmp_path):
    x, y = images(30), np.arange(30) % 5
    folder = tmp_path / "set"
    pack(x, y, folder, shard_size=10)
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    assert len(tars) == 3
    for source in (folder, str(folder), f"{folder}/shards-{{000000..000002}}.tar", tars, [str(folder)]):
        shards = Shards.open(source)
        assert shards.counts.tolist() == [10, 10, 10]
        assert shards.digest == Shards.open(folder).digest
    one = Shards.open(tars[1])
    assert one.size == 10
    assert one.digest != shards.digest
    assert (one.all_labels() == shards.all_labels()[10:20]).all()
    assert (everything(one)[0] == everything(shards)[0][10:20]).all()


def test_a_folder_of_sets_names_them(tmp_path):
    for name in ("validation", "train"):
        pack(images(3), np.arange(3), tmp_path / name)
    with pytest.raises(DataError) as caught:
        Shards.open(tmp_path)
    one_line(caught, "holds no .tar shards; name one of its sets, train, validation")


def test_digest_is_of_content_not_of_place(tmp_path):
    x, y = images(20), np.arange(20) % 5
    pack(x, y, tmp_path / "a")
    pack(x, y, tmp_path / "b" / "c")
    changed = x.copy()
    changed[3, 0, 0] ^= 1
    pack(changed, y, tmp_path / "d")
    assert Shards.open(tmp_path / "a").digest == Shards.open(tmp_path / "b" / "c").digest
    assert Shards.open(tmp_path / "a").digest != Shards.open(tmp_path / "d").digest


def test_tars_alone_index_to_the_same(tmp_path):
    x, y = images(20), np.arange(20) % 5
    pack(x, y, tmp_path / "a", shard_size=7)
    digest = Shards.open(tmp_path / "a").digest
    for path in (tmp_path / "a").iterdir():
        if path.suffix != ".tar":
            path.unlink()
    assert Shards.open(tmp_path / "a").digest == digest
    assert (tmp_path / "a" / "index.json").exists()


def test_folder_that_cannot_be_written_is_indexed_in_the_cache(tmp_path, monkeypatch):
    folder = tmp_path / "set"
    folder.mkdir()
    x, y = images(5), np.arange(5)
    foreign(folder / "a.tar", x, y)
    monkeypatch.setattr("savae_dist.data.index.open.os.access", lambda path, mode: False)
    assert (everything(Shards.open(folder))[0] == x).all()
    assert [path.name for path in folder.iterdir()] == ["a.tar"]
    assert len(list((tmp_path / "cache").rglob("index.json"))) == 1


def test_shards_of_one_name_from_two_folders(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        foreign(tmp_path / name / "s.tar", images(4, seed), np.full(4, seed))
    x, y = everything(Shards.open([str(tmp_path / "a" / "s.tar"), str(tmp_path / "b" / "s.tar")]))
    assert (x == np.concatenate([images(4, 0), images(4, 1)])).all()
    assert y.tolist() == [0] * 4 + [1] * 4


INDEX_ONCE = """
import sys
from savae_dist.data import Shards
print(Shards.open(sys.argv[1]).digest)
"""


@pytest.mark.distributed
def test_processes_that_index_at_once_agree(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    foreign(folder / "a.tar", images(200), np.arange(200) % 10)
    runs = [
        subprocess.Popen([sys.executable, "-c", INDEX_ONCE, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    digests = {run.communicate()[0].strip() for run in runs}
    assert all(run.returncode == 0 for run in runs)
    assert digests == {Shards.open(folder).digest}


def test_statistics_and_normalise(tmp_path):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((50, 2, 16)) * [[3.0], [0.01]] + [[1000.0], [-5.0]]).astype(np.float32)
    pack(x, np.zeros(50, int), tmp_path / "s", shard_size=20, block=8, rate=12_000.0)
    shards = Shards.open(tmp_path / "s")
    assert shards.spec == DataSpec("signal", (2, 16), 1, "window", rate=12_000.0)
    spec = shards.with_normalise("dataset").spec
    np.testing.assert_allclose(spec.mean, x.astype(np.float64).mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(spec.std, x.astype(np.float64).std((0, 2)), rtol=1e-9)
    assert shards.with_normalise("none").spec.normalise == "none"
    assert shards.with_normalise("dataset").digest == shards.digest
    pack(images(4), np.zeros(4, int), tmp_path / "i")
    with pytest.raises(ConfigError) as caught:
        Shards.open(tmp_path / "i").with_normalise("dataset")
    one_line(caught, "normalise")


def test_with_spec_refuses_other_samples(tmp_path):
    pack(images(4), np.zeros(4, int), tmp_path / "i")
    with pytest.raises(DataError) as caught:
        Shards.open(tmp_path / "i").with_spec(DataSpec("image", (1, 28, 28), 10, "unit"))
    one_line(caught, "(1, 6, 5)", "(1, 28, 28)")


def test_with_spec_refuses_other_names_of_the_classes(tmp_path):
    """Else a test set that lacks a class would count the next one's samples as that class."""
    sets = {name: tmp_path / name for name in ("abc", "ac", "ab", "unnamed")}
    for name, folder in sets.items():
        pack(images(4), np.zeros(4, int), folder, class_names=() if name == "unnamed" else tuple(name))
    train = Shards.open(sets["abc"])
    for name in ("ab", "unnamed"):
        assert Shards.open(sets[name]).with_spec(train.spec).spec == train.spec
        assert train.with_spec(Shards.open(sets[name]).spec).spec.classes == Shards.open(sets[name]).spec.classes
    with pytest.raises(DataError) as caught:
        Shards.open(sets["ac"]).with_spec(train.spec)
    one_line(caught, "class 1 'c'", "'b'", "--class-names a,b,c")


def test_the_names_of_classes_that_are_advised_fit_both_sets(tmp_path):
    """Those of the other set first, which stay as they are, then what this one has besides."""
    pack(images(4), np.zeros(4, int), tmp_path / "healthy", class_names=("healthy",))
    pack(images(4), np.array([0, 1, 0, 1]), tmp_path / "both", class_names=("fault", "healthy"))
    spec = Shards.open(tmp_path / "healthy").spec
    with pytest.raises(DataError) as caught:
        Shards.open(tmp_path / "both").with_spec(spec)
    one_line(caught, "class 0 'fault'", "--class-names healthy,fault")
    pack(images(4), np.array([1, 0, 1, 0]), tmp_path / "again", class_names=("healthy", "fault"))
    assert Shards.open(tmp_path / "again").with_spec(spec).foreign == 2


def test_missing_and_cut_shards(tmp_path, capsys):
    folder = tmp_path / "set"
    pack(images(30), np.zeros(30, int), folder, shard_size=10)
    second = folder / "shards-000001.tar"
    content = second.read_bytes()
    second.write_bytes(content[:-1024])
    assert everything(Shards.open(folder))[0].shape == (30, 6, 5)  # only empty blocks are missing
    (line,) = capsys.readouterr().err.splitlines()
    assert f"shards-000001.tar has {len(content) - 1024:,} bytes, its index says {len(content):,}" in line
    second.unlink()
    with pytest.raises(DataError) as caught:
        Shards.open(folder)
    one_line(caught, "shards-000001.tar", "missing")
    with pytest.raises(DataError) as caught:
        Shards.open(str(tmp_path / "nowhere-{0..1}.tar"))
    one_line(caught, "nowhere-0.tar", "missing")


@pytest.mark.parametrize("cut", [0, 100, 511, 520])
def test_tar_cut_before_its_first_sample(tmp_path, cut):
    path = foreign(tmp_path / "a.tar", images(9), np.zeros(9, int))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError) as caught:
        Shards.open(path)
    one_line(caught, "a.tar")


@pytest.mark.parametrize(
    "members", [[("a.txt", b"x")], [("a.png", b"no image")], [("a.x.npy", b"\x93NUMPYxx")], []], ids=str
)
def test_tar_without_samples(tmp_path, members):
    with pytest.raises(DataError) as caught:
        Shards.open(write_tar(tmp_path / "a.tar", members))
    one_line(caught, "a.tar")


def test_not_a_tar_empty_folder_and_bad_patterns(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"<html>404</html>" * 100)
    (tmp_path / "empty").mkdir()
    for source, error in [
        (tmp_path / "a.tar", DataError),
        (tmp_path / "empty", DataError),
        ("shards-{0..3.tar", ConfigError),
        ([], ConfigError),
    ]:
        with pytest.raises(error) as caught:
            Shards.open(source)
        one_line(caught)


def test_broken_index_is_named(tmp_path):
    folder = tmp_path / "set"
    pack(images(5), np.zeros(5, int), folder)
    index = folder / "index.json"
    whole = index.read_text()
    for text in ("{", "[]", json.dumps({**json.loads(whole), "format_version": 1})):
        index.write_text(text)
        with pytest.raises(DataError) as caught:
            Shards.open(folder)
        one_line(caught, "index.json")
    index.write_text(whole)
    for table, read in (("labels.npy", Shards.all_labels), ("shards-000000.idx.npy", lambda one: one.samples(0))):
        np.save(folder / table, np.zeros(3))
        with pytest.raises(DataError) as caught:
            read(Shards.open(folder))
        one_line(caught, "does not fit its index")


def test_a_kill_at_the_last_moment_leaves_nothing_beside_the_index(tmp_path, monkeypatch):
    """An index that is there is never made again, so that nobody would remove what was left beside it."""
    x, left = images(3), []

    def publish(draft: Path, target: Path) -> None:
        real(draft, target)
        if target.name == tables.INDEX:
            left.extend(path.name for path in target.parent.iterdir() if path.name.startswith("."))

    real = tables.publish
    monkeypatch.setattr(tables, "publish", publish)
    shard = foreign(tmp_path / "a.tar", x, np.arange(3) % 2)
    tables.build_index([shard], tmp_path / "index")
    assert (tmp_path / "index" / tables.INDEX).is_file()
    assert left == []
