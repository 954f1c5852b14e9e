"""Activation checkpointing: the same to the bit as keeping everything, with fewer tensors kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.contract import OPTIONS, make, specs_of
from torch import Tensor, nn

from savae_dist.networks import (
    AllConvDecoder,
    AllConvEncoder,
    ConvCritic,
    ConvDecoder,
    ConvEncoder,
    DcganCritic,
    DcganDecoder,
    DcganEncoder,
    HouCritic,
    HouDecoder,
    HouEncoder,
    PeriodCritic,
    SpectrogramCritic,
    staged,
)
from savae_dist.networks.staged import Staged, checkpoint_activations
from savae_dist.testing.contract import difference
from savae_dist.testing.small_run import SmallRun

ROWS = [(name, row) for name, rows in OPTIONS.items() for row in range(len(rows))]


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_every_system_trains_the_same(name: str, row: int) -> None:
    """Weights, running statistics, estimates of spectral norm, losses and gradients' norms, penalties included."""
    spec = specs_of(name, row)[0]
    kept, again = (SmallRun(make(name, row, spec), spec, shares_every=1) for _ in range(2))
    for network in again.networks.values():
        checkpoint_activations(network)
    for phase in kept.phases:
        for run in (kept, again):
            run.run(phase, 2)
        assert difference(kept.tensors(), again.tensors()) == ""
        for update in kept.updates:
            expected, found = (run.updates[update].meter.drain() for run in (kept, again))
            assert expected.keys() == found.keys()
            assert all(torch.equal(found[term], sums) for term, sums in expected.items())


def saved_bytes(network: nn.Module, x: Tensor) -> int:
    """What the graph of a pass keeps for the gradient, each memory once, beside the parameters, which are there anyway.

    Of stages whose activations are computed again torch keeps the inputs by other means than a hook sees, so they are
    counted as what enters each stage.
    """
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), Inputs(pack):
        result = sum_of(network(x))
    for parameter in network.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    assert result.requires_grad
    return sum(kept.values())


class Inputs:
    """While it is entered, shows `look` what enters each stage that is checkpointed."""

    def __init__(self, look: Callable[[Tensor], Tensor]) -> None:
        self.look = look

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        plain = staged.checkpoint

        def checkpoint(stage: Callable[..., Any], x: Tensor, *parts: nn.Module, **options: Any) -> Any:
            self.look(x)
            return plain(stage, x, *parts, **options)

        self.patch.setattr(staged, "checkpoint", checkpoint)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


IMAGE, SIGNAL, K = (1, 32, 32), (1, 256), 3
NETWORKS = {
    "conv_encoder": (lambda: ConvEncoder(IMAGE, K, 8), IMAGE),
    "conv_encoder of a convolution": (lambda: ConvEncoder(IMAGE, K, 8, feature_tap="conv"), IMAGE),
    "conv_decoder": (lambda: ConvDecoder(IMAGE, K, 8), (K,)),
    "conv_decoder, no norm": (lambda: ConvDecoder(IMAGE, K, 8, norm_kind="none"), (K,)),
    "conv_decoder of signals": (lambda: ConvDecoder(SIGNAL, K, 8), (K,)),
    "conv_critic": (lambda: ConvCritic(IMAGE, 8), IMAGE),
    "conv_critic, spectral norm": (lambda: ConvCritic(IMAGE, 8, spectral_norm=True), IMAGE),
    "spectrogram_critic": (lambda: SpectrogramCritic(SIGNAL, 8), SIGNAL),
    "period_critic": (lambda: PeriodCritic(SIGNAL, 8), SIGNAL),
    "hou_encoder": (lambda: HouEncoder(IMAGE, K, 8), IMAGE),
    "hou_decoder": (lambda: HouDecoder(IMAGE, K, 8), (K,)),
    "hou_critic": (lambda: HouCritic(IMAGE, 8), IMAGE),
    "dcgan_encoder": (lambda: DcganEncoder(IMAGE, K, 8), IMAGE),
    "dcgan_decoder": (lambda: DcganDecoder(IMAGE, K, 8), (K,)),
    "dcgan_decoder, no norm": (lambda: DcganDecoder(IMAGE, K, 8, norm_kind="none"), (K,)),
    "dcgan_critic": (lambda: DcganCritic(IMAGE, 8), IMAGE),
    "all_conv_encoder": (lambda: AllConvEncoder(IMAGE, K, 2, 8), IMAGE),
    "all_conv_decoder": (lambda: AllConvDecoder(IMAGE, K, 8), (K,)),
}
# The share of the memory that is kept still, where it is not below 0.8: of spectral norm most is dense weights, divided
# by it, and without norms nothing but the inputs was kept of these stages before.
MOST_KEPT = {"conv_critic, spectral norm": 0.95, "dcgan_decoder, no norm": 1.0}
SECOND = {
    "conv_critic",
    "conv_critic, spectral norm",
    "hou_critic",
    "dcgan_critic",
    "spectrogram_critic",
    "period_critic",
}


def sum_of(result: object) -> Tensor:
    """Of all that a network gives; cubes, so that the gradient of the gradient is not zero."""
    parts = torch.utils._pytree.tree_leaves(result if isinstance(result, Tensor) else [*result[0], *result[1]])
    return torch.stack([part.pow(3).mean() for part in parts if isinstance(part, Tensor)]).sum()


def gradients(network: nn.Module, x: Tensor, second: bool) -> list[Tensor]:
    """Of the sum, twice from one graph; second: of the square of its gradient at x too, as penalties take it."""
    total = sum_of(network(x))
    (slope,) = torch.autograd.grad(total, x, create_graph=second, retain_graph=True)
    found = [slope, *torch.autograd.grad(total, [*network.parameters()], retain_graph=second, allow_unused=True)]
    if second:
        found += torch.autograd.grad(slope.square().sum(), [*network.parameters()], allow_unused=True)
    return [one for one in found if one is not None]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_alone(name: str) -> None:
    """Its gradients, those of its gradient, and its buffers; and what is kept for them, which is less."""
    torch.manual_seed(0)
    make_network, shape = NETWORKS[name]
    kept, again = make_network(), make_network()
    again.load_state_dict(kept.state_dict())
    checkpoint_activations(again)
    x = torch.rand(4, *shape, requires_grad=True)
    for training in (True, False):
        expected, found = (gradients(one.train(training), x, name in SECOND) for one in (kept, again))
        assert len(expected) == len(found)
        assert all(map(torch.equal, expected, found))
        buffers = zip(kept.buffers(), again.buffers(), strict=True)
        assert all(torch.equal(a, b) for a, b in buffers)
    more, less = (saved_bytes(one.train(), x) for one in (kept, again))
    print(f"{name}: {more:,} bytes kept, {less:,} with checkpointed activations")
    assert less <= MOST_KEPT.get(name, 0.8) * more


def test_random_numbers_are_drawn_once() -> None:
    """Of a network of somebody's own: the pass that is repeated sees the dropout of the first."""

    class Dropping(Staged):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(30, 30), nn.Dropout(0.5), nn.Linear(30, 30))

        def forward(self, x: Tensor) -> Tensor:
            return self.through(lambda x, layers: layers(x), x, self.layers)

    network, x, found = Dropping(), torch.rand(4, 30), []
    for _ in range(2):
        torch.manual_seed(1)
        network.zero_grad()
        network(x).square().sum().backward()
        found.append([*(p.grad for p in network.parameters()), torch.rand(3)])
        checkpoint_activations(network)
    assert all(map(torch.equal, *found))
