"""Frozen feature networks: VGG-19 against a plain one, an encoder's stages, and files that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.features import saved, vgg19, vgg19_weights
from safetensors.torch import save_file

from savae_dist.errors import ConfigError
from savae_dist.networks import VGG19, ConvCritic, ConvEncoder, EncoderFeatures, HouEncoder, Network
from savae_dist.pipeline.feature_network import CONVERT, open_features
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.testing.small_run import IMAGE, SIGNAL

RGB = DataSpec("image", (3, 32, 32), 4, "unit")


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    save_file(vgg19_weights(), tmp_path / "vgg19.safetensors")
    return tmp_path / "vgg19.safetensors"


@pytest.mark.parametrize("preprocessing", ["caffe", "torchvision"])
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 33, 50), (1, 28, 28)])
def test_vgg19_is_torchvision_s(shape: tuple[int, ...], preprocessing: str, weights_file: Path) -> None:
    spec = DataSpec("image", shape, 4, "unit")
    network = open_features("f", str(weights_file), preprocessing, spec).double()
    x = torch.rand(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = {name: value.double() for name, value in vgg19_weights().items()}
    expected = vgg19(x.expand(-1, 3, -1, -1), weights, preprocessing)
    features = network(x, network.taps)
    assert tuple(features) == network.taps == tuple(expected)
    for name, feature in features.items():
        torch.testing.assert_close(feature, expected[name])
        assert network.shapes(shape)[name] == tuple(feature.shape[1:])


def test_vgg19_has_the_paper_s_size_and_goes_no_deeper_than_asked() -> None:
    network = VGG19()
    shapes = {
        f"relu{i}_1": (c, s, s)
        for i, c, s in zip(range(1, 6), (64, 128, 256, 512, 512), (64, 32, 16, 8, 4), strict=True)
    }
    assert network.shapes((3, 64, 64)) == shapes
    names = [name for name in vgg19_weights() if name.startswith("features.") and int(name.split(".")[1]) <= 28]
    assert list(network.state_dict()) == names
    ran: list[int] = []
    for number, layer in enumerate(network.features):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    assert list(network(torch.rand(1, 1, 28, 28), ("relu2_1",))) == ["relu2_1"]
    assert max(ran) == 6


def test_small_images_pass() -> None:
    """28x28 is 1x1 at relu5_1; where an axis is 1 before that, it stays."""
    network = VGG19(4)
    assert network.shapes((1, 28, 28))["relu5_1"] == (32, 1, 1)
    assert network.shapes((1, 5, 40))["relu5_1"] == (32, 1, 2)


@pytest.mark.parametrize(
    ("spec", "kind"), [(IMAGE, ConvEncoder), (SIGNAL, ConvEncoder), (IMAGE, HouEncoder), (SIGNAL, HouEncoder)]
)
def test_an_encoder_s_stages(spec: DataSpec, kind: type, tmp_path: Path) -> None:
    encoder = kind(spec.shape, 3, width=4).eval()
    network = open_features("f", saved(encoder, spec, tmp_path), "caffe", spec)
    x = torch.rand(2, *spec.shape)
    _, expected = encoder(x)
    features = network.eval()(x, network.taps)
    assert network.taps == tuple(f"stage{i}" for i in range(1, len(expected) + 1))
    assert all(torch.equal(features[f"stage{i}"], f) for i, f in enumerate(expected, 1))
    assert list(network(x, ("stage2",))) == ["stage2"]


def test_the_digest_is_of_what_the_network_computes(weights_file: Path) -> None:
    def opened(preprocessing: str = "caffe") -> VGG19:
        return open_features("f", str(weights_file), preprocessing, RGB)

    digest = opened().digest()
    assert digest == opened().to(memory_format=torch.channels_last).digest()
    assert digest != opened("torchvision").digest()
    changed = opened()
    with torch.no_grad():
        changed.features[28].bias[0] += 1e-3
    assert digest != changed.digest()


def test_a_feature_network_is_a_folder_like_any_other(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder(IMAGE.shape, 3, width=4, feature_tap="conv")
    for number, network in enumerate((VGG19(4, "torchvision"), EncoderFeatures.of(encoder, IMAGE.shape))):
        network.save_pretrained(tmp_path / str(number))
        again = Network.from_pretrained(tmp_path / str(number))
        assert type(again) is type(network)
        assert again.digest() == network.digest()
        x = torch.rand(1, *IMAGE.shape)
        pairs = zip(network.eval()(x, network.taps).values(), again(x, again.taps).values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def without(name: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        save_file({k: v for k, v in vgg19_weights().items() if k != name}, folder / "vgg.safetensors")
        return str(folder / "vgg.safetensors")

    return make


def damaged(folder: Path) -> str:
    (folder / "vgg.safetensors").write_bytes(b"not a file of tensors")
    return str(folder / "vgg.safetensors")


def named(name: str) -> Callable[[Path], str]:
    return lambda folder: str(folder / name)


@pytest.mark.parametrize(
    ("source", "spec", "words"),
    [
        (lambda _: "", RGB, "f is not set"),
        (named("vgg19.pth"), RGB, "is a pickle"),
        (named("vgg19.safetensors"), RGB, "does not exist and is not downloaded"),
        (damaged, RGB, "cannot be read"),
        (without("features.28.bias"), RGB, r"features\.28\.bias is missing"),
        (without("features.0.weight"), RGB, r"features\.0\.weight is missing"),
        (without("classifier.0.bias"), SIGNAL, "images of 1 or 3 channels, not signals"),
        (without("classifier.0.bias"), DataSpec("image", (2, 32, 32), 4, "unit"), "1 or 3 channels"),
        (lambda folder: saved(ConvEncoder((3, 32, 32), 2, 4), RGB, folder), IMAGE, r"takes \(3, 32, 32\)"),
    ],
)
def test_what_is_no_feature_network_is_refused_in_one_line(
    source: Callable[[Path], str], spec: DataSpec, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        open_features("f", source(tmp_path), "caffe", spec)
    assert "\n" not in str(caught.value)


def test_a_pipeline_without_an_encoder_is_refused(tmp_path: Path) -> None:
    Pipeline({"critic": ConvCritic((3, 32, 32), 4)}, RGB).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has no encoder"):
        open_features("f", str(tmp_path), "caffe", RGB)


def test_the_conversion_that_the_message_names_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a shell's line; here its program runs with a loader of the test's own, for no pickle is made."""
    import shlex

    executable, flag, program = shlex.split(CONVERT)
    assert (executable, flag) == ("python", "-c")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "load", lambda path, weights_only: vgg19_weights())
    exec(program, {})
    assert open_features("f", "vgg19.safetensors", "caffe", RGB).taps[0] == "relu1_1"
