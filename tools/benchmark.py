"""Measure the trainer: `benchmark.py step` holds its iterations against those of a hand-written loop."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from savae_dist import config as configuration
from savae_dist import launch
from savae_dist.config import RunConfig
from savae_dist.data import Order, Reader, Request, Shards, loader, pack
from savae_dist.engine import PreparedUpdate, run_phase
from savae_dist.errors import ConfigError, UserError
from savae_dist.feed import Feed, Slicing, read_plan
from savae_dist.networks import Network
from savae_dist.phases import Phase
from savae_dist.preprocess import normalise
from savae_dist.systems import SAVAE

Step = Callable[[], object]  # one iteration

LANES = 8  # what a run on one process takes
PRELOADED = 4096  # samples that the hand-written loops hold in memory
ENDLESS = sys.maxsize
WARM_UP = 3  # iterations: memory is allocated, kernels are chosen


@dataclass(frozen=True)
class Setting:
    """What all loops of a comparison share."""

    config: RunConfig
    shards: Shards
    device: torch.device

    def networks(self) -> dict[str, Network]:
        """The same weights for every loop, where and in the layout in which a run has them."""
        torch.manual_seed(self.config.seed)
        widths = self.config.networks
        networks = self.config.system.build(self.shards.spec, widths.width, widths.norm, widths.pools)
        for network in networks.values():
            network.to(self.device, memory_format=torch.channels_last)
        return networks


def trainer(setting: Setting, phase: Phase) -> Step:
    """The way a run goes: shards, reader, loader, feed, engine."""
    config, spec = setting.config, setting.shards.spec
    networks = setting.networks()
    active = [update for update in phase.updates if update.active]
    updates = {u.name: PreparedUpdate(u, phase, networks, config.optimizers[u.name]) for u in active}
    slicing = Slicing(config.data.batch_size)
    order = Order(setting.shards.counts, config.seed, LANES, config.data.shuffle_window)
    plan = read_plan(phase, 0, ENDLESS, 0, slicing)
    requests = (Request(start, slicing.size, slots) for start, slots in plan)
    raw = loader(Reader(setting.shards, order, 0), requests, 0, setting.device.type == "cuda")
    feed = Feed(slicing, setting.device, lambda x: normalise(x, spec), config.seed)
    steps = run_phase(phase, updates, raw, feed, first=0, last=ENDLESS, origin=0)
    return lambda: next(steps)


class Preloaded:
    """Batches without a loader: float samples that lie on the device, in a shuffled order."""

    def __init__(self, setting: Setting) -> None:
        raw = samples(setting.shards)
        self.x = normalise(raw[0], setting.shards.spec).to(setting.device)
        self.y = raw[1].to(setting.device)
        self.size = min(setting.config.data.batch_size, len(self.y))
        self.latent_dim = setting.config.system.latent_dim
        self.left = self.x.new_empty(0, dtype=torch.int64)

    def batch(self) -> tuple[Tensor, Tensor]:
        if len(self.left) < self.size:
            self.left = torch.randperm(len(self.y), device=self.y.device)
        here, self.left = self.left[: self.size], self.left[self.size :]
        return self.x.index_select(0, here), self.y.index_select(0, here)

    def noise(self) -> Tensor:
        return torch.randn(self.size, self.latent_dim, device=self.x.device)


def samples(shards: Shards) -> tuple[Tensor, Tensor]:
    """The first `PRELOADED` samples as stored, and their labels."""
    n = min(PRELOADED, shards.size)
    raw = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, n, range(n))]
    return raw.x, raw.y


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def adam(setting: Setting, update: str, *networks: Network) -> torch.optim.Optimizer:
    parameters = [p for network in networks for p in network.parameters()]
    return torch.optim.Adam(parameters, setting.config.optimizers[update].lr, fused=True)


def written_vec(setting: Setting, data: Preloaded) -> Step:
    """Algorithm 1 by hand."""
    nets: dict[str, Any] = setting.networks()
    encoder, classifier = nets["encoder"].train(), nets["classifier"].train()
    optimizer, weight = adam(setting, "vec", encoder, classifier), setting.config.system.kl_weight

    def step() -> None:
        x, y = data.batch()
        posterior, _ = encoder(x)
        logits = classifier(posterior.sample(data.noise()))
        kl = posterior.kl().sum(1).mean()
        descend(weight * kl + F.cross_entropy(logits, y, ignore_index=-1), optimizer)

    return step


def written_decoder(setting: Setting, data: Preloaded) -> Step:
    """Algorithm 2 by hand, with every exact saving but the cache of posteriors."""
    nets: dict[str, Any] = setting.networks()
    system = setting.config.system
    encoder, classifier, decoder, critic = (nets[name] for name in ("encoder", "classifier", "decoder", "critic"))
    encoder.eval().requires_grad_(False)
    classifier.eval().requires_grad_(False)
    learn_critic, learn_decoder = adam(setting, "critic", critic), adam(setting, "decoder", decoder)

    def critic_steps() -> None:
        critic.requires_grad_(True)
        x, _ = data.batch()
        descend((1 - critic(x)).square().mean(), learn_critic)
        x, _ = data.batch()
        with torch.no_grad():
            x_hat = decoder(encoder(x)[0].sample(data.noise()))
        descend((-1 - critic(x_hat)).square().mean(), learn_critic)
        critic.requires_grad_(False)

    def step() -> None:
        if system.beta:
            critic_steps()
        x, _ = data.batch()
        posterior, features = encoder(x)  # no graph: nothing here wants a gradient
        z = posterior.sample(data.noise())
        x_hat = decoder(z)
        features_hat, rest = encoder.features(x_hat)
        loss = torch.stack([a * F.mse_loss(h, f) for a, h, f in zip(system.alpha, features_hat, features)]).sum()
        if system.beta:
            loss = loss + system.beta * (critic(x) - critic(x_hat)).square().mean()
        if system.gamma:
            z_hat = encoder.posterior(rest).sample(data.noise())
            difference = classifier(z).softmax(1) - classifier(z_hat).softmax(1)
            loss = loss + system.gamma * difference.square().sum(1).mean()
        descend(loss, learn_decoder)

    return step


WRITTEN: dict[str, Callable[[Setting, Preloaded], Step]] = {"vec": written_vec, "decoder": written_decoder}


def imported(folder: Path, setting: Setting, phase: str, scratch: Path) -> dict[str, Step]:
    """The loops `Phase1` and `Phase2` of `raw_torch.py` in `folder`, in both memory formats."""
    if not (folder / "raw_torch.py").is_file():
        raise ConfigError(f"--hand-written {folder} holds no raw_torch.py; name the folder that does")
    if setting.shards.spec.shape != (1, 28, 28) or setting.device.type != "cpu":
        raise ConfigError("--hand-written takes 28x28 grey images on a CPU; give such shards, and hide the GPU")
    sys.path[:] = dict.fromkeys([str(folder), *sys.path])  # its files import each other by bare names
    from nets import Plan
    from raw_torch import STAGES, Phase1, Phase2

    x, y = (t.numpy() for t in samples(setting.shards))
    where = str(scratch / "samples.npz")
    np.savez(where, x_train=x, y_train=y.clip(0), x_test=x[:1], y_test=y[:1].clip(0))
    config, system = setting.config, setting.config.system
    common = Plan(config.networks.width, system.latent_dim, setting.shards.spec.classes), config.data.batch_size
    uncached = tuple(stage for stage in STAGES if stage != "cache")
    loops: dict[str, Step] = {}
    for layout, last in (("NCHW", False), ("NHWC", True)):
        if phase == "vec":
            loops[f"Phase1 {layout}"] = Phase1(*common, channels_last=last, where=where).step
            continue
        for name, stages in ((layout, uncached), (f"{layout} cache", STAGES)):
            loop = Phase2(*common, stages, system.beta, system.gamma, channels_last=last, where=where)
            loops[f"Phase2 {name}"] = loop.step
    return loops


def interleave(steps: Mapping[str, Step], rounds: int, seconds: float, wait: Step) -> dict[str, np.ndarray]:
    """Wall and CPU seconds per iteration of every loop, `[rounds, 2]`; the loops take turns of about `seconds`.

    wait: returns when the device has done all that it was given.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for run in steps.values():
        for _ in range(WARM_UP):
            run()
    for _ in range(rounds):
        for name, run in steps.items():
            wait()
            count, cpu, start = 0, time.process_time(), time.perf_counter()
            while not count or time.perf_counter() - start < seconds:
                run()
                count += 1
            wait()
            times[name].append(((time.perf_counter() - start) / count, (time.process_time() - cpu) / count))
    return {name: np.array(pairs) for name, pairs in times.items()}


def table(title: str, times: Mapping[str, np.ndarray], reference: str, batch: int) -> Iterator[str]:
    """A line per loop: medians over the rounds; speeds relative to `reference` are compared within each round."""
    yield f"{title:<22}{'wall ms':>10}{'CPU ms':>10}{'samples/s':>11}{'speed':>8}{'by CPU':>8}"
    for name, pairs in times.items():
        wall, cpu = np.median(pairs, axis=0)
        speed, by_cpu = np.median(times[reference] / pairs, axis=0)
        yield f"  {name:<20}{1e3 * wall:10.2f}{1e3 * cpu:10.2f}{batch / wall:11.0f}{speed:8.3f}{by_cpu:8.3f}"


def machine(device: torch.device) -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = torch.cuda.get_device_name() if device.type == "cuda" else (models or [platform.machine()])[0]
    return f"torch {torch.__version__}, {model}, {torch.get_num_threads()} threads"


def step(arguments: argparse.Namespace) -> None:
    """The trainer's iteration beside a hand-written one with the same networks and the same exact savings."""
    torch.set_num_threads(arguments.threads)
    device = launch.start("fp32").device
    wait: Step = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    asked = {"networks.width": arguments.width, "data.batch_size": arguments.batch}
    asked |= {"system.beta": arguments.beta, "system.gamma": arguments.gamma}
    config = configuration.load([f"{key}={value}" for key, value in asked.items()])
    print(f"{machine(device)}; {', '.join(f'{key}={value}' for key, value in asked.items())}")
    with tempfile.TemporaryDirectory() as scratch:
        shards = Shards.open(arguments.shards or synthetic(Path(scratch) / "shards"))
        if shards.spec.kind == "signal":
            shards = shards.with_normalise(config.data.normalise)
        setting = Setting(config, shards, device)
        for phase in config.system.phases():
            if arguments.phase in (phase.name, "both"):
                loops = {"hand-written": WRITTEN[phase.name](setting, Preloaded(setting))}
                loops["trainer"] = trainer(setting, phase)
                if arguments.hand_written:
                    loops |= imported(arguments.hand_written, setting, phase.name, Path(scratch))
                times = interleave(loops, arguments.rounds, arguments.seconds, wait)
                print("\n".join(table(phase.name, times, "hand-written", arguments.batch)), flush=True)


def synthetic(folder: Path) -> str:
    """28x28 images of noise with labels, packed."""
    x = np.random.default_rng(0).integers(0, 256, (PRELOADED, 28, 28), np.uint8)
    pack(x, np.arange(PRELOADED) % 10, folder, shard_size=PRELOADED // 4)
    return str(folder)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmark", description="Measure the trainer on this machine.")
    what = parser.add_subparsers(required=True, metavar="WHAT")

    steps = what.add_parser("step", help="iterations of both SAVAE phases, beside a hand-written loop")
    steps.add_argument("--width", type=int, default=16, help="of the networks")
    steps.add_argument("--batch", type=int, default=128, help="samples per optimiser step")
    steps.add_argument("--rounds", type=int, default=5, help="how often the loops take turns")
    steps.add_argument("--seconds", type=float, default=2.0, help="per loop and round")
    steps.add_argument("--threads", type=int, default=2, help="of torch")
    steps.add_argument("--phase", choices=("vec", "decoder", "both"), default="both")
    steps.add_argument("--beta", type=float, default=SAVAE.beta, help="adversarial weight")
    steps.add_argument("--gamma", type=float, default=SAVAE.gamma, help="latent weight")
    steps.add_argument("--shards", metavar="FOLDER", help="packed samples; 28x28 noise if left out")
    steps.add_argument("--hand-written", type=Path, metavar="FOLDER", help="time the loops of its raw_torch.py too")
    steps.set_defaults(measure=step)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        arguments.measure(arguments)
    except UserError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
