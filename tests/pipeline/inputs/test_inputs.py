"""What people give to a pipeline becomes what the training set holds, bit for bit, however the set was made."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pictures import deep, photo, saved
from PIL import Image
from scipy.io import savemat, wavfile

from savae_dist.data import Reader, Shards, evaluation_requests, loader, sequential
from savae_dist.data.index.pictures import Wanted, with_pictures
from savae_dist.errors import CheckpointError, DataError
from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from tools import make_shards


def pipeline_of(spec: DataSpec) -> Pipeline:
    torch.manual_seed(0)
    networks = {
        "encoder": ConvEncoder(spec.shape, 2, width=2),
        "decoder": ConvDecoder(spec.shape, 2, width=2, output="sigmoid" if spec.kind == "image" else "linear"),
        "classifier": DenseClassifier(2, max(spec.classes, 2), hidden=4),
    }
    return Pipeline(networks, spec, system={"name": "savae"})


def rows_of(shards: Shards) -> np.ndarray:
    """All samples as training reads them, raw and in the order of the shards."""
    requests = evaluation_requests(shards.size, 64, 0, 1)
    batches = loader(Reader(shards, sequential(shards), bad_budget=0), requests, workers=0, pin=False)
    return np.concatenate([np.asarray(batch.x) for batch in batches])


def alike(found: np.ndarray, rows: np.ndarray) -> bool:
    """Whether both hold the same samples, in whatever order."""
    return sorted(one.tobytes() for one in found) == sorted(one.tobytes() for one in rows)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photographs of several sizes in two classes, one of them turned by its EXIF."""
    for number, (height, width) in enumerate([(120, 90), (64, 100), (375, 500), (50, 50)]):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved(photo(height, width, number), "jpeg", orientation=6 if number == 1 else 1))
    return tmp_path / "photos"


@pytest.mark.parametrize("options", [[], ["--resize", "pad"], ["--mode", "gray"], ["--layout", "samples"]])
def test_picture_files_become_what_was_packed_of_them(tmp_path: Path, photos: Path, options: list[str]) -> None:
    assert make_shards.main(["images", str(photos), str(tmp_path / "set"), "--size", "24x32", *options]) == 0
    shards = Shards.open(tmp_path / "set")
    pipeline_of(shards.spec).save_pretrained(tmp_path / "saved")
    pipeline = Pipeline.from_pretrained(tmp_path / "saved")
    assert pipeline.spec == shards.spec
    assert alike(pipeline.prepared(photos), rows_of(shards))
    files = sorted(photos.rglob("*.jpg"))
    assert alike(pipeline.prepared([file.read_bytes() for file in files]), rows_of(shards))
    found = [part.name for part in pipeline.parts(photos)]
    assert found == [str(file) for file in files]
    assert torch.equal(pipeline.encode(photos).mean, pipeline.encode(pipeline.prepared(photos)).mean)


def test_what_a_run_makes_of_a_packed_set_comes_on_top(tmp_path: Path, photos: Path) -> None:
    assert make_shards.main(["images", str(photos), str(tmp_path / "set"), "--size", "48"]) == 0
    shards = with_pictures(Shards.open(tmp_path / "set"), Wanted((16, 20), "pad", "gray"))
    assert alike(pipeline_of(shards.spec).prepared(photos), rows_of(shards))


def test_deep_pictures_keep_the_range_that_they_were_packed_with(tmp_path: Path) -> None:
    x = photo(8, 8, 0, 1).astype(np.uint16) * 16 + 7
    (tmp_path / "deep" / "a").mkdir(parents=True)
    file = tmp_path / "deep" / "a" / "0.png"
    file.write_bytes(deep(x, "png"))
    assert make_shards.main(["images", str(tmp_path / "deep"), str(tmp_path / "set"), "--range", "0,4095"]) == 0
    pipeline = pipeline_of(Shards.open(tmp_path / "set").spec)
    expected = rows_of(Shards.open(tmp_path / "set"))
    assert (pipeline.prepared(file) == expected).all()
    assert (pipeline.prepared([x]) == expected).all()
    assert (pipeline.prepared(Image.open(file)) == expected).all()
    with pytest.raises(ValueError, match=r"picture 0 \(uint16 9x8\) cannot be used: shape: .* on 8x8 only"):
        pipeline.prepared([np.zeros((9, 8), np.uint16)])


def test_float_arrays_keep_the_range_that_they_were_packed_with(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x)
    arguments = ["arrays", str(tmp_path / "a.npz"), str(tmp_path / "set"), "--kind", "images", "--range", "0,1"]
    assert make_shards.main(arguments) == 0
    shards = Shards.open(tmp_path / "set")
    assert alike(pipeline_of(shards.spec).prepared(list(x)), rows_of(shards))


def test_pil_images_as_files_with_the_same_pixels(tmp_path: Path, photos: Path) -> None:
    assert make_shards.main(["images", str(photos), str(tmp_path / "set"), "--size", "24x32"]) == 0
    pipeline = pipeline_of(Shards.open(tmp_path / "set").spec)
    clear = np.dstack([photo(40, 30), np.full((40, 30), 128, np.uint8)])
    for image in (
        Image.fromarray(photo(40, 30)),
        Image.fromarray(photo(40, 30, 0, 1)),
        Image.fromarray(clear, "RGBA"),
        Image.fromarray(photo(40, 30)).quantize(16),
        Image.open(io.BytesIO(saved(photo(40, 30), "png", orientation=6))),
    ):
        stream = io.BytesIO()
        image.save(stream, "png", exif=image.getexif())
        assert (pipeline.prepared(image) == pipeline.prepared(stream.getvalue())).all()
    assert (pipeline.prepared(photo(40, 30)) == pipeline.prepared(Image.fromarray(photo(40, 30)))).all()


def test_arrays_and_pil_images_come_out() -> None:
    pipeline = pipeline_of(DataSpec("image", (3, 8, 9), 2, "unit"))
    x = pipeline.generate(3, seed=0)
    assert [np.asarray(one).tolist() for one in pipeline.generate(3, seed=0, output_type="pil")] == x.tolist()
    assert torch.equal(pipeline.reconstruct(x, output_type="pt"), torch.from_numpy(pipeline.reconstruct(x)))
    with pytest.raises(ValueError, match="output_type='png': there are np, pt, pil"):
        pipeline.generate(1, output_type="png")
    with pytest.raises(ValueError, match="PIL has no signals of 1 channels"):
        pipeline_of(DataSpec("signal", (1, 16), 2, "none")).generate(1, output_type="pil")


# Recordings.

WAVE = np.sin(np.arange(4000) / 7) + np.random.default_rng(0).normal(0, 0.1, 4000)


def packed(tmp_path: Path, *options: str) -> Shards:
    out = tmp_path / "set"
    assert make_shards.main(["recordings", str(tmp_path / "made"), str(out), "--length", "64", *options]) == 0
    return Shards.open(out)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Two recordings of two channels each, at 1,200 Hz."""
    for number in range(2):
        path = tmp_path / "made" / "ab"[number] / f"{number}.mat"
        path.parent.mkdir(parents=True)
        savemat(path, {f"X{number:03d}_DE_time": WAVE * (number + 1), f"X{number:03d}_FE_time": -WAVE})
    return tmp_path / "made"


def test_recordings_become_the_windows_that_were_packed(tmp_path: Path, made: Path) -> None:
    rates = ["--source-rate", "1200", "--rate", "800", "--hop", "50"]
    shards = packed(tmp_path, "--variable", "*_DE_time", *rates)
    pipeline_of(shards.spec).save_pretrained(tmp_path / "saved")
    pipeline = Pipeline.from_pretrained(tmp_path / "saved")
    assert pipeline.spec == shards.spec
    assert alike(pipeline.prepared(made), rows_of(shards))
    assert alike(np.concatenate([pipeline.prepared(WAVE * k, rate=1200) for k in (1, 2)]), rows_of(shards))
    parts = list(pipeline.parts(made / "a" / "0.mat", hop=64))
    assert [start for part in parts for start in part.starts][:3] == [0, 64, 128]
    pipeline.batch_size = 10
    assert max(len(part.x) for part in pipeline.parts(made)) == 10
    assert np.array_equal(np.concatenate([part.x for part in pipeline.parts(made)]), pipeline.prepared(made))


def test_another_rate_and_other_channels_are_asked_for(tmp_path: Path, made: Path) -> None:
    pipeline = pipeline_of(packed(tmp_path, "--variable", "*_DE_time", "--source-rate", "1200").spec)
    wavfile.write(tmp_path / "fast.wav", 2400, np.repeat(WAVE, 2).astype(np.float32))
    assert len(pipeline.prepared(tmp_path / "fast.wav", variables=("1",))) == 4000 // 64
    two = np.stack([WAVE, WAVE])
    savemat(tmp_path / "a.mat", {"y": WAVE})
    with pytest.raises(ValueError, match=r"a\.mat cannot be used: no variable \*_DE_time: it holds y"):
        pipeline.prepared(tmp_path / "a.mat")
    with pytest.raises(ValueError, match=r"2 channels .* the networks take 1"):
        pipeline.prepared(made / "a" / "0.mat", variables=("*_DE_time", "*_FE_time"))
    with pytest.raises(ValueError, match=r"samples are \[2, 4000\], and must be \[n, 64\] or \[n, 1, 64\]"):
        pipeline.prepared(two)
    with pytest.raises(ValueError, match="shorter than a window: 63 samples of 64"):
        pipeline.prepared(WAVE[:63])
    with pytest.raises(ValueError, match="holds NaN or infinite values after sample 64"):
        pipeline.prepared(np.r_[WAVE[:100], np.nan, WAVE[100:]])


def test_a_reader_of_ones_own_is_not_guessed(tmp_path: Path, made: Path) -> None:
    (tmp_path / "mine.py").write_text("import numpy as np\ndef read(path):\n    return np.arange(200.0), 100\n")
    shards = packed(tmp_path, "--reader", f"{tmp_path / 'mine.py'}:read")
    with pytest.raises(ValueError, match="packed by a reader of one's own"):
        pipeline_of(shards.spec).prepared(made / "a" / "0.mat")


# What is wrong is said.


def test_values_that_are_no_numbers_and_other_sizes_are_told_as_the_user_has_them() -> None:
    windows = pipeline_of(DataSpec("signal", (1, 16), 2, "window"))
    x = np.zeros((3, 16), np.float32)
    x[1, 4] = np.nan
    for given in (x, torch.from_numpy(x)):
        with pytest.raises(ValueError, match="sample 1 holds NaN"):
            windows.encode(given)
    colour = pipeline_of(DataSpec("image", (3, 8, 9), 2, "unit"))
    with pytest.raises(ValueError, match=r"samples are \[2, 9, 8, 3\], and must be \[n, 8, 9, 3\]"):
        colour.encode(np.zeros((2, 9, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="a float is no sample"):
        colour.encode([1.0])
    with pytest.raises(ValueError, match="rate: only recordings are read so"):
        colour.prepared([b""], rate=3)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    pipeline = pipeline_of(DataSpec("image", (3, 8, 9), 2, "unit"))
    with pytest.raises(ValueError, match=r"gone\.png cannot be read: No such file"):
        pipeline.prepared(tmp_path / "gone.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no \.png"):
        pipeline.prepared(tmp_path / "empty")
    with pytest.raises(ValueError, match="cannot be fetched: "):
        pipeline.prepared("http://127.0.0.1:1/a.png")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of the test's folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_url_is_its_file(tmp_path: Path, made: Path, served: str) -> None:
    (tmp_path / "a.png").write_bytes(saved(photo(8, 9), "png"))
    pictures = pipeline_of(DataSpec("image", (3, 8, 9), 2, "unit"))
    assert (pictures.prepared(f"{served}/a.png") == pictures.prepared(tmp_path / "a.png")).all()
    windows = pipeline_of(packed(tmp_path, "--variable", "*_DE_time").spec)
    # A file's number chooses among its variables, and a file out of the net has a name of its own.
    assert (windows.prepared(f"{served}/made/a/0.mat") == windows.prepared(made / "a" / "0.mat")).all()


def test_half_precision_weights_give_nearly_the_same() -> None:
    pipeline = pipeline_of(DataSpec("image", (1, 8, 8), 2, "unit"))
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 8), dtype=np.uint8)
    before = pipeline.encode(x).mean, pipeline.classify(x), pipeline.reconstruct(x)
    assert pipeline.to(dtype=torch.bfloat16).dtype == torch.bfloat16
    after = pipeline.encode(x).mean, pipeline.classify(x), pipeline.reconstruct(x)
    assert after[0].dtype == torch.float32
    torch.testing.assert_close(after[0], before[0], rtol=0.05, atol=0.02)
    np.testing.assert_allclose(after[1], before[1], atol=0.02)
    assert np.abs(after[2].astype(int) - before[2]).max() <= 4


def test_it_says_what_it_is() -> None:
    pipeline = pipeline_of(DataSpec("signal", (1, 16), 3, "window", rate=100.0))
    said = (
        "savae, signals 1x16 at 100 Hz, 3 classes; encoder ConvEncoder, decoder ConvDecoder, classifier DenseClassifier"
    )
    assert repr(pipeline) == f"Pipeline({said})"


# Stored.


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"decoder": 9}, "decoder 9"),
        ({"size": 5}, "size is 5, not a list"),
        ({"mode": "auto"}, "mode is 'auto', not gray"),
    ],
)
def test_a_damaged_origin_is_one_line(tmp_path: Path, photos: Path, values: dict[str, object], words: str) -> None:
    assert make_shards.main(["images", str(photos), str(tmp_path / "set"), "--size", "24x32"]) == 0
    pipeline_of(Shards.open(tmp_path / "set").spec).save_pretrained(tmp_path / "saved")
    for path in (tmp_path / "set" / "index.json", tmp_path / "saved" / "pipeline.json"):
        config = json.loads(path.read_text())
        config.get("spec", config)["origin"].update(values)
        path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words):
        Pipeline.from_pretrained(tmp_path / "saved")
    with pytest.raises((DataError, ValueError), match=words):
        Shards.open(tmp_path / "set")


def test_sets_that_were_made_differently_have_no_way_in_common(tmp_path: Path, photos: Path) -> None:
    for name, resize in (("a", "crop"), ("b", "crop"), ("c", "pad")):
        arguments = ["images", str(photos), str(tmp_path / name), "--size", "24x32", "--resize", resize]
        assert make_shards.main(arguments) == 0
    assert Shards.open([tmp_path / "a", tmp_path / "b"]).spec.origin == Shards.open(tmp_path / "a").spec.origin
    assert Shards.open([tmp_path / "a", tmp_path / "c"]).spec.origin is None
