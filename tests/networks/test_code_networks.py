"""The networks of the adversarial autoencoders: any shape, a point and a label part, folders that load again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from savae_dist.networks import (
    AllConvDecoder,
    AllConvEncoder,
    CodeDiscriminator,
    ConvCodeEncoder,
    MLPDecoder,
    MLPEncoder,
    Network,
)
from savae_dist.networks.allconv import halvings
from savae_dist.networks.mlp import CodeEncoder

SHAPES = [(1, 28, 28), (3, 33, 17), (2, 1001), (1, 8, 8), (1, 7), (1, 3), (1, 5, 9)]


def encoders(shape: tuple[int, ...], labels: int, batch_norm: bool = False) -> list[CodeEncoder]:
    return [
        MLPEncoder(shape, 3, labels, hidden=8, batch_norm=batch_norm),
        AllConvEncoder(shape, 3, labels, width=2, batch_norm=batch_norm),
        ConvCodeEncoder(shape, 3, labels, width=2, pools=1, batch_norm=batch_norm),
    ]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("labels", [0, 4])
def test_any_shape_goes_there_and_back(shape: tuple[int, ...], labels: int) -> None:
    x = torch.rand(5, *shape)
    for encoder in encoders(shape, labels):
        posterior, features = encoder(x)
        assert posterior.mean.shape == (5, 3 + labels) == (5, encoder.latent_dim)
        assert torch.equal(posterior.sample(torch.randn(5, 3 + labels)), posterior.mean)
        assert features == []
        z, logits = encoder.parts(x)
        assert torch.equal(posterior.mean, torch.cat([z, logits.softmax(1)], 1))
        for output in ("sigmoid", "linear"):
            for decoder in (
                MLPDecoder(shape, 3 + labels, hidden=8, output=output),
                AllConvDecoder(shape, 3 + labels, width=2, output=output),
            ):
                logits = decoder.logits(posterior.mean)
                assert logits.shape == x.shape
                expected = torch.sigmoid(decoder.eval().logits(z_all := posterior.mean))
                expected = expected if output == "sigmoid" else decoder.logits(z_all)
                torch.testing.assert_close(decoder(z_all), expected)
    assert CodeDiscriminator(3 + labels, hidden=8)(posterior.mean).shape == (5,)


def test_batch_norm_of_the_code_gives_every_label_its_share() -> None:
    """Coordinates and label logits of a batch have mean 0 and one variance, however far off the last layer is."""
    torch.manual_seed(0)
    x = torch.rand(64, 1, 9, 7)
    for encoder in encoders((1, 9, 7), 4, batch_norm=True):
        last = [m for m in encoder.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)][-1]
        with torch.no_grad():
            assert last.bias is not None
            last.bias[-1] += 10.0
        z, logits = encoder.parts(x)
        code = torch.cat([z, logits], 1)
        torch.testing.assert_close(code.mean(0), torch.zeros(7), atol=1e-3, rtol=0)
        variance = code.var(0, unbiased=False)  # next to 1, but for the epsilon of batch norm
        assert (variance > 0.5).all()
        assert (variance < 1.001).all()
        assert (logits.softmax(1).mean(0) < 0.6).all()


def test_halvings_leave_at_most_four() -> None:
    assert [halvings(shape) for shape in SHAPES] == [3, 4, 8, 1, 1, 0, 2]


@pytest.mark.parametrize("norm", ["group", "none"])
def test_without_batch_norm_a_sample_is_alone(norm: str) -> None:
    encoder, decoder = AllConvEncoder((1, 9, 7), 2, width=8, norm_kind=norm), AllConvDecoder((1, 9, 7), 2, 8, norm)
    x, z = torch.rand(6, 1, 9, 7), torch.randn(6, 2)
    torch.testing.assert_close(encoder(x)[0].mean[:3], encoder(x[:3])[0].mean)
    torch.testing.assert_close(decoder(z)[:3], decoder(z[:3]))


@pytest.mark.parametrize(
    "network",
    [
        *encoders((2, 33), 4),
        *encoders((2, 33), 4, True),
        MLPDecoder((1, 9, 9), 3, 8),
        AllConvDecoder((2, 33), 3, 2),
        CodeDiscriminator(3, 8),
    ],
    ids=lambda n: n.model_type,
)
def test_a_folder_gives_the_same_network_back(network: Network, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    again = Network.from_pretrained(tmp_path)
    assert type(again) is type(network)
    state, loaded = network.state_dict(), again.state_dict()
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[k], loaded[k]) for k in state)
