"""Measure the trainer.

`step`: beside a hand-written loop. `systems`: each system beside the others. `data`: beside other loaders. `scaling`:
beside processes that never talk.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch

from savae_dist.config import load
from savae_dist.data import Shards, pack
from savae_dist.distributed import launch
from savae_dist.distributed.ranks import Peers
from savae_dist.errors import ConfigError, UserError
from savae_dist.systems import SAVAE
from savae_dist.systems.phases import Phase
from savae_dist.training.batches import Slicing

if __package__:  # an installed command, or a test
    from . import handwritten, loaders, scaling
    from .trials import named
else:  # python tools/benchmark.py
    import handwritten  # type: ignore[no-redef]
    import loaders  # type: ignore[no-redef]
    import scaling  # type: ignore[no-redef]
    from trials import named  # type: ignore[no-redef]

EPOCHS = 10
CONSTANT = "optimizers.vec.schedule=constant"
WARM_UP = 3  # iterations: memory is allocated, kernels are chosen


def trainer(setting: handwritten.Setting, phase: Phase) -> handwritten.Step:
    """The way a run goes, on one process."""
    return scaling.trainer(setting, phase, Slicing(setting.config.data.batch_size)).step


def interleave(
    steps: Mapping[str, handwritten.Step], rounds: int, seconds: float, wait: handwritten.Step
) -> dict[str, np.ndarray]:
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
    asked = {"networks.width": arguments.width, "data.batch_size": arguments.batch}
    asked |= {"system.beta": arguments.beta, "system.gamma": arguments.gamma}
    # At a constant rate, as the hand-written loop: these steps have no end for a schedule to lead to.
    config = load.load([*(f"{key}={value}" for key, value in asked.items()), CONSTANT])
    device = launch.start("fp32", config.timeout).device
    wait = scaling.device_wait(device)
    print(f"{machine(device)}; {', '.join(f'{key}={value}' for key, value in asked.items())}")
    with tempfile.TemporaryDirectory() as scratch:
        shards = Shards.open(arguments.shards or synthetic(Path(scratch) / "shards"))
        if shards.spec.kind == "signal":
            shards = shards.with_normalise(config.data.normalise)
        setting = handwritten.Setting(config, shards, device)
        for phase in config.system.phases():
            if arguments.phase in (phase.name, "both"):
                loops = {"hand-written": handwritten.WRITTEN[phase.name](setting, handwritten.Preloaded(setting))}
                loops["trainer"] = trainer(setting, phase)
                if arguments.hand_written:
                    loops |= handwritten.imported(arguments.hand_written, setting, phase.name, Path(scratch))
                times = interleave(loops, arguments.rounds, arguments.seconds, wait)
                print("\n".join(table(phase.name, times, "hand-written", arguments.batch)), flush=True)


def systems(arguments: argparse.Namespace) -> None:
    """An iteration of each phase of several systems, beside the first one's."""
    torch.set_num_threads(arguments.threads)
    _, starts = named(arguments.config)
    configs = {name: load.load([*words, *arguments.changes]) for name, words in starts.items()}
    (size, precision), *others = {(config.data.batch_size, config.precision) for config in configs.values()}
    if others:
        raise ConfigError(f"they differ in batch or precision: add data.batch_size={size} precision={precision}")
    device = launch.start(precision, 600.0).device
    print(f"{machine(device)}; batches of {size}, {precision}")
    with tempfile.TemporaryDirectory() as scratch:
        shards = Shards.open(synthetic(Path(scratch) / "shards"))
        loops = {
            f"{name} {phase.name}": trainer(handwritten.Setting(config, shards, device), phase)
            for name, config in configs.items()
            for phase in config.system.phases()
            if phase.steps
        }
        times = interleave(loops, arguments.rounds, arguments.seconds, scaling.device_wait(device))
        print("\n".join(table("an iteration", times, next(iter(loops)), size)))


def scale(arguments: argparse.Namespace) -> None:
    """Throughput of 1 and of several processes, what the reduction costs them, and where the time goes."""
    asked = [f"networks.width={arguments.width}", f"data.batch_size={arguments.batch}", *arguments.changes]
    config = load.load(asked)
    phases = [phase for phase in config.system.phases() if arguments.phase in (phase.name, "both")]
    if not phases:
        raise ConfigError(f"--phase={arguments.phase}: {config.system.name} has no such phase")
    if "RANK" not in os.environ:
        options = [f"--{key}={getattr(arguments, key)}" for key in ("width", "batch", "rounds", "seconds", "phase")]
        code = scaling.start([*options, *arguments.changes], arguments.processes)
        if code:
            raise ConfigError(f"a process ended with {code}; what it said stands above")
        return
    torch.set_num_threads(1)
    state = launch.start(config.precision, config.timeout)
    peers = Peers(state, config.timeout)
    about = f"{peers.ranks} processes ({state.backend}); {', '.join(asked)}"
    scaling.speak(peers, iter([f"{machine(state.device)} each, {about}"]))
    with tempfile.TemporaryDirectory() as scratch:
        setting = handwritten.Setting(config, Shards.open(synthetic(Path(scratch) / "shards")), state.device)
        wait = scaling.device_wait(state.device)
        for phase in phases:
            lines = scaling.measure(setting, phase, peers, arguments.rounds, arguments.seconds, wait)
            scaling.speak(peers, lines)


def data(arguments: argparse.Namespace) -> None:
    """Batches through this package, the webdataset library and `datasets` streaming, from the same shards."""
    torch.set_num_threads(1)
    size, workers = arguments.batch, arguments.workers
    if workers < 0:
        raise ConfigError(f"--workers={workers} must not be negative")
    print(f"{machine(torch.device('cpu'))}; batches of {size}, {workers} workers, {arguments.samples} samples")
    with tempfile.TemporaryDirectory() as scratch:
        for title, folder in loaders.sets(Path(scratch), arguments.samples, size):
            ways = {name: load(folder, size, workers) for name, load in loaders.LOADERS.items()}
            loops = {name: partial(next, batches) for name, batches in ways.items()}
            times = interleave(loops, arguments.rounds, arguments.seconds, lambda: None)
            print("\n".join(table(title, times, "webdataset", size)))
            print("  " + memory(loaders.ours(folder, size, workers), arguments.samples // size), flush=True)


def memory(batches: loaders.Batches, epoch: int) -> str:
    """Resident memory of this process, mapped shards included, after the first and the last of `EPOCHS` epochs."""
    sizes = []
    for _ in range(EPOCHS):
        for _ in range(epoch):
            next(batches)
        sizes.append(psutil.Process().memory_info().rss / 2**20)
    return f"resident memory: {sizes[0]:.1f} MiB after epoch 1, {sizes[-1]:.1f} MiB after epoch {EPOCHS}"


def synthetic(folder: Path) -> str:
    """28x28 images of noise with labels, packed."""
    x = np.random.default_rng(0).integers(0, 256, (handwritten.PRELOADED, 28, 28), np.uint8)
    pack(x, np.arange(handwritten.PRELOADED) % 10, folder, shard_size=handwritten.PRELOADED // 4)
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

    each = what.add_parser("systems", help="an iteration of each of several systems, on 28x28 noise")
    each.add_argument("config", help="presets or files, separated by commas, or a comparison, as sweep.py takes them")
    each.add_argument("changes", nargs="*", metavar="key=value", help="of all their configurations")
    each.add_argument("--rounds", type=int, default=5, help="how often the loops take turns")
    each.add_argument("--seconds", type=float, default=2.0, help="per loop and round")
    each.add_argument("--threads", type=int, default=2, help="of torch")
    each.set_defaults(measure=systems)

    several = what.add_parser("scaling", help="1 and several processes, beside processes that never talk")
    several.add_argument("--processes", type=int, default=2, help="started here; a launcher's ranks are taken as given")
    several.add_argument("--width", type=int, default=16, help="of the networks")
    several.add_argument("--batch", type=int, default=128, help="samples per optimiser step, over all processes")
    several.add_argument("--rounds", type=int, default=8, help="how often the loops take turns")
    several.add_argument("--seconds", type=float, default=3.0, help="per loop and round")
    several.add_argument("--phase", default="both", help="vec, decoder or both, or a phase of another system")
    several.add_argument("changes", nargs="*", metavar="key=value", help="of the demo's configuration")
    several.set_defaults(measure=scale)

    batches = what.add_parser("data", help="samples per second, beside the webdataset and datasets libraries")
    batches.add_argument("--batch", type=int, default=256, help="samples per batch, and per block where packed")
    batches.add_argument("--samples", type=int, default=16_384, help="per set, a multiple of 4 batches")
    batches.add_argument("--workers", type=int, default=0, help="processes; CPU times leave theirs out")
    batches.add_argument("--rounds", type=int, default=5, help="how often the loaders take turns")
    batches.add_argument("--seconds", type=float, default=1.0, help="per loader and round")
    batches.set_defaults(measure=data)
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
