from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from savae_dist.errors import CheckpointError
from savae_dist.networks import ConvCritic, ConvDecoder, ConvEncoder, DenseClassifier, hub
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.posteriors import PosteriorBank, collect_posteriors
from savae_dist.preprocess import DataSpec, denormalise, normalise

GREY = DataSpec("image", (1, 9, 8), 3, "unit")
COLOUR = DataSpec("image", (3, 8, 9), 3, "unit", class_names=("a", "b", "c"))
WINDOWS = DataSpec("signal", (1, 33), 3, "window", rate=100.0)
CHANNELS = DataSpec("signal", (2, 32), 3, "dataset", mean=(1.0, -2.0), std=(3.0, 0.5), rate=50.0)
SPECS = pytest.mark.parametrize("spec", [GREY, COLOUR, WINDOWS, CHANNELS], ids=["grey", "colour", "window", "channels"])


def make(spec: DataSpec, latent_dim: int = 2, batch_size: int = 256) -> Pipeline:
    """Random networks; the batch norms get statistics that are not the initial ones."""
    torch.manual_seed(0)
    output = "sigmoid" if spec.kind == "image" else "linear"
    networks = {
        "encoder": ConvEncoder(spec.shape, latent_dim, width=2),
        "decoder": ConvDecoder(spec.shape, latent_dim, width=2, output=output),
        "classifier": DenseClassifier(latent_dim, spec.classes, hidden=8),
        "critic": ConvCritic(spec.shape, width=2, spectral_norm=True),
    }
    networks["classifier"](networks["encoder"](torch.rand(16, *spec.shape))[0].mean)
    networks["decoder"](torch.randn(16, latent_dim))
    return Pipeline(networks, spec, system={"name": "savae", "beta": 0.01}, batch_size=batch_size)


def raw(spec: DataSpec, n: int = 7) -> np.ndarray:
    """Samples in the stored layout."""
    random = np.random.default_rng(1)
    channels, *size = spec.shape
    if spec.kind == "image":
        return random.integers(0, 256, (n, *size) if channels == 1 else (n, *size, channels), dtype=np.uint8)
    return random.normal(1, 3, (n, *size) if channels == 1 else (n, channels, *size)).astype(np.float32)


def bank(latent_dim: int = 2) -> PosteriorBank:
    """Class k has posteriors around 100 k, narrow."""
    label = torch.arange(12) % 3
    mean = 100.0 * label[:, None] + torch.arange(12)[:, None] / 10 + torch.zeros(12, latent_dim)
    return PosteriorBank(mean, torch.full((12, latent_dim), -8.0), label)


@SPECS
def test_raw_samples_pass_the_networks_as_by_hand(spec):
    pipeline, x = make(spec), raw(spec)
    encoder, decoder, classifier = (pipeline.networks[name].eval() for name in ("encoder", "decoder", "classifier"))
    with torch.no_grad():
        posterior, _ = encoder(normalise(torch.from_numpy(x), spec))
        x_hat = denormalise(decoder(posterior.mean), spec).numpy()
        probabilities = classifier(posterior.mean).softmax(1).numpy()
    assert torch.equal(pipeline.encode(x).mean, posterior.mean)
    assert torch.equal(pipeline.encode(x).log_variance, posterior.log_variance)
    assert np.array_equal(pipeline.decode(posterior.mean.numpy()), x_hat)
    assert np.array_equal(pipeline.reconstruct(torch.from_numpy(x)), x_hat)
    assert np.array_equal(pipeline.classify(x), probabilities)
    assert pipeline.reconstruct(x).shape == x.shape
    assert pipeline.reconstruct(x).dtype == x.dtype
    assert pipeline.classify(x).dtype == np.float32
    np.testing.assert_allclose(pipeline.classify(x).sum(1), 1, rtol=1e-6)


def test_batches_change_nothing_but_rounding():
    x, whole, parts = raw(WINDOWS), make(WINDOWS), make(WINDOWS, batch_size=3)
    np.testing.assert_allclose(parts.reconstruct(x), whole.reconstruct(x), atol=1e-5)
    np.testing.assert_allclose(parts.classify(x), whole.classify(x), atol=1e-5)
    np.testing.assert_allclose(parts.encode(x).log_variance, whole.encode(x).log_variance, atol=1e-5)


def test_read_only_strided_and_integer_arrays():
    pipeline, x = make(WINDOWS), np.round(raw(WINDOWS))
    expected = pipeline.encode(x).mean
    locked = x.copy()
    locked.flags.writeable = False
    for same in (locked, x[::-1].copy()[::-1], x.astype(np.int16), x.astype(np.float64)):
        assert torch.equal(pipeline.encode(same).mean, expected)


def test_a_network_in_training_is_measured_and_left_as_it_was():
    pipeline = make(GREY)
    encoder = pipeline.networks["encoder"].train()
    encoder.dense[0].eval()
    before = {name: value.clone() for name, value in pipeline.networks["decoder"].train().state_dict().items()}
    pipeline.reconstruct(raw(GREY))
    assert encoder.training
    assert not encoder.dense[0].training
    assert pipeline.networks["decoder"].training
    after = pipeline.networks["decoder"].state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())  # buffers too
    assert not pipeline.posterior(normalise(torch.from_numpy(raw(GREY)), GREY)).mean.requires_grad


def test_generate_from_the_prior():
    pipeline = make(GREY)
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(pipeline.latents(5, seed=3), z)
    assert np.array_equal(pipeline.generate(5, seed=3), pipeline.decode(z))
    assert not torch.equal(pipeline.latents(5), pipeline.latents(5))


def test_generate_of_a_class_draws_from_its_posteriors_only():
    pipeline = make(GREY)
    pipeline.posteriors = bank()
    z = pipeline.latents(400, label=2, seed=0)
    means = pipeline.posteriors.mean[pipeline.posteriors.label == 2, 0]
    distance = (z[:, :1] - means).abs()
    assert (distance.min(1).values < 5 * np.exp(-4)).all()  # deviation exp(-8 / 2)
    assert len(distance.argmin(1).unique()) == len(means)  # all of them are used
    assert z.std(0).min() > 0.1
    assert np.array_equal(pipeline.generate(4, 1, seed=5), pipeline.decode(pipeline.latents(4, 1, seed=5)))


def test_a_class_is_asked_for_by_its_name_and_answered_by_it():
    pipeline, x = make(COLOUR), raw(COLOUR)
    with pytest.raises(ValueError, match=r"label b: .*; leave label out"):
        pipeline.generate(1, label="b")
    pipeline.posteriors = bank()
    for number, name in enumerate("abc"):
        assert np.array_equal(pipeline.generate(3, label=name, seed=0), pipeline.generate(3, label=number, seed=0))
    for wrong in ("d", 3, "0"):
        with pytest.raises(ValueError, match=rf"label {wrong}: .* some for 0 \(a\), 1 \(b\), 2 \(c\)"):
            pipeline.generate(1, label=wrong)
    found = pipeline.classify(x)
    assert found.class_names == ("a", "b", "c")
    assert found.names() == ["abc"[number] for number in found.argmax(1)]
    assert found[2:4].names() == found.names()[2:4]
    assert np.array_equal(pipeline.reconstruct(x, ["a", "b", "c", "a", "a", "b", "c"]), pipeline.reconstruct(x))
    with pytest.raises(ValueError, match="label d: the classes are a, b, c"):
        pipeline.reconstruct(x, ["d"] * 7)


def test_classes_without_names_are_numbers():
    found = make(GREY).classify(raw(GREY))
    assert found.class_names == ()
    assert found.names() == [str(number) for number in found.argmax(1)]


def test_what_cannot_be_done_is_said():
    pipeline = make(GREY)
    with pytest.raises(ValueError, match="leave label out"):
        pipeline.generate(1, label=0)
    pipeline.posteriors = bank()
    with pytest.raises(ValueError, match=r"label 7.*0, 1, 2"):
        pipeline.generate(1, label=7)
    with pytest.raises(ValueError, match="at least 1"):
        pipeline.generate(0)
    alone = Pipeline({"encoder": pipeline.networks["encoder"]}, GREY)
    assert alone.encode(raw(GREY)).mean.shape == (7, 2)
    for use, name in ((alone.reconstruct, "decoder"), (alone.classify, "classifier")):
        with pytest.raises(ValueError, match=name):
            use(raw(GREY))
    with pytest.raises(ValueError, match="cannot be a ConvEncoder"):
        Pipeline({"decoder": pipeline.networks["encoder"]}, GREY)
    with pytest.raises(ValueError, match="cannot be the name"):
        Pipeline({"../decoder": pipeline.networks["decoder"]}, GREY)
    with pytest.raises(ValueError, match="posterior bank"):
        PosteriorBank(torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64))


@SPECS
def test_a_round_trip_is_exact(spec, tmp_path):
    pipeline, x = make(spec), raw(spec)
    pipeline.posteriors = bank()
    pipeline.save_pretrained(tmp_path / "saved")
    loaded = Pipeline.from_pretrained(tmp_path / "saved")
    assert loaded.spec == pipeline.spec
    assert loaded.system == pipeline.system
    assert loaded.networks.keys() == pipeline.networks.keys()
    for name, network in pipeline.networks.items():
        there, here = loaded.networks[name].state_dict(), network.state_dict()
        assert there.keys() == here.keys()
        assert all(torch.equal(there[key], here[key]) for key in here)
        assert type(loaded.networks[name]) is type(network)
    for name, value in pipeline.posteriors.tensors().items():
        assert torch.equal(loaded.posteriors.tensors()[name], value)
    assert np.array_equal(loaded.reconstruct(x), pipeline.reconstruct(x))
    assert np.array_equal(loaded.generate(3, 1, seed=0), pipeline.generate(3, 1, seed=0))
    kinds = {path.suffix for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}


def test_saving_again_replaces_also_over_itself(tmp_path):
    pipeline = make(GREY)
    pipeline.posteriors = bank()
    pipeline.save_pretrained(tmp_path)
    loaded = Pipeline.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path)
    again = Pipeline.from_pretrained(tmp_path)
    assert torch.equal(again.posteriors.mean, pipeline.posteriors.mean)
    assert np.array_equal(again.classify(raw(GREY)), pipeline.classify(raw(GREY)))
    again.posteriors = None
    again.save_pretrained(tmp_path)
    assert Pipeline.from_pretrained(tmp_path).posteriors is None


def test_a_run_and_a_repository(tmp_path, monkeypatch):
    pipeline = make(GREY)
    pipeline.save_pretrained(tmp_path / "run" / "pipeline")
    assert Pipeline.from_pretrained(tmp_path / "run").spec == GREY
    asked = {}

    def download(source: str, **options: object) -> str:
        asked.update(options, source=source)
        return str(tmp_path / "run" / "pipeline")

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert Pipeline.from_pretrained("someone/model", revision="v1", token="t").system == pipeline.system
    hub_options = {
        "revision": "v1",
        "token": "t",
        "cache_dir": None,
        "force_download": False,
        "local_files_only": False,
    }
    assert asked == {"source": "someone/model", "allow_patterns": ["*.json", "*.safetensors"], **hub_options}


def spoil(folder: Path, **values: object) -> None:
    path = folder / "pipeline.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def check_refused(source: Path | str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        Pipeline.from_pretrained(source)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    check_refused(tmp_path / "run", r"holds no pipeline\.json")
    (tmp_path / "run" / "status.json").write_text('{"outcome": "preempted", "phase": "vec", "step": 12}')
    check_refused(tmp_path / "run", r"not finished \(outcome preempted, phase vec, step 12\)")
    check_refused(str(tmp_path / "nowhere"), "no such folder")


def test_a_pipeline_here_never_asks_the_hub_for_what_it_lacks(tmp_path, monkeypatch):
    """`exported/encoder`, relative as it is, could be somebody's repository."""
    asked = []
    monkeypatch.setattr(hub, "snapshot_download", lambda source, **options: asked.append(source))
    monkeypatch.chdir(tmp_path)
    make(GREY).save_pretrained("exported")
    shutil.rmtree("exported/encoder")
    check_refused("exported", "exported/encoder does not exist: no such folder")
    check_refused(Path("exported/encoder"), "no such folder")
    assert not asked


def test_broken_folders_are_one_line(tmp_path):
    pipeline = make(GREY)
    good = tmp_path / "good"

    def fresh() -> Path:
        pipeline.save_pretrained(good)
        return good

    for values, words in (
        ({"format_version": 2}, "format_version 2 is not 1"),
        ({"networks": {"encoder": "../elsewhere"}}, "is said to lie in"),
        ({"networks": {"decoder": "decoder", "encoder": 3}}, r"networks\['encoder'\] is 3, not a text"),
        ({"networks": {"../good/encoder": "../good/encoder"}}, "has a key that is '../good/encoder'"),
        ({"networks": {"absent": "absent"}}, "absent does not exist: no such folder"),
        ({"spec": {"kind": "sound"}}, "spec.kind is 'sound', not image or signal"),
        ({"spec": None}, "spec is None, not an object"),
    ):
        spoil(fresh(), **values)
        check_refused(good, words)
    (fresh() / "pipeline.json").write_text("{")
    check_refused(good, "cannot be read: it is no JSON")
    (fresh() / "pipeline.json").write_text("[]")
    check_refused(good, "no JSON object")
    (fresh() / "decoder" / "model.safetensors").write_bytes(b"\xff" * 100)
    check_refused(good, "is no whole safetensors file")
    (fresh() / "decoder" / "model.safetensors").unlink()
    check_refused(good, "cannot be loaded")
    (fresh() / "encoder" / "config.json").unlink()
    check_refused(good, r"config\.json")
    (fresh() / "decoder" / "model.safetensors").write_bytes((good / "encoder" / "model.safetensors").read_bytes())
    check_refused(good, r"and config\.json asks for")


def test_collected_posteriors_are_the_first_of_each_class():
    encoder = make(GREY).networks["encoder"].train()
    x = torch.rand(10, *GREY.shape)
    y = torch.tensor([0, -1, 1, 0, 0, 2, 1, -1, 1, 0])
    found = collect_posteriors(encoder, [(x[:4], y[:4]), (x[4:], y[4:])], per_class=2)
    rows = torch.tensor([0, 2, 3, 5, 6])  # 0, 1, 0, 2, 1
    assert found.label.tolist() == y[rows].tolist()
    with torch.no_grad():
        expected, _ = encoder(x[rows])
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.log_variance, expected.log_variance)
    assert encoder.training
    with pytest.raises(ValueError, match="no labelled sample"):
        collect_posteriors(encoder, [(x, torch.full((10,), -1))])
