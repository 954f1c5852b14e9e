"""Comparisons on one process, each as the lines of its report: loops take turns, so a busy machine slows all alike."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

import torch

from savae_dist.benchmarks import bare_loop, loaders, photos
from savae_dist.benchmarks.launches import launches
from savae_dist.benchmarks.setting import Setting, synthetic
from savae_dist.benchmarks.timing import WARM_UP, device_wait, interleave, machine, memory, table
from savae_dist.benchmarks.trainer_loop import trainer
from savae_dist.config import auto
from savae_dist.config.schema import RunConfig
from savae_dist.config.urls import shown
from savae_dist.data import Shards
from savae_dist.distributed import launch
from savae_dist.errors import ConfigError
from savae_dist.systems.phases import Phase

EPOCHS = 10  # over which memory is watched
AHEAD = 10  # batches that the workers of a loader may hold when its turn begins
COUNTED = 8  # iterations whose launches are counted
STEPS = 20  # training steps over which the wait for data is timed


def beside_bare_loop(
    config: RunConfig,
    phases: Sequence[Phase],
    about: str,
    rounds: int,
    seconds: float,
    threads: int,
    shards: str | None = None,
    folder: Path | None = None,
) -> Iterator[str]:
    """The trainer's iteration beside a hand-written one with the same networks and the same exact savings.

    about: what was asked, for the first line. shards: packed samples, 28x28 noise if left out. folder: holds
    `raw_torch.py`, whose loops are timed as well.
    """
    torch.set_num_threads(threads)
    device = launch.start("fp32", config.timeout).device
    yield f"{machine(device)}; {about}"
    with tempfile.TemporaryDirectory() as scratch:
        opened = Shards.open(shards) if shards else synthetic(Path(scratch) / "shards")
        if opened.spec.kind == "signal":
            opened = opened.with_normalise(config.data.normalise)
        setting = Setting(config, opened, device)
        for phase in phases:
            loops = {"hand-written": bare_loop.WRITTEN[phase.name](setting, bare_loop.Preloaded(setting))}
            loops["trainer"] = trainer(setting, phase).iterate
            if phase.posteriors is not None:
                loops["trainer, posteriors kept"] = trainer(setting, phase, keep=True).iterate
            if folder is not None:
                loops |= bare_loop.imported(folder, setting, phase.name, Path(scratch))
            times = interleave(loops, rounds, seconds, device_wait(device))
            yield from table(phase.name, times, "hand-written", config.data.batch_size)
            for name in ("hand-written", "trainer"):
                kernels, copies, waits = launches(loops[name], COUNTED)
                yield f"  {name:<26}{kernels:.1f} launches, {copies:.1f} of them copies, {waits:.1f} waits"


def side_by_side(configs: Mapping[str, RunConfig], rounds: int, seconds: float, threads: int) -> Iterator[str]:
    """An iteration of each phase of several systems on 28x28 noise; speeds are relative to the first one's.

    ConfigError unless all have one batch size and one precision.
    """
    torch.set_num_threads(threads)
    (size, precision), *others = {(config.data.batch_size, config.precision) for config in configs.values()}
    if others:
        raise ConfigError(f"they differ in batch or precision: add data.batch_size={size} precision={precision}")
    device = launch.start(precision, 600.0).device
    yield f"{machine(device)}; batches of {size}, {precision}"
    with tempfile.TemporaryDirectory() as scratch:
        shards = synthetic(Path(scratch) / "shards")
        loops = {
            f"{name} {phase.name}": trainer(Setting(config, shards, device), phase).iterate
            for name, config in configs.items()
            for phase in config.system.phases()
            if phase.steps
        }
        times = interleave(loops, rounds, seconds, device_wait(device))
        yield from table("an iteration", times, next(iter(loops)), size)


def beside_other_loaders(size: int, samples: int, workers: int, rounds: int, seconds: float) -> Iterator[str]:
    """Batches through this package, the webdataset library and `datasets` streaming, from the same shards."""
    torch.set_num_threads(1)
    if workers < 0:
        raise ConfigError(f"--workers={workers} must not be negative")
    yield f"{machine(torch.device('cpu'))}; batches of {size}, {workers} workers, {samples} samples"
    with tempfile.TemporaryDirectory() as scratch:
        for title, folder in loaders.sets(Path(scratch), samples, size):
            ways = {name: load(folder, size, workers) for name, load in loaders.LOADERS.items()}
            loops = {name: partial(next, batches) for name, batches in ways.items()}
            yield from table(title, interleave(loops, rounds, seconds, lambda: None), "webdataset", size)
            yield "  " + memory(partial(next, loaders.ours(folder, size, workers)), samples // size, EPOCHS)


def photographs(
    config: RunConfig,
    samples: int,
    rounds: int,
    seconds: float,
    sides: Sequence[int],
    folder: Path | None,
    store: str | None = None,
) -> Iterator[str]:
    """Batches of JPEGs of 300 to 500 pixels at each size, without and with worker processes, in one interleaved run.

    config: of the training whose first phase the last lines are about, with batch and workers. folder: pictures of
    which the JPEGs are parts; None: smooth random ones. store: the URL of a folder to put the tars into; they are
    then read from there once by each library too.
    """
    torch.set_num_threads(1)
    batch, workers = config.data.batch_size, config.data.workers
    loaders.check_samples(samples, batch)
    with tempfile.TemporaryDirectory() as scratch:
        tars = Path(scratch) / "photos"
        photos.make(tars, samples, folder)
        size = sum(path.stat().st_size for path in tars.glob("*.tar")) / samples / 1000
        about = f"batches of {batch}, {samples} JPEGs of 300 to 500 pixels, {size:.0f} kB each"
        yield f"{machine(torch.device('cpu'))}; {about}"
        for side in sides:
            loops = {
                (number, name): partial(next, load(tars, side, batch, number))
                for number in (0, workers)
                for name, load in photos.READERS.items()
            }
            named = {f"{number} {name}": loop for (number, name), loop in loops.items()}
            times = interleave(named, rounds, seconds, lambda: None, AHEAD)
            for number in (0, workers):
                own = {name: times[f"{number} {name}"] for at, name in loops if at == number}
                yield from table(f"{side} px, {number} workers", own, photos.USUAL, batch)
        for side in sides:
            yield waiting(config, photos.sized(tars, side))
        if store is not None:
            url = photos.copied(tars, store)
            for side, name in product(sides, [name for name in photos.READERS if name != photos.NOT_FROM_STORES]):
                taken = photos.once(name, url, side, batch, samples // batch, workers)
                yield f"{side} px, once from {shown(url)}, {workers} workers: {name} {samples / taken:,.0f} samples/s"


def waiting(config: RunConfig, shards: Shards) -> str:
    """The share of a training step that waits for its data."""
    config = auto.resolve(config, shards.spec.shape, {})
    phase, workers = config.system.phases()[0], config.data.workers
    loop = trainer(Setting(config, shards, torch.device("cpu")), phase, workers=workers)
    for _ in range(WARM_UP):
        loop.iterate()
    start, before = time.perf_counter(), loop.waited()
    for _ in range(STEPS):
        loop.iterate()
    whole, waited = time.perf_counter() - start, loop.waited() - before
    what = f"{shards.spec.shape[1]} px, {phase.name}, {config.networks.width} channels"
    return f"{what}: {whole / STEPS:.3f} s a step, {waited / whole:.1%} of it waiting for data from {workers} workers"
