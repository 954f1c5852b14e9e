"""What is said of networks that could not be saved and loaded, when they are built."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from savae_dist.errors import ConfigError
from savae_dist.networks import NETWORKS, Critic, Network
from savae_dist.networks.check import check_networks


class Bare(Network):
    """Takes no arguments."""

    model_type = "test_bare"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Taking(Critic):
    """Takes what config.json cannot hold."""

    model_type = "test_taking"

    def __init__(self, size: int, inner: object = None) -> None:
        super().__init__()
        self.size, self.inner = size, inner


class Starred(Taking):
    model_type = "test_starred"

    def __init__(self, *sizes: int) -> None:
        super().__init__(sizes[0])


class Plain(Network):
    """Has no __init__ at all."""

    model_type = "test_plain"


class Passing(Taking):
    """Passes on what it is given."""

    model_type = "test_passing"

    def __init__(self, **given: object) -> None:
        super().__init__(**given)


class Nameless(Bare):
    model_type = ""


class Child(Bare):
    """Has its parent's model_type."""


@pytest.fixture(autouse=True)
def entered() -> Iterator[None]:
    own = {kind.model_type: kind for kind in (Bare, Plain, Passing, Taking, Starred)}
    NETWORKS.update(own)
    yield
    for name in own:
        NETWORKS.pop(name)


def said(network: nn.Module) -> str:
    with pytest.raises(ConfigError) as caught:
        check_networks("mine", {"critic2": network})
    (line,) = str(caught.value).splitlines()
    return line


def test_a_plain_module_is_refused() -> None:
    assert said(nn.Linear(2, 1)) == (
        "system.name=mine: network 'critic2' is a torch Linear, not a savae_dist.networks.Network: subclass Network "
        "(docs/own_systems.md)"
    )


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Nameless(), "is a Nameless without a model_type: give it one"),
        (Child(), "is a Child, and NETWORKS['test_bare'] is Bare: give it a model_type of its own"),
        (Taking(3, inner=nn.ReLU()), "is a Taking, made with inner=a ReLU, which config.json cannot hold"),
        (Starred(3), "is a Starred, whose __init__ takes *sizes: name each argument"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_could_not_be_loaded_is_refused(network: Network, words: str) -> None:
    assert words in said(network)


def test_a_network_that_is_not_entered_is_refused() -> None:
    NETWORKS.pop("test_bare")
    assert "NETWORKS does not have: add NETWORKS['test_bare'] = Bare" in said(Bare())
    NETWORKS["test_bare"] = Bare


def test_a_network_without_arguments_is_saved_and_loaded(tmp_path: Path) -> None:
    network = Bare()
    check_networks("mine", {"bare": network, "with": Taking(3)})
    network.save_pretrained(tmp_path)
    again = Network.from_pretrained(tmp_path)
    assert type(again) is Bare
    assert again.init_arguments == {}
    assert torch.equal(again.layer.weight, network.layer.weight)
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").read_bytes() == (tmp_path / "config.json").read_bytes()


@pytest.mark.parametrize(("kind", "given"), [(Plain, {}), (Passing, {"size": 3})])
def test_a_network_without_named_arguments_is_saved_and_loaded(
    kind: type[Network], given: dict[str, int], tmp_path: Path
) -> None:
    network = copy.deepcopy(kind(**given))
    check_networks("mine", {"network": network})
    network.save_pretrained(tmp_path)
    again = Network.from_pretrained(tmp_path)
    assert type(again) is kind
    assert again.init_arguments == network.init_arguments == given
