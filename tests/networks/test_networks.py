"""Shapes for any size, the paper's structure, and folders that load to the same network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from savae_dist.errors import CheckpointError
from savae_dist.networks import (
    NETWORKS,
    Classifier,
    CodeDiscriminator,
    ConvCritic,
    ConvDecoder,
    ConvEncoder,
    DcganCritic,
    DcganDecoder,
    DcganEncoder,
    Decoder,
    DenseClassifier,
    Encoder,
    HouCritic,
    HouDecoder,
    HouEncoder,
    Network,
    TapWeights,
    make_decoder,
    make_encoder,
)
from savae_dist.networks.blocks import SignalConv

SHAPES = [((1, 28, 28), 2), ((3, 33, 17), 3), ((2, 1001), 5), ((1, 8, 8), 2), ((1, 7), 0), ((1, 64), 6), ((1, 5, 9), 1)]


@pytest.mark.parametrize(("shape", "pools"), SHAPES)
def test_any_shape_goes_there_and_back(shape: tuple[int, ...], pools: int) -> None:
    encoder = ConvEncoder(shape, 3, width=4, pools=pools)
    decoder = ConvDecoder(shape, 3, width=4, pools=pools)
    x = torch.rand(2, *shape)
    posterior, features = encoder(x)
    assert posterior.mean.shape == posterior.log_variance.shape == (2, 3)
    assert [f.shape[1] for f in features] == [4, 4, 8]
    assert decoder(posterior.mean).shape == x.shape
    assert ConvCritic(shape, width=4, pools=pools)(x).shape == (2,)


@pytest.mark.parametrize(
    "critic",
    [ConvCritic((1, 9, 9), 4), DcganCritic((1, 9, 9), 4), HouCritic((1, 9, 9), 4), CodeDiscriminator(81, 8)],
    ids=lambda c: c.model_type,
)
def test_scores_are_never_in_half_precision(critic: nn.Module) -> None:
    """What a loss takes means, squares and logarithms of."""
    x = torch.rand(4, 1, 9, 9)
    with torch.autocast("cpu", torch.bfloat16):
        score = critic(x.flatten(1) if isinstance(critic, CodeDiscriminator) else x)
    assert score.dtype == torch.float32
    assert score.shape == (4,)


def test_the_structure_of_section_3_2() -> None:
    encoder = ConvEncoder((1, 28, 28), 2, width=8)
    decoder = ConvDecoder((1, 28, 28), 2, width=8)
    critic = ConvCritic((1, 28, 28), width=8)
    classifier = DenseClassifier(2, 10)
    assert [c.out_channels for c in encoder.convs] == [8, 8, 16, 16, 32, 32]
    assert encoder.dense[0].in_features == 32 * 7 * 7
    assert [layer.out_features for layer in encoder.dense] == [512, 256, 128]
    assert [c.out_channels for c in (*decoder.convs, decoder.last)] == [32, 32, 16, 16, 8, 8, 1]
    assert [layer.out_features for layer in decoder.dense] == [256, 512, 32 * 7 * 7]
    assert decoder.upsampled == {3, 5}
    assert [c.out_channels for c in critic.convs] == [8, 16, 32]
    assert [layer.out_features for layer in (*critic.dense, critic.score)] == [512, 256, 128, 64, 1]
    assert [layer.out_features for layer in classifier.dense] == [128, 128, 128]
    for network in (encoder, critic):
        assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in decoder.modules()) == 6
    assert sum(isinstance(m, nn.BatchNorm1d) for m in decoder.modules()) == 3
    assert sum(isinstance(m, nn.BatchNorm1d) for m in classifier.modules()) == 3


@pytest.mark.parametrize("shape", [*(shape for shape, _ in SHAPES), (1, 3, 3), (3, 64, 64)])
def test_dcgan_takes_any_shape(shape: tuple[int, ...]) -> None:
    decoder, critic, encoder = DcganDecoder(shape, 3, width=4), DcganCritic(shape, width=4), DcganEncoder(shape, 3, 4)
    x = decoder(torch.randn(2, 3))
    assert x.shape == (2, *shape)
    posterior, stages = encoder(x)
    assert posterior.mean.shape == posterior.log_variance.shape == (2, 3)
    assert stages[-1].shape[1:] == decoder.start == critic.features(x).shape[1:]
    assert critic(x).shape == (2,)
    assert max(decoder.start[1:]) <= 4


def test_the_structure_of_dcgan() -> None:
    """Radford 2016, figure 1 and section 3, at 64x64."""
    decoder, critic = DcganDecoder((3, 64, 64), 100, width=128), DcganCritic((3, 64, 64), width=128)
    assert decoder.start == (1024, 4, 4)
    assert [c.out_channels for c in decoder.convs] == [512, 256, 128, 3]
    assert [c.out_channels for c in critic.stages.convs] == [128, 256, 512, 1024]
    assert {c.kernel_size for c in (*decoder.convs, *critic.stages.convs)} == {(5, 5)}
    assert {c.stride for c in (*decoder.convs, *critic.stages.convs)} == {(2, 2)}
    assert [type(n) for n in critic.stages.norms] == [nn.Identity, *[nn.BatchNorm2d] * 3]  # not at the input
    assert [type(n) for n in decoder.norms] == [nn.BatchNorm2d] * 4  # not at the output
    assert not [m for m in (*decoder.modules(), *critic.modules()) if isinstance(m, nn.MaxPool2d)]
    assert decoder.convs[0].weight.std().item() == pytest.approx(0.02, rel=0.01)


def test_dcgan_sees_images_between_minus_one_and_one() -> None:
    torch.manual_seed(0)
    centred, plain = DcganCritic((1, 9, 9), width=4).eval(), DcganCritic((1, 9, 9), width=4, centred=False).eval()
    plain.load_state_dict(centred.state_dict())
    x = torch.rand(3, 1, 9, 9)
    torch.testing.assert_close(centred(x), plain(2 * x - 1))


def test_dcgan_halves_signals_and_keeps_to_eight_times_the_width() -> None:
    widths = [c.out_channels for c in DcganCritic((2, 1024), width=4).stages.convs]
    assert widths == [4, 8, 16, 32, 32, 32, 32, 32]


@pytest.mark.parametrize("critic", [ConvCritic((1, 9, 9), 4), DcganCritic((1, 9, 9), 4)], ids=lambda c: c.model_type)
def test_a_score_from_features_equals_the_whole_pass(critic: ConvCritic | DcganCritic) -> None:
    x = torch.rand(4, 1, 9, 9)
    assert torch.equal(critic.head(critic.features(x)), critic(x))


def test_hidden_units_are_what_the_heads_read() -> None:
    encoder, x = ConvEncoder((1, 9, 9), 3, width=4), torch.rand(2, 1, 9, 9)
    hidden = encoder.hidden(encoder.features(x)[1])
    assert hidden.shape == (2, 128)
    assert torch.equal(encoder.mean(hidden), encoder(x)[0].mean)


@pytest.mark.parametrize("shape", [shape for shape, _ in SHAPES])
def test_hou_s_networks_fit_any_shape(shape: tuple[int, ...]) -> None:
    posterior, features = HouEncoder(shape, 3, width=4)(torch.rand(2, *shape))
    assert posterior.mean.shape == posterior.log_variance.shape == (2, 3)
    assert [f.shape[1] for f in features] == [4, 8, 16, 32]
    assert HouDecoder(shape, 3, width=4)(posterior.mean).shape == (2, *shape)
    assert HouCritic(shape, width=4)(torch.rand(2, *shape)).shape == (2,)


def test_the_structure_of_hou_s_section_3_2() -> None:
    """At the paper's 64x64 the halvings are plain 4x4 convolutions of stride 2 and padding 1, down to 4x4."""
    encoder, decoder, critic = HouEncoder((3, 64, 64), 100), HouDecoder((3, 64, 64), 100), HouCritic((64, 64, 64))
    x = torch.rand(2, 3, 64, 64)
    assert [tuple(f.shape[1:]) for f in encoder(x)[1]] == [(32, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4)]
    first = encoder.convs[0].conv
    expected = nn.functional.conv2d(x, first.weight, first.bias, stride=2, padding=1)
    torch.testing.assert_close(encoder.convs[0](x), expected)
    assert decoder.start == (256, 4, 4)
    convs = [c.conv for c in (*decoder.convs, decoder.last)]
    assert [(c.out_channels, c.kernel_size) for c in convs] == [(n, (3, 3)) for n in (128, 64, 32, 3)]
    assert len(decoder.norms) == len(decoder.residuals) == 3  # none for the last
    assert critic.score.kernel_size == (4, 4)
    assert [c.conv.in_channels for c in critic.convs] == [64, 32, 64, 128]
    for network, norms in ((encoder, 4), (decoder, 3), (critic, 0)):
        assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == norms


@pytest.mark.parametrize("dims", [1, 2])
def test_the_decoder_repeats_the_border(dims: int) -> None:
    """A constant stays constant up to the edge, which zero padding would darken."""
    decoder = HouDecoder((1, *[24] * dims), 3, width=4, norm_kind="none")
    with torch.no_grad():
        decoder.dense.weight.zero_()
    logits = decoder.logits(torch.randn(2, 3)).flatten()
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))


@pytest.mark.parametrize("pools", [2, 6])
@pytest.mark.parametrize("backbone", ["savae", "hou", "dcgan"])
def test_the_backbones_have_one_signature(backbone: str, pools: int) -> None:
    encoder, decoder = (make(backbone, (1, 96), 3, 4, "group", pools) for make in (make_encoder, make_decoder))
    posterior, features = encoder(torch.rand(2, 1, 96))
    assert decoder(posterior.mean).shape == (2, 1, 96)
    assert decoder.output == "linear"
    assert len(features) == {"savae": 3, "hou": max(4, pools), "dcgan": 5}[backbone]
    assert not any(isinstance(m, nn.BatchNorm1d) for n in (encoder, decoder) for m in n.modules())


def test_the_first_features_by_hand() -> None:
    encoder = ConvEncoder((1, 6, 6), 2, width=4)
    x = torch.rand(2, 1, 6, 6)
    leaky = nn.LeakyReLU(0.2)
    first, second = encoder.residuals[0].first, encoder.residuals[0].second
    convolved = encoder.convs[0](x)
    expected = leaky(convolved + second(leaky(first(convolved))))
    torch.testing.assert_close(encoder(x)[1][0], expected)


def test_taps_differ_where_they_should() -> None:
    torch.manual_seed(0)
    encoder, x = ConvEncoder((1, 8, 8), 2, width=4), torch.rand(2, 1, 8, 8)
    shapes = {}
    for tap in ("act", "conv", "pool"):
        encoder.feature_tap = tap
        shapes[tap] = [tuple(f.shape[2:]) for f in encoder(x)[1]]
    assert shapes == {
        "act": [(8, 8), (8, 8), (4, 4)],
        "conv": [(8, 8), (8, 8), (4, 4)],
        "pool": [(8, 8), (4, 4), (4, 4)],
    }


def test_posterior_from_features_equals_the_whole_pass() -> None:
    encoder, x = ConvEncoder((1, 9, 9), 3, width=4), torch.rand(2, 1, 9, 9)
    posterior, features = encoder(x)
    partial, rest = encoder.features(x)
    assert all(torch.equal(a, b) for a, b in zip(features, partial, strict=True))
    assert torch.equal(encoder.posterior(rest).mean, posterior.mean)


def test_decoder_output_and_logits() -> None:
    z = torch.randn(4, 2)
    image = ConvDecoder((1, 8, 8), 2, width=4, output="sigmoid").eval()
    signal = ConvDecoder((1, 8), 2, width=4, output="linear").eval()
    torch.testing.assert_close(image(z), torch.sigmoid(image.logits(z)))
    assert torch.equal(signal(z), signal.logits(z))


def test_small_layers_start_at_a_tenth() -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder((1, 28, 28), 8, width=16)
    residual = encoder.residuals[2]
    assert residual.second.weight.std().item() == pytest.approx(0.1 * residual.first.weight.std().item(), rel=0.1)
    expected = (2 / (1 + 0.2**2) / 128) ** 0.5 * 0.1  # Kaiming for LeakyReLU 0.2
    assert encoder.mean.weight.std().item() == pytest.approx(expected, rel=0.1)
    assert all(bool((m.bias == 0).all()) for m in encoder.modules() if isinstance(m, nn.Conv2d | nn.Linear))


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("kind", [ConvDecoder, DcganDecoder])
def test_norm_option(kind: type[ConvDecoder | DcganDecoder], norm: str) -> None:
    decoder = kind((1, 64, 64), 2, width=4, norm_kind=norm)
    kinds = {"batch": nn.BatchNorm2d, "group": nn.GroupNorm, "none": nn.Identity}
    assert sum(isinstance(m, kinds[norm]) for m in decoder.modules()) >= 4
    if norm != "batch":
        z = torch.randn(6, 2)
        torch.testing.assert_close(decoder(z)[:3], decoder(z[:3]))  # independent of the rest of the batch


def examples() -> list[Network]:
    return [
        ConvEncoder((2, 33), 3, width=4, pools=3, feature_tap="pool"),
        ConvDecoder((1, 9, 9), 3, width=4, norm_kind="group"),
        ConvCritic((1, 9, 9), width=4, spectral_norm=True),
        DcganEncoder((2, 33), 3, width=4, norm_kind="group", centred=False),
        DcganDecoder((2, 33), 3, width=4, output="linear"),
        DcganCritic((1, 9, 9), width=4, norm_kind="none"),
        DenseClassifier(3, 5, hidden=16),
        HouEncoder((2, 33), 3, width=4, stages=5),
        HouDecoder((1, 9, 9), 3, width=4, norm_kind="group"),
        HouCritic((1, 9, 9), width=4),
        TapWeights([1.0, 0.25]),
    ]


@pytest.mark.parametrize("network", examples(), ids=lambda n: n.model_type)
def test_a_folder_gives_the_same_network_back(network: Network, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    again = Network.from_pretrained(tmp_path)
    assert type(again) is type(network) is NETWORKS[json.loads((tmp_path / "config.json").read_text())["model_type"]]
    assert not again.training
    state, loaded = network.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[k], loaded[k]) for k in state)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_roles_dispatch_and_refuse(tmp_path: Path) -> None:
    ConvEncoder((1, 8, 8), 2, width=4).save_pretrained(tmp_path)
    assert type(Encoder.from_pretrained(tmp_path)) is ConvEncoder
    for role in (Decoder, Classifier):
        with pytest.raises(CheckpointError, match=f"ConvEncoder, which is no {role.__name__}"):
            role.from_pretrained(tmp_path)


def test_unknown_type_and_version_are_refused_in_one_line(tmp_path: Path) -> None:
    ConvEncoder((1, 8, 8), 2, width=4).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "transformer"}))
    with pytest.raises(CheckpointError, match="model_type 'transformer' is not in NETWORKS"):
        Encoder.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(CheckpointError, match="format_version 99"):
        Encoder.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        Encoder.from_pretrained(tmp_path.parent)


def test_missing_weights_are_not_guessed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    ConvEncoder((1, 8, 8), 2, width=4).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("mean.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has no mean\.weight, which config\.json asks for"):
        Encoder.from_pretrained(tmp_path)


def test_pools_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"networks\.pools"):
        ConvEncoder((1, 8, 8), 2, pools=7)


def test_signal_convolution_is_torch_s() -> None:
    torch.manual_seed(0)
    ours, reference = SignalConv(3, 5, 3, padding=1).double(), nn.Conv1d(3, 5, 3, padding=1).double()
    reference.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 11, dtype=torch.float64)
    torch.testing.assert_close(ours(x), reference(x))


def test_parameters_that_share_one_flat_tensor_are_saved(tmp_path: Path) -> None:
    """As they do under ZeRO, where the Hub's mixin would refuse them."""
    network = ConvCritic((1, 12, 10), 4)
    flat, start = torch.cat([p.detach().flatten() for p in network.parameters()]), 0
    for parameter in network.parameters():
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    network.save_pretrained(tmp_path)
    again = ConvCritic.from_pretrained(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    assert (tmp_path / "model.safetensors").stat().st_size < 2 * flat.nbytes


@pytest.mark.parametrize("pools", [0, 2, 4])
def test_receptive_fields_are_what_gradients_reach(pools: int) -> None:
    encoder = ConvEncoder((1, 512), 2, width=2, pools=pools)
    for number, size in enumerate(encoder.receptive_fields()[:3], 1):
        reached = torch.zeros(512, dtype=torch.bool)
        for seed in range(8):  # a max-pool passes on one of two, another for other samples
            x = torch.randn(1, 1, 512, generator=torch.Generator().manual_seed(seed)).requires_grad_()
            feature = encoder.stages(x)[number - 1]
            (slope,) = torch.autograd.grad(feature[..., feature.shape[-1] // 2].sum(), x)
            reached |= slope[0, 0] != 0
        where = reached.nonzero().squeeze(1)
        assert where.max() - where.min() + 1 == size
