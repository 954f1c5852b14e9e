"""What `training.sharded` does on the ranks of this launch; prints what it found as JSON.

sharded_worker.py
"""

from __future__ import annotations

import copy
import json
from contextlib import nullcontext

import torch
from accelerate import PartialState
from torch import Tensor, nn

from savae_dist.config.schema import OptimizerConfig
from savae_dist.config.strategy import Strategy
from savae_dist.run.planning.memory import HeldBytes
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import SmallRun, distance
from savae_dist.training.batches import BatchSplit
from savae_dist.training.sharded import Layout, Sharded, freed_weights, join, layouts, shard, whole


def network() -> nn.Module:
    """Odd sizes, so that slices are filled up; a bias of one element, of which the second rank has nothing."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.GroupNorm(1, 5), nn.Tanh(), nn.Flatten(), nn.Linear(5 * 6 * 6, 1)
    )
    nn.utils.parametrizations.spectral_norm(layers[4])
    return layers.double().to(memory_format=torch.channels_last)


def sample(rank: int) -> Tensor:
    return torch.randn(4, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))


def penalised(net: nn.Module, x: Tensor) -> Tensor:
    """A loss with a gradient in it, as critics' penalties have."""
    x = x.clone().requires_grad_()
    score = net(x).sum()
    (slope,) = torch.autograd.grad(score, x, create_graph=True)
    return score.square() + (slope.flatten(1).norm(dim=1) - 1).square().mean()


def layout_keeps(rank: int) -> dict[str, bool]:
    image = torch.arange(3.0 * 5 * 2 * 2).view(3, 5, 2, 2).to(memory_format=torch.channels_last)
    layout = Layout(image.shape, image.stride())
    joined = layout.joined(layout.cut(image))
    return {
        "values": torch.equal(joined, image),
        "memory": joined.stride() == image.stride(),
        "mean": torch.equal(layout.mean(image + rank), layout.cut(image + 0.5)),
    }


def gradients_differ(state: PartialState) -> float:
    """How far the slices' gradients are from the mean of those that each rank's samples give a plain network."""
    sharded, expected = network(), dict[str, Tensor]()
    shard(sharded)
    shard(sharded)  # changes nothing
    with freed_weights():
        loss = penalised(sharded, sample(state.process_index))
    loss.backward()
    for rank in range(state.num_processes):
        plain = network()  # anew, since spectral norm's estimate moves with every pass
        (penalised(plain, sample(rank)) / state.num_processes).backward()
        for name, p in plain.named_parameters():
            expected[name] = p.grad + expected.get(name, 0)
    of, parts = layouts(sharded), dict(sharded.named_parameters())
    assert of.keys() == parts.keys() == expected.keys()
    assert min(float(one.abs().max()) for one in expected.values()) > 0
    return max(float((of[name].joined(parts[name].grad) - expected[name]).abs().max()) for name in parts)


def bytes_kept() -> dict[str, int]:
    """What a layer's graph keeps between the passes, freed and not; the bytes of its weight, and of all its slices.

    penalty: the same of a gradient of three layers, whose weights are of that size each.
    """
    found = {}
    for name, context in (("freed", freed_weights), ("kept", nullcontext)):
        layer = nn.Linear(512, 512)
        shard(layer)
        with HeldBytes() as held:
            with context():
                out = layer(torch.zeros(1, 512, requires_grad=True)).sum()
            found[name] = held.held
        out.backward()
    layers = nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(512, 512), nn.Softplus())))
    shard(layers)
    with HeldBytes() as held:
        with freed_weights():
            x = torch.ones(1, 512, requires_grad=True)
            slope = torch.autograd.grad(layers(x).sum(), x, create_graph=True)[0].square().sum()
        found["penalty"] = held.held
    slope.backward()
    return found | {"weight": 4 * 512 * 512, "slices": sum(p.nbytes for p in layer.parameters())}


def whole_and_back() -> dict[str, bool]:
    net, plain = network(), network()
    shard(net)
    slices = list(net.parameters())
    copied = copy.deepcopy(net)
    with whole([net, copied]):
        inside = all(torch.equal(a, b) for a, b in zip(net.parameters(), plain.parameters(), strict=True))
        cut_inside = any(isinstance(module, Sharded) for module in net.modules())
        with whole([net]):  # changes nothing
            inside = inside and net.get_parameter("0.weight").shape == (5, 3, 3, 3)
        net.load_state_dict({name: value + 1 for name, value in plain.state_dict().items()})
    same_slices = all(a is b for a, b in zip(slices, net.parameters(), strict=True))
    join(net)
    loaded = all(torch.equal(a, b + 1) for a, b in zip(net.parameters(), plain.parameters(), strict=True))
    join(copied)
    own = all(torch.equal(a, b) for a, b in zip(copied.parameters(), plain.parameters(), strict=True))
    return {
        "inside": inside and not cut_inside,
        "slices stay": same_slices,
        "loaded": loaded,
        "copy is its own": own,
        "plain again": type(net[0]) is nn.Conv2d and not layouts(net),
    }


def statistics_differ(state: PartialState) -> float:
    """Between FSDP and DDP, with batch norms of each rank's own samples and spectral norm's estimates."""

    def trained(strategy: Strategy) -> dict[str, dict[str, Tensor]]:
        system = SAVAE(latent_dim=3, critic_regulariser="spectral_norm")
        sgd = {name: OptimizerConfig("sgd", lr=0.05, clip_norm=0.5) for name in ("vec", "critic", "decoder")}
        split = BatchSplit(24, state.process_index, state.num_processes)
        run = SmallRun(system, split=split, dtype=torch.float64, optimizers=sgd, strategy=strategy)
        for phase in run.phases:
            run.run(phase, 3)
            for net in run.networks.values():
                join(net)
        return run.tensors()

    ddp, fsdp = trained("ddp"), trained("fsdp")
    names = {name.rsplit(".", 1)[-1] for tensors in ddp.values() for name in tensors}
    assert {"running_var", "num_batches_tracked", "_u"} <= names
    return max(distance(ddp[name], fsdp[name]) for name in ddp)


def main() -> None:
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    found = {
        "layout": layout_keeps(state.process_index),
        "gradients": gradients_differ(state),
        "bytes": bytes_kept(),
        "whole": whole_and_back(),
        "statistics": statistics_differ(state),
    }
    if state.is_main_process:
        print(json.dumps(found))
    state.destroy_process_group()


if __name__ == "__main__":
    main()
